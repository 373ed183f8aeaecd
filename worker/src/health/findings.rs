//! The findings of a node: numbered, kept until they are acknowledged, and folded where there are far too many. Pure.
//!
//! As with attempts, whatever changes is a record for the journal, and is folded in by the same function that replays it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{CounterRose, Finding, FindingAck, HeldAttempt, Xid, finding::What};

use super::remembered::{FindingsBegun, Remembered, Uncorrected};
use crate::held::Entry;

/// From so many findings on that nobody has acknowledged, identical ones within a second count once.
pub const FOLD_FROM: usize = 10_000;

/// How far apart identical findings may be to count once. The longer nobody acknowledges, the further, so that a storm of
/// days fits into the journal.
fn fold_within(open: usize) -> Option<Duration> {
    match open / FOLD_FROM {
        0 => None,
        1 => Some(Duration::from_secs(1)),
        2 => Some(Duration::from_secs(60)),
        3.. => Some(Duration::from_secs(3600)),
    }
}

/// Something that was found, before it has a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The GPU; empty if it is not known.
    pub gpu_uuid: String,
    /// By the node's clock, Unix microseconds.
    pub at_us: i64,
    /// An error of the driver.
    pub xid: Xid,
    /// In words; may be empty.
    pub detail: String,
    /// Number of the record of the kernel's log that tells of it.
    pub record: Option<u64>,
}

/// All findings of this node.
#[derive(Debug)]
pub struct Findings {
    held: Remembered,
    boot_id: String,
    folds: BTreeMap<(String, u32), Fold>,
}

/// Identical ones that are going to count once.
#[derive(Debug)]
struct Fold {
    until: Instant,
    within: Duration,
    first: Observed,
    attempts: Vec<HeldAttempt>,
    count: u64,
}

impl Findings {
    /// Goes on with what the journal remembers.
    pub fn new(held: Remembered, boot_id: &str) -> Self {
        Self { held, boot_id: boot_id.to_owned(), folds: BTreeMap::new() }
    }

    /// Gives the journal a name, unless it has one.
    pub fn begin(&mut self, name: impl FnOnce() -> String) -> Option<Entry> {
        if !self.held.journal_id.is_empty() {
            return None;
        }
        let begun = FindingsBegun { journal_id: name(), last_seq: self.held.last_seq };
        Some(self.record(Entry::FindingsBegun(begun)))
    }

    /// Name of the journal; empty before it has one.
    pub fn journal_id(&self) -> &str {
        &self.held.journal_id
    }

