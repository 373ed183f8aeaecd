//! JSON for programs: one document a command, or one a line for streams, each with its schema's name and version.
//!
//! `docs/json.md` describes the fields. Within a version fields are only added.

use serde::Serialize;

use crate::error::Error;

#[derive(Serialize)]
struct Document<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

/// The document on several lines, with a newline at its end.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn document<T: Serialize>(schema: &'static str, body: &T) -> Result<String, Error> {
    finish(serde_json::to_string_pretty(&Document { schema, body }))
}

/// The document on one line, with a newline at its end.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn line<T: Serialize>(schema: &'static str, body: &T) -> Result<String, Error> {
    finish(serde_json::to_string(&Document { schema, body }))
}

fn finish(text: Result<String, serde_json::Error>) -> Result<String, Error> {
    let mut text = text.map_err(|problem| Error::Unexpected(problem.to_string()))?;
    text.push('\n');
    Ok(text)
}
