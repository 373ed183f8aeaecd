//! What is taken over from Slurm: its tree of accounts, and what they have used.

use gotgan_core::ids::ProjectPath;
use gotgan_core::quota::import;

/// A dump is refused by its line, or becomes a tree below one node; a report of use is refused, or adds up.
pub(crate) fn take(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let lines = text.lines().count();
    match import::read_dump(&text) {
        Err(fault) => assert!(fault.line <= lines + 1 && !fault.what.is_empty(), "{fault:?}"),
        Ok((cluster, associations)) => {
            assert!(!cluster.is_empty());
            let root = ProjectPath::new("moved").expect("a path");
            let _ = import::import(&root, &associations);
        }
    }
    if let Ok(totals) = import::read_usage(&text) {
        let _ = totals.total();
    }
}
