//! Rust text taken apart just enough to measure it: code without comments and literals, and comments
//! without code. Every other character becomes a space and every line keeps its number.

/// The two views of one file, both as long as the file.
#[derive(Debug, Default)]
pub struct Views {
    pub code: String,
    pub comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

pub fn views(text: &str) -> Views {
    let characters: Vec<char> = text.chars().collect();
    let mut views = Views::default();
    let mut at = 0;
    while at < characters.len() {
        let (kind, length) = piece(&characters[at..], at.checked_sub(1).map(|i| characters[i]));
        for character in &characters[at..at + length] {
            views.push(kind, *character);
        }
        at += length;
    }
    views
}

impl Views {
    fn push(&mut self, kind: Kind, character: char) {
        let blank = if character == '\n' { '\n' } else { ' ' };
        self.code.push(if kind == Kind::Code { character } else { blank });
        self.comments.push(if kind == Kind::Comment { character } else { blank });
    }
}

/// What begins here, and how many characters it has.
fn piece(rest: &[char], before: Option<char>) -> (Kind, usize) {
    let in_word = before.is_some_and(|character| character.is_alphanumeric() || character == '_');
    match rest {
        ['/', '/', ..] => (Kind::Comment, line_length(rest)),
        ['/', '*', ..] => (Kind::Comment, block_comment_length(rest)),
        ['"', ..] => (Kind::Literal, string_length(rest)),
        ['\'', ..] => literal_or_lifetime(rest),
        ['r' | 'b' | 'c', ..] if !in_word => prefixed(rest),
        _ => (Kind::Code, 1),
    }
}

fn line_length(rest: &[char]) -> usize {
    rest.iter().position(|character| *character == '\n').unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// From a quote to the next that no backslash escapes.
fn string_length(rest: &[char]) -> usize {
    quoted_length(rest, '"')
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            character if character == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `'a'` and `'\n'` are literals, `'a` is a lifetime.
fn literal_or_lifetime(rest: &[char]) -> (Kind, usize) {
    match rest {
        ['\'', '\\', ..] => (Kind::Literal, quoted_length(rest, '\'')),
        ['\'', _, '\'', ..] => (Kind::Literal, 3),
        _ => (Kind::Code, 1),
    }
}

/// Raw and byte strings: `r"…"`, `r#"…"#`, `br#"…"#`, `b"…"`, `b'x'`.
fn prefixed(rest: &[char]) -> (Kind, usize) {
    let letters = rest.iter().take_while(|character| matches!(character, 'r' | 'b' | 'c')).count();
    let hashes = rest[letters..].iter().take_while(|character| **character == '#').count();
    let raw = rest[..letters].contains(&'r');
    match rest.get(letters + hashes) {
        Some('"') if raw => (Kind::Literal, raw_length(rest, letters + hashes + 1, hashes)),
        Some('"') if hashes == 0 => (Kind::Literal, letters + string_length(&rest[letters..])),
        Some('\'') if hashes == 0 && rest[..letters] == ['b'] => {
            (Kind::Literal, letters + quoted_length(&rest[letters..], '\''))
        }
        _ => (Kind::Code, 1),
    }
}

fn raw_length(rest: &[char], begin: usize, hashes: usize) -> usize {
    let closes = |at: &usize| {
        let tail = &rest[at + 1..];
        rest[*at] == '"' && tail.len() >= hashes && tail[..hashes].iter().all(|c| *c == '#')
    };
    let end = (begin..rest.len()).find(closes);
    end.map_or(rest.len(), |at| at + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_leave_the_code() {
        let views = views("let a = \"{ // no\"; // {\n/* { /* { */ } */ b()");
        assert_eq!(views.code.split_whitespace().collect::<String>(), "leta=;b()");
        assert!(views.comments.contains("// {"));
        assert!(!views.comments.contains("no"));
    }

    #[test]
    fn raw_strings_end_where_their_hashes_say() {
        let views = views("r#\"a \" {\"# + br\"{\" + b\"\\\"{\" + c");
        assert_eq!(views.code.split_whitespace().collect::<String>(), "+++c");
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        let views = views("fn f<'a>(x: &'a str) { '{'; '\\''; b'{'; }");
        assert_eq!(views.code.matches('{').count(), 1);
        assert!(views.code.contains("&'a str"));
    }

    #[test]
    fn a_variable_that_ends_in_r_is_no_raw_string() {
        assert!(views("for \"x\" var\"y\"").code.contains("for"));
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "a\n\"b\nc\"\n/* d\n */ e\n";
        assert_eq!(views(text).code.lines().count(), text.lines().count());
    }
}
