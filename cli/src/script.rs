//! Job scripts: whether a text can be one, and the `#GOTGAN` and `#SBATCH` lines at its top.
//!
//! Pure, and total: any text gives either its directives or the list of what is wrong, each with its line. What
//! the options mean is the matter of `directives.rs`.

/// Largest script the API takes, in bytes.
pub const SCRIPT_MAX_BYTES: usize = 1 << 20;

/// Whose directive a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// `#SBATCH`, read for scripts written for Slurm.
    Sbatch,
    /// `#GOTGAN`, which wins.
    Gotgan,
}

impl Dialect {
    /// How its lines begin.
    #[must_use]
    pub const fn marker(self) -> &'static str {
        match self {
            Self::Sbatch => "#SBATCH",
            Self::Gotgan => "#GOTGAN",
        }
    }
}

/// One directive line, split into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Counted from 1.
    pub line: usize,
    pub dialect: Dialect,
    pub words: Vec<String>,
}

/// Something about a line that the author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub line: usize,
    pub message: String,
}

/// What the top of a script says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub directives: Vec<Directive>,
    /// Directives that have no effect.
    pub warnings: Vec<Note>,
}

/// Whether these bytes can be a job script.
///
/// # Errors
/// Says what is wrong with it and how to put it right.
pub fn check(bytes: Vec<u8>) -> Result<String, (String, String)> {
    let wrong = |message: &str, hint: &str| Err((message.to_owned(), hint.to_owned()));
    if bytes.len() > SCRIPT_MAX_BYTES {
        let message = "the script is larger than 1 MiB".to_owned();
        return wrong(
            &message,
            "put data and programs into files of their own and name them in the script",
        );
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(problem) => {
            let valid = problem.utf8_error().valid_up_to();
            let line =
                1 + problem.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
            return wrong(
                &format!("the script is not UTF-8 (line {line})"),
                "is it a program? submit it as a command: gotgan submit -- ./program",
            );
        }
    };
    if text.trim().is_empty() {
        return wrong(
            "the script is empty",
            "write commands into it, after a first line such as #!/bin/bash",
        );
    }
    if text.contains('\0') {
        return wrong(
            "the script contains a zero byte",
            "is it a program? submit it as a command: gotgan submit -- ./program",
        );
    }
    let first = text.lines().next().unwrap_or_default();
    if text.starts_with('\u{feff}') {
        return wrong("the script begins with a byte order mark", "save it as UTF-8 without one");
    }
    if first.strip_prefix("#!").is_none_or(|interpreter| interpreter.trim().is_empty()) {
        return wrong(
            "the script does not begin with #! and an interpreter",
            "make #!/bin/bash its first line; a command needs no script: gotgan submit -- command",
        );
    }
    if text.lines().next().is_some()
        && text.split('\n').next().is_some_and(|line| line.ends_with('\r'))
    {
        return wrong("the script has Windows line ends", "convert it: sed -i 's/\\r$//' FILE");
    }
    Ok(text)
}

/// Reads the directives at the top of a script, up to its first command.
///
/// # Errors
/// Every malformed line.
pub fn read_header(text: &str) -> Result<Header, Vec<Note>> {
    let (mut header, mut problems, mut in_body) = (Header::default(), Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        in_body |= !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let Some((dialect, rest)) = directive_of(line) else {
            continue;
        };
        if in_body {
            let message =
                format!("{} after the first command has no effect; move it up", dialect.marker());
            header.warnings.push(Note { line: number, message });
            continue;
        }
        match split_words(rest) {
            Ok(words) => header.directives.push(Directive { line: number, dialect, words }),
            Err(message) => problems.push(Note { line: number, message }),
        }
    }
    if problems.is_empty() { Ok(header) } else { Err(problems) }
}

/// The dialect of a line and what follows its marker, if it is a directive.
fn directive_of(line: &str) -> Option<(Dialect, &str)> {
    [Dialect::Gotgan, Dialect::Sbatch].into_iter().find_map(|dialect| {
        let rest = line.strip_prefix(dialect.marker())?;
        (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some((dialect, rest))
    })
}

/// Splits as a shell would, with quotes and backslashes but nothing else of it; a word that begins with `#` ends
/// the line.
fn split_words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = letters.next().ok_or("ends in a backslash; a directive is one line")?;
                word.get_or_insert_default().push(next);
            }
            (None, '#') if word.is_none() => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        split_words(text).unwrap()
    }

    #[test]
    fn directives_end_at_the_first_command() {
        let text = "#!/bin/bash\n# a comment\n#SBATCH -N 2\n\n#GOTGAN --time=1h # an hour\n##SBATCH -n 9\necho\n#SBATCH -A x\n";
        let header = read_header(text).unwrap();
        let lines: Vec<_> =
            header.directives.iter().map(|found| (found.line, found.dialect)).collect();
        assert_eq!(lines, [(3, Dialect::Sbatch), (5, Dialect::Gotgan)]);
        assert_eq!(header.directives[1].words, ["--time=1h"]);
        assert_eq!(header.warnings[0].line, 8);
    }

    #[test]
    fn words_keep_what_is_quoted_together() {
        assert_eq!(
            words(r#" --name "a b" --comment='c # d' e\ f"#),
            ["--name", "a b", "--comment=c # d", "e f"]
        );
        assert_eq!(words(r#"--comment """#), ["--comment", ""]);
    }

    #[test]
    fn an_open_quote_is_named_with_its_line() {
        let problems = read_header("#!/bin/sh\n#GOTGAN --name \"x\n").unwrap_err();
        assert_eq!(problems, [Note { line: 2, message: "a quote is not closed".to_owned() }]);
    }

    #[test]
    fn what_cannot_be_a_script_is_refused() {
        let large = [b"#!/bin/sh\n".to_vec(), vec![b'x'; SCRIPT_MAX_BYTES]].concat();
        for bytes in [
            b"".to_vec(),
            b" \n".to_vec(),
            b"echo\n".to_vec(),
            b"#!\n".to_vec(),
            b"#!/bin/sh\r\n".to_vec(),
            b"#!/bin/sh\n\xff".to_vec(),
            b"#!/bin/sh\n\0".to_vec(),
            large,
        ] {
            assert!(check(bytes).is_err());
        }
        assert!(check(b"#!/bin/sh\necho\n".to_vec()).is_ok());
    }

    #[test]
    fn the_line_that_is_not_utf8_is_named() {
        let (message, _) = check(b"#!/bin/sh\n\n\xff".to_vec()).unwrap_err();
        assert_eq!(message, "the script is not UTF-8 (line 3)");
    }

    proptest! {
        #[test]
        fn any_text_gives_directives_or_problems(text in "(#GOTGAN|#SBATCH|[-#'\"\\\\ a-z=\n\r\t é])*") {
            let _ = read_header(&text);
        }

        #[test]
        fn any_bytes_can_be_checked(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(bytes);
        }
    }
}
