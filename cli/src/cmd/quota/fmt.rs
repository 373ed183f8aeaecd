//! `gotgan quota fmt`: quota files in one form, so that a difference between two versions is a difference of terms.

use std::{fs, path::PathBuf};

use clap::Args;
use serde::Serialize;
use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, Key, RawString, Table, Value};

use super::files::find;
use crate::{
    context::Context,
    error::{Error, Exit},
};

/// Columns up to which a list of tables stays on its line.
const LINE_MAX: usize = 100;

/// Keys in the order in which they are written; others follow by name.
const ORDER: [&str; 27] = [
    "title",
    "kind",
    "decision",
    "allocator",
    "id",
    "count",
    "first",
    "from",
    "until",
    "class",
    "cluster",
    "due",
    "weight_milli",
    "guarantee",
    "limit",
    "weight",
    "budget",
    "overuse",
    "lend",
    "borrow",
    "max_gang",
    "max_walltime",
    "max_jobs",
    "labels",
    "concentration",
    "each",
    "group",
];

/// Write quota files in one form: the order of terms, spaces, one table a line
#[derive(Args, Debug)]
#[command(
    after_help = "Comments stay. With --check nothing is written, and it ends with 2 if something would be.\n\n\
                  Examples:\n  gotgan quota fmt quota/\n  gotgan quota fmt --check quota/"
)]
pub struct FormatQuota {
    /// TOML files, or folders of them
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Only say which files are not in that form
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct FormattedView {
    checked: usize,
    /// Files that were written, or would be.
    changed: Vec<String>,
}

impl FormatQuota {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Error> {
        let files = find(&self.paths)?;
        let mut view = FormattedView { checked: files.len(), changed: Vec::new() };
        // All of them are read before any is written.
        let mut formatted = Vec::new();
        for (name, path) in files {
            let failed = |source| Error::File { path: path.display().to_string(), source };
            let text = fs::read_to_string(&path).map_err(failed)?;
            let new = format(&text).map_err(|what| {
                Error::invalid(format!("{name}: {what}"), "`gotgan quota validate` names the line")
            })?;
            if new != text {
                view.changed.push(name);
                formatted.push((path, new));
            }
        }
        for (path, text) in formatted.iter().filter(|_| !self.check) {
            let failed = |source| Error::File { path: path.display().to_string(), source };
            fs::write(path, text).map_err(failed)?;
        }
        let exit = if self.check && !view.changed.is_empty() { Exit::Planned } else { Exit::Ok };
        if context.output.json {
            context.output.document("gotgan.quota_fmt/1", &view)?;
        } else {
            for name in &view.changed {
                context.output.line(name)?;
            }
        }
        Ok(exit.code())
    }
}

/// The text in the one form.
fn format(text: &str) -> Result<String, String> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    let trailing = comment_lines(document.trailing().as_str().unwrap_or_default());
    format_table(document.as_table_mut(), true);
    let end = if trailing.is_empty() { String::new() } else { format!("\n{trailing}") };
    document.set_trailing(end);
    let text = document.to_string();
    Ok(text.trim_start_matches('\n').to_owned())
}

/// Order and spaces of a table's values; tables in it stay in their order.
fn format_table(table: &mut Table, root: bool) {
    if !root {
        let before = comment_lines(decor_text(table.decor().prefix()));
        table.decor_mut().set_prefix(format!("\n{before}"));
        let after = comment(decor_text(table.decor().suffix()));
        table.decor_mut().set_suffix(after);
    }
    table.sort_values_by(|one, _, other, _| place(one).cmp(&place(other)));
    for (mut key, item) in table.iter_mut() {
        match item {
            Item::Value(value) => {
                let before = comment_lines(decor_text(key.leaf_decor().prefix()));
                key.leaf_decor_mut().set_prefix(before);
                key.leaf_decor_mut().set_suffix(" ");
                format_value(value, key.get().len());
            }
            Item::Table(table) => format_table(table, false),
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().for_each(|table| format_table(table, false));
            }
            Item::None => {}
        }
    }
}

/// Where a key stands among its neighbours.
fn place(key: &Key) -> (usize, String) {
    let known = ORDER.iter().position(|name| *name == key.get());
    (known.unwrap_or(ORDER.len()), key.get().to_owned())
}

fn format_value(value: &mut Value, indent: usize) {
    let after = comment(decor_text(value.decor().suffix()));
    match value {
        Value::InlineTable(table) => format_inline(table),
        Value::Array(array) => format_array(array, indent),
        _ => {}
    }
    *value.decor_mut() = Decor::new(" ", after);
}

