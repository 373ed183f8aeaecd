//! Quota files, as `gotgan quota apply` sends them.

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::quota::audit::edits;
use gotgan_core::quota::entitle::Arena;
use gotgan_core::quota::{self, QuotaBook, diff};

/// Between two files of one input.
const BETWEEN: &str = "\n#---\n";
/// Moments of a book that are looked at.
const MOMENTS: usize = 8;

/// Files are refused with faults that say where and what, or make a book: the same in whatever order they come, and the same
/// again after it was stored.
pub(crate) fn take(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let texts = text.split(BETWEEN).take(4);
    let mut files: Vec<(String, String)> = (1..)
        .zip(texts)
        .map(|(number, text): (u32, _)| (format!("{number}.toml"), text.to_owned()))
        .collect();
    let read = quota::parse(&files);
    files.reverse();
    assert_eq!(quota::parse(&files), read);
    match read {
        Ok(book) => whole(&book),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
                assert!(fault.line <= text.lines().count() + 1, "{fault:?}");
            }
        }
    }
}

fn whole(book: &QuotaBook) {
    let stored = serde_json::to_string(book).expect("a book is JSON");
    let again: QuotaBook = serde_json::from_str(&stored).expect("a stored book is a book");
    assert_eq!(again, *book);
    assert_eq!(again.digest(), book.digest());
    assert!(diff(book, book).is_empty());
    let nothing = QuotaBook::default();
    assert_eq!(edits(&nothing, book).is_empty(), *book == nothing);
    let breaks = book.breakpoints();
    for at in breaks.iter().copied().chain([UnixMicros(0)]).take(MOMENTS) {
        let tree = book.at(at);
        let arena = Arena::of(&tree);
        assert_eq!(arena.len(), tree.nodes.len());
        let sums = book.sums(at);
        let _ = (sums, book.capacity(at), book.next_change(at));
        for (path, node) in &tree.nodes {
            assert!(path.parent().is_none_or(|parent| tree.nodes.contains_key(parent)), "{path}");
            assert!(node.guarantees.values().all(|guarantee| *guarantee >= GpuMilli::ZERO));
        }
    }
}
