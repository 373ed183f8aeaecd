//! docs/states.md: diagrams that are drawn from the state machines themselves, so they cannot lie.

#![expect(
    clippy::disallowed_methods,
    reason = "a page is read and written, which no decision does"
)]

use std::fmt::Write;
use std::path::Path;

use gotgan_core::diagram;

const AGAIN: &str = "GOTGAN_WRITE_DOCS=1 cargo test --workspace --test core states";

fn page() -> String {
    let mut page = format!(
        "# States\n\nDrawn from the `transition` functions of `scheduler/core` by a test of theirs, `{AGAIN}`; not edited by \
         hand.\nAn arrow carries the event that causes the move. Any other move is a typed error; a node ignores it.\n"
    );
    let parts = [
        (
            "Job",
            "What a person sees. A terminal state is never left. An array does not move by these arrows: its state \
             follows from its tasks (arrays.md).",
            diagram::job(),
        ),
        (
            "Attempt",
            "What a machine sees: one try of a job, from the lease of its resources to its end.",
            diagram::attempt(),
        ),
        (
            "Node",
            "What the scheduler hears of a node. Whether people let it work is told apart from this.",
            diagram::node(),
        ),
    ];
    for (title, text, diagram) in parts {
        let _ = write!(page, "\n## {title}\n\n{text}\n\n```mermaid\n{}\n```\n", diagram.trim_end());
    }
    page
}

#[test]
fn the_page_of_states_shows_every_move_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    if std::env::var_os("GOTGAN_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "run: {AGAIN}");
}