    /// Findings not acknowledged, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.held.open.iter()
    }

    /// Number of the last one.
    pub fn last_seq(&self) -> u64 {
        self.held.last_seq
    }

    /// Something was found while these attempts had the GPU.
    pub fn found(
        &mut self,
        observed: Observed,
        attempts: Vec<HeldAttempt>,
        now: Instant,
    ) -> Vec<Entry> {
        let key = (observed.gpu_uuid.clone(), observed.xid.number);
        if let Some(fold) = self.folds.get_mut(&key) {
            fold.count += 1;
            fold.first.record = fold.first.record.max(observed.record);
            attempts.into_iter().for_each(|attempt| add(&mut fold.attempts, attempt));
            return Vec::new();
        }
        match fold_within(self.held.open.len()) {
            None => self.number(observed, attempts),
            Some(within) => {
                let until = now + within;
                self.folds.insert(key, Fold { until, within, first: observed, attempts, count: 1 });
                Vec::new()
            }
        }
    }

    /// A GPU counts so many uncorrectable errors. More than before is a finding; fewer are so after a reset.
    pub fn counted(
        &mut self,
        uuid: &str,
        count: u64,
        at_us: i64,
        attempts: Vec<HeldAttempt>,
    ) -> Vec<Entry> {
        let before = self.held.uncorrected.get(uuid).copied();
        if before == Some(count) {
            return Vec::new();
        }
        let rose = before.filter(|before| *before < count).map(|before| {
            let what = What::UncorrectedErrors(CounterRose { before, after: count });
            self.finding(uuid.to_owned(), at_us, what, attempts, String::new())
        });
        let counted = Uncorrected { uuid: uuid.to_owned(), count };
        rose.into_iter().chain([self.record(Entry::Uncorrected(counted))]).collect()
    }

    /// The kernel's log was read up to a record; `None` if that is known.
    pub fn log_read(&mut self, number: u64) -> Option<Entry> {
        (self.held.log_read < Some(number)).then(|| self.record(Entry::LogRead(number)))
    }

    /// When a fold is over next.
    pub fn next_due(&self) -> Option<Instant> {
        self.folds.values().map(|fold| fold.until).min()
    }

    /// Numbers what has been folded for long enough.
    pub fn due(&mut self, now: Instant) -> Vec<Entry> {
        let over = self.folds.extract_if(.., |_, fold| fold.until <= now).map(|(_, fold)| fold);
        let over: Vec<Fold> = over.collect();
        over.into_iter().flat_map(|fold| self.unfold(fold)).collect()
    }

    /// Numbers all that is being folded: something is about to be written that must come after it.
    pub fn flush(&mut self) -> Vec<Entry> {
        let folds = std::mem::take(&mut self.folds);
        folds.into_values().flat_map(|fold| self.unfold(fold)).collect()
    }

    /// The scheduler has some of them; `None` if it says nothing new.
    pub fn acked(&mut self, ack: &FindingAck) -> Option<Entry> {
        let first = self.held.open.front()?.seq;
        let ours = ack.journal_id == self.held.journal_id;
        let known = (first..=self.held.last_seq).contains(&ack.seq);
        (ours && known).then(|| self.record(Entry::FindingsAcked(ack.seq)))
    }

    fn unfold(&mut self, fold: Fold) -> Vec<Entry> {
        let Fold { within, mut first, attempts, count, .. } = fold;
        if count > 1 {
            let times = format!("{count} times within {} s", within.as_secs());
            let parts = [first.detail, times];
            first.detail =
                parts.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join("; ");
        }
        self.number(first, attempts)
    }

    /// With the record that it was read in: what is durable of one is of the other.
    fn number(&mut self, observed: Observed, attempts: Vec<HeldAttempt>) -> Vec<Entry> {
        let Observed { gpu_uuid, at_us, xid, detail, record } = observed;
        let found = self.finding(gpu_uuid, at_us, What::Xid(xid), attempts, detail);
        let read = record.and_then(|number| self.log_read(number));
        [found].into_iter().chain(read).collect()
    }

    fn finding(
        &mut self,
        gpu_uuid: String,
        at_us: i64,
        what: What,
        attempts: Vec<HeldAttempt>,
        detail: String,
    ) -> Entry {
        self.record(Entry::Found(Finding {
            journal_id: self.held.journal_id.clone(),
            seq: self.held.last_seq + 1,
            at_us,
            boot_id: self.boot_id.clone(),
            gpu_uuid,
            attempts,
            what: Some(what),
            detail,
        }))
    }

    fn record(&mut self, entry: Entry) -> Entry {
        self.held.apply(&entry);
        entry
    }
}

