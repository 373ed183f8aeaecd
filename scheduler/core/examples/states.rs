//! Prints docs/states.md. `cargo xtask states` writes the page, `cargo xtask tidy` compares it.

#![expect(
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "an example is no decision: it prints"
)]

use gotgan_core::diagram;

fn main() {
    println!("# States\n");
    println!(
        "Drawn by `cargo xtask states` from the `transition` functions of `scheduler/core`; not edited by hand."
    );
    println!(
        "An arrow carries the event that causes the move. Any other move is a typed error; a node ignores it."
    );
    let pages = [
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
    for (title, text, diagram) in pages {
        println!("\n## {title}\n\n{text}\n\n```mermaid\n{}\n```", diagram.trim_end());
    }
}
