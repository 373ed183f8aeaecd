//! Job scripts, as `gotgan submit FILE` reads them.

use gotgan::directives::options_of;
use gotgan::script::{self, Header, Note};
use gotgan_proto::v1;
use prost::Message;

/// A script is refused with reasons and lines that it has, or makes a job; what its words mean does not depend on how they
/// are quoted.
pub(crate) fn take(bytes: &[u8]) {
    match script::check(bytes.to_vec()) {
        Ok(text) => read(&text),
        Err((message, hint)) => {
            assert!(!message.is_empty() && !hint.is_empty());
            // What is no script by its first lines may have a header all the same.
            read(&super::text_of(bytes));
        }
    }
}

fn read(text: &str) {
    let header = match script::read_header(text) {
        Ok(header) => header,
        Err(notes) => return refused(&notes, text),
    };
    let again = script::read_header(&quoted(&header)).expect("quoted words are words");
    let words = |header: &Header| -> Vec<_> {
        let all = header.directives.iter();
        all.map(|one| (one.dialect, one.words.clone())).collect()
    };
    assert_eq!(words(&again), words(&header));
    match options_of(header) {
        Err(notes) => refused(&notes, text),
        Ok((options, notes)) => {
            noted(&notes, text);
            let script = v1::Script { text: text.to_owned(), arguments: Vec::new() };
            if let Ok(spec) = options.into_spec(v1::job_spec::Work::Script(script), "job") {
                assert_eq!(
                    v1::JobSpec::decode(spec.encode_to_vec().as_slice()).as_ref(),
                    Ok(&spec)
                );
            }
        }
    }
}

fn refused(notes: &[Note], text: &str) {
    assert!(!notes.is_empty(), "refused without a reason");
    noted(notes, text);
}

fn noted(notes: &[Note], text: &str) {
    let lines = text.lines().count();
    for note in notes {
        assert!((1..=lines).contains(&note.line) && !note.message.is_empty(), "{note:?}");
    }
}

/// The same directives, every word in quotes.
fn quoted(header: &Header) -> String {
    let word = |word: &String| format!(" '{}'", word.replace('\'', "'\\''"));
    let line = |words: &[String]| words.iter().map(word).collect::<String>();
    let lines = header.directives.iter();
    lines.map(|one| format!("{}{}\n", one.dialect.marker(), line(&one.words))).collect()
}