fn add(attempts: &mut Vec<HeldAttempt>, attempt: HeldAttempt) {
    if !attempts.contains(&attempt) {
        attempts.push(attempt);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::held::Image;

    fn begun() -> (Findings, Image) {
        let mut findings = Findings::new(Remembered::default(), "boot-1");
        let mut image = Image::default();
        image.apply(&Entry::Boot("boot-1".into()));
        image.apply(&findings.begin(|| "journal".into()).unwrap());
        (findings, image)
    }

    fn xid(number: u32, detail: &str) -> Observed {
        let xid = Xid { number, pid: 0 };
        Observed { gpu_uuid: "GPU-1".into(), at_us: 1, xid, detail: detail.into(), record: None }
    }

    fn apply(image: &mut Image, entries: &[Entry]) {
        entries.iter().for_each(|entry| image.apply(entry));
    }

    fn seqs(image: &Image) -> Vec<u64> {
        image.findings.open.iter().map(|finding| finding.seq).collect()
    }

    fn rebuilt(image: &Image) -> Image {
        let mut again = Image::default();
        image.entries().iter().for_each(|entry| again.apply(entry));
        again
    }

    #[test]
    fn findings_are_numbered_without_gaps_over_acknowledgements_restarts_and_compaction() {
        let (mut findings, mut image) = begun();
        let now = Instant::now();
        apply(&mut image, &findings.found(xid(79, "off the bus"), Vec::new(), now));
        apply(&mut image, &findings.found(xid(79, ""), Vec::new(), now));
        assert_eq!(seqs(&image), [1, 2]);
        let ack = |journal_id: &str, seq| FindingAck { journal_id: journal_id.into(), seq };
        assert_eq!(findings.acked(&ack("another", 2)), None);
        assert_eq!(findings.acked(&ack("journal", 3)), None, "there is no such finding");
        apply(&mut image, &[findings.acked(&ack("journal", 2)).unwrap()]);
        assert_eq!(findings.acked(&ack("journal", 2)), None);
        assert!(seqs(&image).is_empty());
        let image = rebuilt(&image);
        let mut again = Findings::new(image.findings.clone(), "boot-1");
        assert!(again.begin(|| "renamed".into()).is_none());
        let third = match &again.found(xid(48, ""), Vec::new(), now)[..] {
            [Entry::Found(third)] => third.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (third.journal_id.as_str(), third.seq, third.boot_id.as_str()),
            ("journal", 3, "boot-1")
        );
    }

    #[test]
    fn a_count_that_rises_within_a_boot_is_a_finding_and_one_that_falls_is_not() {
        let (mut findings, mut image) = begun();
        let counts = [(5, None), (5, None), (7, Some((5, 7))), (0, None), (1, Some((0, 1)))];
        for (count, wanted) in counts {
            let entries = findings.counted("GPU-1", count, 9, Vec::new());
            apply(&mut image, &entries);
            let rose = entries.iter().find_map(|entry| match entry {
                Entry::Found(Finding { what: Some(What::UncorrectedErrors(rose)), .. }) => {
                    Some((rose.before, rose.after))
                }
                _ => None,
            });
            assert_eq!(rose, wanted, "at {count}");
        }
        // What rose while the daemon was away is found by the next one, in the same boot alone.
        let mut image = rebuilt(&image);
        let mut again = Findings::new(image.findings.clone(), "boot-1");
        assert_eq!(again.counted("GPU-1", 3, 9, Vec::new()).len(), 2);
        image.apply(&Entry::Boot("boot-2".into()));
        let mut rebooted = Findings::new(image.findings, "boot-2");
        assert_eq!(rebooted.counted("GPU-1", 3, 9, Vec::new()).len(), 1);
    }

    #[test]
    fn past_ten_thousand_a_storm_is_folded_by_the_second_and_nothing_is_uncounted() {
        let (mut findings, mut image) = begun();
        let now = Instant::now();
        for _ in 0..FOLD_FROM {
            apply(&mut image, &findings.found(xid(31, "fault"), Vec::new(), now));
        }
        let attempt = |job_id| HeldAttempt { job_id, attempt: 1, ended: false };
        for job_id in [7, 7, 8] {
            assert!(findings.found(xid(31, "fault"), vec![attempt(job_id)], now).is_empty());
        }
        assert!(findings.found(xid(79, ""), Vec::new(), now).is_empty());
        assert!(findings.due(now).is_empty());
        let due = findings.next_due().unwrap();
        assert_eq!(due, now + Duration::from_secs(1));
        let entries = findings.due(due);
        apply(&mut image, &entries);
        let found: Vec<(&str, usize)> = image
            .findings
            .open
            .iter()
            .skip(FOLD_FROM)
            .map(|finding| (finding.detail.as_str(), finding.attempts.len()))
            .collect();
        assert_eq!(found, [("fault; 3 times within 1 s", 2), ("", 0)]);
        assert_eq!(findings.last_seq(), FOLD_FROM as u64 + 2);
        assert!(findings.found(xid(31, ""), Vec::new(), due).is_empty());
        assert_eq!(findings.flush().len(), 1);
        assert_eq!(findings.next_due(), None);
    }

    #[test]
    fn the_longer_nobody_acknowledges_the_more_is_folded() {
        let seconds = [0, 9_999, 10_000, 20_000, 30_000, 900_000]
            .map(|open| fold_within(open).map_or(0, |within| within.as_secs()));
        assert_eq!(seconds, [0, 0, 1, 60, 3600, 3600]);
    }
}