fn format_inline(table: &mut InlineTable) {
    table.sort_values_by(|one, _, other, _| place_inline(one).cmp(&place_inline(other)));
    table.fmt();
    for (_, value) in table.iter_mut() {
        match value {
            Value::InlineTable(table) => format_inline(table),
            Value::Array(array) => array.fmt(),
            _ => {}
        }
    }
}

/// In a table on one line what it is about comes first, and dates last.
fn place_inline(key: &Key) -> (usize, String) {
    let order = ["value", "class", "period", "gpus", "spare", "ngh", "accepted", "from", "until"];
    let known = order.iter().position(|name| *name == key.get());
    (known.unwrap_or(order.len()), key.get().to_owned())
}

/// On one line if that is short; else an element a line. An array with comments stays as it is.
fn format_array(array: &mut Array, indent: usize) {
    let commented = array.to_string().contains('#');
    if commented {
        return;
    }
    for value in array.iter_mut() {
        if let Value::InlineTable(table) = value {
            format_inline(table);
        }
    }
    array.fmt();
    array.set_trailing_comma(false);
    array.set_trailing("");
    let has_tables = array.iter().any(Value::is_inline_table);
    let long = array.to_string().len() + indent + " = ".len() > LINE_MAX;
    if !(long || has_tables && array.len() > 1) {
        return;
    }
    for value in array.iter_mut() {
        value.decor_mut().set_prefix("\n    ");
        value.decor_mut().set_suffix("");
    }
    array.set_trailing_comma(true);
    array.set_trailing("\n");
}

fn decor_text(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// The comment at the end of a line.
fn comment(text: &str) -> String {
    let text = text.trim();
    if text.starts_with('#') { format!("  {text}") } else { String::new() }
}

/// The lines of comment, each with its end; groups of them stay apart by one empty line.
fn comment_lines(text: &str) -> String {
    let mut lines = String::new();
    let mut gap = false;
    for line in text.lines().map(str::trim) {
        match line {
            "" => gap = !lines.is_empty(),
            line => {
                if gap {
                    lines.push('\n');
                }
                gap = false;
                lines.push_str(line);
                lines.push('\n');
            }
        }
    }
    if gap && text.trim_end_matches([' ', '\t']).ends_with("\n\n") {
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn terms_have_one_order_and_comments_stay_with_what_they_are_about() {
        let text = "\
#   The startups.


[node.\"public/nup\"]   # since 2020
max_jobs= 3
weight=4
lend = {recall='10m', keep_idle = 4}
  # Agreed in spring.
limit={h200=16,  b200 = \"unlimited\"}   # for now
guarantee = [ {from=\"2027-01-04\", class=\"b300\",gpus=600}, {class = \"h200\", gpus = 324} ]
title='Startups'
[[node.\"public/nup\".group]]
count = 151
id = \"startup\"
[node.\"public/nup\".group.each]
guarantee = [{ gpus = 2, class = \"h200\" }]
# The end.
";
        insta::assert_snapshot!(format(text).unwrap(), @r##"
        #   The startups.

        [node."public/nup"]  # since 2020
        title = 'Startups'
        guarantee = [
            { class = "b300", gpus = 600, from = "2027-01-04" },
            { class = "h200", gpus = 324 },
        ]
        # Agreed in spring.
        limit = { b200 = "unlimited", h200 = 16 }  # for now
        weight = 4
        lend = { keep_idle = 4, recall = '10m' }
        max_jobs = 3

        [[node."public/nup".group]]
        id = "startup"
        count = 151

        [node."public/nup".group.each]
        guarantee = [{ class = "h200", gpus = 2 }]

        # The end.
        "##);
    }

    #[test]
    fn what_is_in_form_stays_as_it_is_and_so_does_what_it_says() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quota");
        let paths = [PathBuf::from(folder)];
        let files = find(&paths).unwrap();
        assert!(files.len() > 10);
        for (name, path) in files {
            let text = fs::read_to_string(path).unwrap();
            let once = format(&text).unwrap();
            assert_eq!(format(&once).unwrap(), once, "{name}");
            let read = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
            assert_eq!(read(&once), read(&text), "{name}");
        }
    }

    #[test]
    fn what_is_no_toml_is_refused() {
        assert!(format("[node").is_err());
    }
}
