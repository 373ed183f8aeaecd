//! No long functions, no long files, except those listed with a reason in `xtask/tidy-allow.toml`, and
//! those may not grow.

use anyhow::{Context, Result};
use toml::Table;

use super::Finding;
use super::source::views;
use super::tree::{Tree, TreeFile};

/// A longer function does more than one thing.
const FUNCTION_LINES: usize = 70;
/// A longer file holds more than one idea. Test modules are not counted.
const FILE_LINES: usize = 500;
/// Tests may be longer, but a test file nobody reads checks nothing.
const TEST_FILE_LINES: usize = 1000;
const ALLOW_LIST: &str = "xtask/tidy-allow.toml";

/// A function or a file, and how long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Size {
    path: String,
    /// None: the file itself.
    function: Option<String>,
    /// Where it begins, from 1.
    line: usize,
    lines: usize,
    limit: usize,
}

impl Size {
    fn describe(&self) -> String {
        match &self.function {
            Some(name) => format!("function {name}"),
            None => "file".to_owned(),
        }
    }

    fn is_same_thing(&self, other: &Size) -> bool {
        self.path == other.path && self.function == other.function
    }
}

pub fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let allow_list = tree.files.iter().find(|file| file.path == ALLOW_LIST);
    let allowed = parse_allow_list(allow_list.map_or("", |file| &file.text))?;
    let sizes: Vec<Size> = tree.with_extension("rs").flat_map(sizes_of).collect();
    let mut findings: Vec<Finding> =
        sizes.iter().filter_map(|size| judge(size, &allowed)).collect();
    findings.extend(allowed.iter().filter_map(|entry| judge_entry(entry, &sizes)));
    Ok(findings)
}

fn judge(size: &Size, allowed: &[Size]) -> Option<Finding> {
    if size.lines <= size.limit {
        return None;
    }
    let (what, lines, limit) = (size.describe(), size.lines, size.limit);
    let text = match allowed.iter().find(|entry| entry.is_same_thing(size)) {
        Some(entry) if lines <= entry.lines => return None,
        Some(entry) => format!("{what} grew from its listed {} to {lines} lines", entry.lines),
        None => format!("{what} has {lines} lines, the limit is {limit}: cut it in parts"),
    };
    Some(Finding::new(&size.path, size.line, text))
}

/// An entry that is not needed any more would let the thing grow again.
fn judge_entry(entry: &Size, sizes: &[Size]) -> Option<Finding> {
    let needed = sizes.iter().any(|size| size.is_same_thing(entry) && size.lines > size.limit);
    let text =
        format!("{} of {} is within the limit or gone: take it out", entry.describe(), entry.path);
    (!needed).then(|| Finding::new(ALLOW_LIST, 0, text))
}

fn parse_allow_list(text: &str) -> Result<Vec<Size>> {
    let table: Table = text.parse().context(ALLOW_LIST)?;
    let mut entries = Vec::new();
    for kind in ["file", "function"] {
        for entry in table.get(kind).and_then(|list| list.as_array()).into_iter().flatten() {
            let parsed = parse_entry(kind, entry);
            entries.push(parsed.with_context(|| {
                format!("{ALLOW_LIST}: each [[{kind}]] needs path, lines and reason, a function its name")
            })?);
        }
    }
    Ok(entries)
}

fn parse_entry(kind: &str, entry: &toml::Value) -> Option<Size> {
    let text = |key: &str| entry.get(key)?.as_str().filter(|text| !text.is_empty());
    text("reason")?;
    let function = if kind == "function" { Some(text("name")?.to_owned()) } else { None };
    let lines = usize::try_from(entry.get("lines")?.as_integer()?).ok()?;
    Some(Size { path: text("path")?.to_owned(), function, line: 0, lines, limit: lines })
}

fn sizes_of(file: &TreeFile) -> Vec<Size> {
    let code = views(&file.text).code;
    let lines: Vec<&str> = code.lines().collect();
    let mut sizes = functions(file, &lines);
    let (limit, tests) = if is_test_file(&file.path) {
        (TEST_FILE_LINES, 0)
    } else {
        (FILE_LINES, test_module_lines(&lines))
    };
    let counted = lines.len() - tests;
    sizes.push(Size { path: file.path.clone(), function: None, line: 1, lines: counted, limit });
    sizes
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

/// Lines of modules marked `#[cfg(test)]`, the mark included.
fn test_module_lines(lines: &[&str]) -> usize {
    let mut counted = 0;
    for (at, line) in lines.iter().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            let is_module = lines[at + 1..].iter().find(|next| !next.trim().is_empty());
            if is_module.is_some_and(|next| next.trim_start().starts_with("mod ")) {
                counted += block_lines(lines, at).unwrap_or(0);
            }
        }
    }
    counted
}

