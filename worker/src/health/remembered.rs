//! What the journal remembers of findings.

use std::collections::{BTreeMap, VecDeque};

use gotgan_proto::v1::Finding;

use crate::held::Entry;

/// The numbers of findings begin, or go on: written when the journal gets its name, and by compaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindingsBegun {
    /// Name of the journal.
    #[prost(string, tag = "1")]
    pub journal_id: String,
    /// Number of the last finding that was made.
    #[prost(uint64, tag = "2")]
    pub last_seq: u64,
}

/// Uncorrectable errors that a GPU counted in this boot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Uncorrected {
    /// The GPU.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// Since the driver was loaded.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// Name of the journal; empty before it has one.
    pub journal_id: String,
    /// Number of the last finding that was made.
    pub last_seq: u64,
    /// Findings not acknowledged, oldest first.
    pub open: VecDeque<Finding>,
    /// Uncorrectable errors counted last, by the GPU's UUID.
    pub uncorrected: BTreeMap<String, u64>,
    /// Number of the last record of the kernel's log that was read in this boot.
    pub log_read: Option<u64>,
}

impl Remembered {
    /// Folds one record in. Records of attempts change nothing.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::FindingsBegun(begun) => {
                self.journal_id.clone_from(&begun.journal_id);
                self.last_seq = self.last_seq.max(begun.last_seq);
            }
            Entry::Found(finding) => {
                self.last_seq = self.last_seq.max(finding.seq);
                self.open.push_back(finding.clone());
            }
            Entry::FindingsAcked(seq) => {
                while self.open.front().is_some_and(|finding| finding.seq <= *seq) {
                    self.open.pop_front();
                }
            }
            Entry::Uncorrected(Uncorrected { uuid, count }) => {
                self.uncorrected.insert(uuid.clone(), *count);
            }
            Entry::LogRead(number) => self.log_read = self.log_read.max(Some(*number)),
            Entry::Snapshot(_)
            | Entry::Ordered(_)
            | Entry::StartOrdered(_)
            | Entry::StopOrdered(_)
            | Entry::TasksOrdered(_)
            | Entry::Reported(_)
            | Entry::Acked(_)
            | Entry::Forgotten(_)
            | Entry::Epoch(_)
            | Entry::Boot(_)
            | Entry::Measured(_) => {}
        }
    }

    /// The machine was booted anew: counts begin again, and so does the kernel's log.
    pub fn rebooted(&mut self) {
        self.uncorrected.clear();
        self.log_read = None;
    }

    /// Records that rebuild this.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let Self { journal_id, last_seq, open, uncorrected, log_read } = self;
        let begun = FindingsBegun { journal_id: journal_id.clone(), last_seq: *last_seq };
        // Numbers go on also where a journal lost its name.
        let has_begun = !journal_id.is_empty() || *last_seq > 0;
        let named = has_begun.then_some(Entry::FindingsBegun(begun));
        let count =
            |(uuid, count): (&String, &u64)| Uncorrected { uuid: uuid.clone(), count: *count };
        let counts = uncorrected.iter().map(count).map(Entry::Uncorrected);
        let read = log_read.map(Entry::LogRead);
        named.into_iter().chain(read).chain(counts).chain(open.iter().cloned().map(Entry::Found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_outlives_compaction_also_without_a_name_and_without_open_findings() {
        let mut before = Remembered::default();
        before.apply(&Entry::Found(Finding { seq: 32, ..Finding::default() }));
        before.apply(&Entry::FindingsAcked(32));
        let mut after = Remembered::default();
        before.entries().for_each(|entry| after.apply(&entry));
        assert_eq!(after, before);
    }
}
