//! Names and words: files named after nothing, modules without a purpose, notes to self.

use std::path::Path;

use super::Finding;
use super::source::{Views, views};
use super::tree::{Tree, TreeFile};

/// Such a file has no idea of its own, so everything ends up in it.
const BANNED_FILES: [&str; 8] =
    ["util", "utils", "helper", "helpers", "common", "manager", "misc", "generic"];
const BANNED_MACROS: [&str; 3] = ["todo!", "dbg!", "unimplemented!"];
/// Allowed with the number of an issue, as in `#12`, because only then somebody looks.
const NOTES: [&str; 3] = ["TODO", "FIXME", "XXX"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        let views = views(&file.text);
        findings.extend(banned_file(file));
        findings.extend(missing_doc(file));
        findings.extend(banned_macros(file, &views));
        findings.extend(notes(file, &views));
    }
    findings
}

fn banned_file(file: &TreeFile) -> Option<Finding> {
    let path = Path::new(&file.path);
    let names = path.iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    let banned = names.into_iter().find(|name| BANNED_FILES.contains(name))?;
    let text = format!("`{banned}` says nothing: name it after what it is for");
    Some(Finding::new(path, 0, text))
}

/// Attributes may stand before the documentation, code may not.
fn missing_doc(file: &TreeFile) -> Option<Finding> {
    let first = file.text.lines().find(|line| !line.is_empty() && !line.starts_with("#!"))?;
    let text = "begin with a `//!` line: what this module is for and what it is not";
    (!first.starts_with("//! ")).then(|| Finding::new(&file.path, 1, text))
}

fn banned_macros(file: &TreeFile, views: &Views) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in views.code.lines().enumerate() {
        for banned in BANNED_MACROS.iter().filter(|banned| line.contains(**banned)) {
            findings.push(Finding::new(
                &file.path,
                at + 1,
                format!("`{banned}` is not for keeping"),
            ));
        }
    }
    findings
}

fn notes(file: &TreeFile, views: &Views) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in views.comments.lines().enumerate() {
        let has_note = line.split(|c: char| !c.is_alphanumeric()).any(|word| NOTES.contains(&word));
        if has_note && !has_issue_number(line) {
            let text = "a note to self needs the number of an issue, as in `#12`";
            findings.push(Finding::new(&file.path, at + 1, text));
        }
    }
    findings
}

fn has_issue_number(line: &str) -> bool {
    line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::tree_of;

    fn lines(text: &str) -> Vec<usize> {
        check(&tree_of(&[("a.rs", text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_module_without_a_purpose_is_found() {
        assert_eq!(lines("fn a() {}\n"), [1]);
        assert!(lines("#![cfg(test)]\n\n//! Purpose.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn banned_macros_are_found_in_code_and_not_in_strings() {
        assert_eq!(lines("//! A.\nfn a() { todo!() }\nconst B: &str = \"dbg!\";\n"), [2]);
    }

    #[test]
    fn a_note_needs_an_issue() {
        assert_eq!(lines("//! A.\n// TODO later\n// TODO(#12) later\n"), [2]);
    }

    #[test]
    fn files_and_directories_named_after_nothing_are_found() {
        let text = "//! A.\n";
        let tree =
            tree_of(&[("a/utils.rs", text), ("a/common/b.rs", text), ("a/utilisation.rs", text)]);
        assert_eq!(check(&tree).len(), 2);
    }
}