fn functions(file: &TreeFile, lines: &[&str]) -> Vec<Size> {
    let written: Vec<&str> = file.text.lines().collect();
    let mut sizes = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let Some(length) = block_lines(lines, at) else {
            continue;
        };
        let data = data_lines(&lines[at..at + length], &written[at..at + length]);
        sizes.push(Size {
            path: file.path.clone(),
            function: Some(name.to_owned()),
            line: at + 1,
            lines: length - data,
            limit: FUNCTION_LINES,
        });
    }
    sizes
}

/// Lines inside a literal, as of a snapshot or a statement: they are long, but nothing happens in them.
fn data_lines(code: &[&str], written: &[&str]) -> usize {
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let is_data = |(code, written): &(&&str, &&str)| {
        code.trim().is_empty() && !written.trim().is_empty() && !is_comment(written)
    };
    code.iter().zip(written).filter(is_data).count()
}

/// Of a line that begins a function; types like `fn(u8)` name none.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_word = before.is_empty() || before.ends_with(|c: char| c.is_whitespace());
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
    (is_word && end > 0).then(|| &after[..end])
}

/// Lines from here to the brace that closes the first block; None if a semicolon comes before it.
fn block_lines(lines: &[&str], begin: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_i32, 0_i32);
    for (offset, line) in lines[begin..].iter().enumerate() {
        for character in line.chars() {
            match character {
                '{' => braces += 1,
                '}' => braces -= 1,
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                // `[u8; 4]` in a signature is no end.
                ';' if braces == 0 && brackets == 0 => return None,
                _ => continue,
            }
            if character == '}' && braces == 0 {
                return Some(offset + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::tree_of;

    fn long_function(lines: usize) -> String {
        format!("//! Doc.\nfn long(a: [u8; 4])\n{{\n{}}}\n", "    call();\n".repeat(lines - 3))
    }

    fn texts(tree: &Tree) -> Vec<String> {
        check(tree).unwrap().into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn a_function_at_the_limit_passes_and_one_line_more_does_not() {
        assert!(texts(&tree_of(&[("a.rs", &long_function(70))])).is_empty());
        let found = texts(&tree_of(&[("a.rs", &long_function(71))]));
        assert_eq!(found, ["function long has 71 lines, the limit is 70: cut it in parts"]);
    }

    #[test]
    fn a_listed_function_may_stay_but_not_grow() {
        let list = "[[function]]\npath = \"a.rs\"\nname = \"long\"\nlines = 80\nreason = \"r\"\n";
        assert!(texts(&tree_of(&[("a.rs", &long_function(80)), (ALLOW_LIST, list)])).is_empty());
        let found = texts(&tree_of(&[("a.rs", &long_function(81)), (ALLOW_LIST, list)]));
        assert_eq!(found, ["function long grew from its listed 80 to 81 lines"]);
    }

    #[test]
    fn an_entry_without_a_reason_and_one_without_a_need_are_refused() {
        let without = "[[file]]\npath = \"a.rs\"\nlines = 600\n";
        assert!(check(&tree_of(&[(ALLOW_LIST, without)])).is_err());
        let unneeded = format!("{without}reason = \"r\"\n");
        assert_eq!(texts(&tree_of(&[(ALLOW_LIST, &unneeded)])).len(), 1);
    }

    #[test]
    fn the_test_module_does_not_count() {
        let code = "//! Doc.\n".to_owned() + &"const A: u8 = 1;\n".repeat(499);
        let with_tests = format!("{code}#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(100));
        assert!(texts(&tree_of(&[("a.rs", &with_tests)])).is_empty());
        assert_eq!(texts(&tree_of(&[("a.rs", &format!("{code}\n"))])).len(), 1);
    }

    #[test]
    fn lines_of_a_literal_do_not_make_a_function_long() {
        let text = format!("//! Doc.\nfn f() {{\n    check(\"\n{}\");\n}}\n", "row\n".repeat(100));
        assert!(texts(&tree_of(&[("a.rs", &text)])).is_empty());
    }

    #[test]
    fn a_trait_method_without_body_is_no_function_to_measure() {
        let tree = tree_of(&[("a.rs", "    fn a(&self) -> u8;\n    fn b() {}")]);
        assert_eq!(sizes_of(&tree.files[0]).len(), 2, "b and the file");
    }
}
