//! The quota tree of a torment: three projects with guarantees, one of them with a limit that changes.

/// Projects that jobs are paid by; fewer by the one that may have little.
pub const PROJECTS: [&str; 5] =
    ["centre/alpha", "centre/alpha", "centre/gamma", "centre/gamma", LIMITED];
/// The one with a limit.
pub const LIMITED: &str = "centre/beta";
/// Its limits, in GPUs; none lower than its guarantee.
pub const LIMITS: [u64; 3] = [8, 12, 24];
/// Guarantees, in GPUs.
pub const GUARANTEES: [(&str, u64); 3] = [("centre/alpha", 28), (LIMITED, 6), ("centre/gamma", 4)];
/// Class of all GPUs.
pub const CLASS: &str = "b200";

/// The tree, with this limit.
#[must_use]
pub fn tree(limit_gpus: u64) -> String {
    let all: u64 = GUARANTEES.iter().map(|(_, gpus)| gpus).sum();
    let mut text =
        format!("[node.centre]\ndecision = \"D-1\"\nguarantee = {{ {CLASS} = {all} }}\n");
    for (project, gpus) in GUARANTEES {
        text.push_str(&format!("[node.\"{project}\"]\nguarantee = {{ {CLASS} = {gpus} }}\n"));
        if project == LIMITED {
            text.push_str(&format!("limit = {{ {CLASS} = {limit_gpus} }}\n"));
        }
    }
    text
}
