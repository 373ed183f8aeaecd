//! The page of invariants names tests, and each of them is there.

use super::Finding;
use super::tree::Tree;

const PAGE: &str = "docs/invariants.md";
/// Names of tests are sentences; shorter words in code are something else.
const WORDS_MIN: usize = 4;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let page = tree.with_extension("md").filter(|page| page.path == PAGE);
    let lines = page.flat_map(|page| page.text.lines().enumerate());
    let named = lines.flat_map(|(at, line)| tests(line).map(move |test| (at + 1, test)));
    let missing = named.filter(|(_, test)| !has(tree, test));
    missing
        .map(|(line, test)| Finding::new(PAGE, line, format!("no test is called {test}")))
        .collect()
}

/// Names of tests in a line of the page.
fn tests(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        let plain = word
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        plain && word.split('_').count() >= WORDS_MIN
    })
}

fn has(tree: &Tree, test: &str) -> bool {
    let head = format!("fn {test}(");
    tree.with_extension("rs").any(|file| file.text.contains(&head))
}

#[cfg(test)]
mod tests {
    use super::tests;

    #[test]
    fn only_sentences_are_names_of_tests() {
        let line = "`a_limit_is_never_passed` and `late-delivery`, `GOTGAN_TEST_KILLS`, `cargo test`, `it_is`";
        assert_eq!(tests(line).collect::<Vec<_>>(), ["a_limit_is_never_passed"]);
    }
}
