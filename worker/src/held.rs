//! What the worker remembers of an attempt, and the records that change it.
//!
//! The journal, its compaction and the state machine all fold records through [`Image::apply`], so that what is
//! rebuilt after a restart is what was there before it. Nothing here reads or writes anything.

use std::collections::BTreeMap;

use gotgan_proto::v1::{self, report};

use crate::health::remembered::{FindingsBegun, Remembered, Uncorrected};
use crate::measure::Measuring;

/// Names an attempt of a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct AttemptKey {
    /// Number of the job.
    #[prost(uint64, tag = "1")]
    pub job_id: u64,
    /// Number of the attempt, from 1.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

impl AttemptKey {
    /// The attempt `attempt` of job `job_id`.
    pub fn new(job_id: u64, attempt: u32) -> Self {
        Self { job_id, attempt }
    }

    /// Name of its directory, `JOB.ATTEMPT`.
    pub fn directory_name(self) -> String {
        format!("{}.{}", self.job_id, self.attempt)
    }

    /// The inverse of [`Self::directory_name`].
    pub fn from_directory_name(name: &str) -> Option<Self> {
        let (job, attempt) = name.split_once('.')?;
        Some(Self::new(job.parse().ok()?, attempt.parse().ok()?))
    }
}

/// The durable part of an attempt on this node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Held {
    /// Which attempt.
    #[prost(message, required, tag = "1")]
    pub key: AttemptKey,
    /// The order that brought it; absent if it was stopped before it was ever heard of.
    #[prost(message, optional, boxed, tag = "2")]
    pub order: Option<Box<v1::RunAttempt>>,
    /// It was told to start.
    #[prost(bool, tag = "3")]
    pub start_ordered: bool,
    /// The first order to stop it.
    #[prost(message, optional, tag = "4")]
    pub stop: Option<v1::StopAttempt>,
    /// Further steps it was told to start, each with the tasks that the shim is not known to have. Once it has all,
    /// the number is left.
    #[prost(message, repeated, tag = "5")]
    pub steps: Vec<v1::StartTasks>,
    /// Reports not acknowledged yet, oldest first.
    #[prost(message, repeated, tag = "6")]
    pub reports: Vec<v1::Report>,
    /// Number of the last report made.
    #[prost(uint64, tag = "7")]
    pub last_seq: u64,
    /// Number of the last event of the shim that was turned into a report.
    #[prost(uint64, tag = "8")]
    pub shim_seen: u64,
    /// `accepted` was reported.
    #[prost(bool, tag = "9")]
    pub accepted: bool,
    /// `refused` or `ended` was reported.
    #[prost(bool, tag = "10")]
    pub ended: bool,
    /// What its GPUs did so far; absent before they are its own, and once that was reported.
    #[prost(message, optional, boxed, tag = "11")]
    pub measuring: Option<Box<Measuring>>,
}

/// What the GPUs of an attempt did so far, as it is remembered from time to time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Measured {
    /// Which attempt.
    #[prost(message, required, tag = "1")]
    pub key: AttemptKey,
    /// All of it.
    #[prost(message, required, tag = "2")]
    pub measuring: Measuring,
}

/// A report together with how far into the shim's events it reaches.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reported {
    /// The report.
    #[prost(message, required, tag = "1")]
    pub report: v1::Report,
    /// See [`Held::shim_seen`]; 0 if no event of a shim caused it.
    #[prost(uint64, tag = "2")]
    pub shim_seen: u64,
}

/// One change of what is remembered.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Entry {
    /// An attempt, without its steps and reports: written by compaction.
    #[prost(message, tag = "1")]
    Snapshot(Held),
    /// It was ordered.
    #[prost(message, tag = "2")]
    Ordered(Box<v1::RunAttempt>),
    /// It was told to start.
    #[prost(message, tag = "3")]
    StartOrdered(AttemptKey),
    /// It was told to stop.
    #[prost(message, tag = "4")]
    StopOrdered(v1::StopAttempt),
    /// It was told to start tasks of a further step.
    #[prost(message, tag = "5")]
    TasksOrdered(v1::StartTasks),
    /// A report was made.
    #[prost(message, tag = "6")]
    Reported(Reported),
    /// The scheduler has reports up to a number.
    #[prost(message, tag = "7")]
    Acked(v1::ReportAck),
    /// The scheduler needs nothing of it any more.
    #[prost(message, tag = "8")]
    Forgotten(AttemptKey),
    /// A newer leader was seen.
    #[prost(uint64, tag = "9")]
    Epoch(u64),
    /// The boot of the machine that everything after this belongs to.
    #[prost(string, tag = "10")]
    Boot(String),
    /// Findings are numbered in the name of this journal, and go on from here.
    #[prost(message, tag = "11")]
    FindingsBegun(FindingsBegun),
    /// Something was found.
    #[prost(message, tag = "12")]
    Found(v1::Finding),
    /// The scheduler has findings up to a number.
    #[prost(uint64, tag = "13")]
    FindingsAcked(u64),
    /// A GPU counts another number of uncorrectable errors than before.
    #[prost(message, tag = "14")]
    Uncorrected(Uncorrected),
    /// The kernel's log was read up to a record of this boot.
    #[prost(uint64, tag = "15")]
    LogRead(u64),
    /// The GPUs of an attempt did so much.
    #[prost(message, tag = "16")]
    Measured(Measured),
}

impl Held {
    /// An attempt of which nothing is known yet.
    pub fn new(key: AttemptKey) -> Self {
        Self { key, ..Self::default() }
    }

    /// As the scheduler wants it listed.
    pub fn listed(&self) -> v1::HeldAttempt {
        v1::HeldAttempt { job_id: self.key.job_id, attempt: self.key.attempt, ended: self.ended }
    }

    /// What its GPUs did so far; `None` if nothing is known.
    pub fn measured(&self) -> Option<v1::MeasuredUse> {
        self.measuring.as_ref()?.measured()
    }

    /// Folds one record of this attempt in. Records of no attempt change nothing.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Snapshot(held) => self.apply_snapshot(held),
            Entry::Ordered(order) => self.apply_order(order),
            Entry::StartOrdered(_) => self.start_ordered = true,
            Entry::StopOrdered(stop) => self.stop = Some(stop.clone()),
            Entry::TasksOrdered(tasks) => self.steps.push(tasks.clone()),
            Entry::Reported(reported) => self.apply_report(reported),
            Entry::Acked(ack) => self.reports.retain(|report| report.seq > ack.seq),
            Entry::Measured(measured) => {
                self.measuring = Some(Box::new(measured.measuring.clone()));
            }
            Entry::Forgotten(_)
            | Entry::Epoch(_)
            | Entry::Boot(_)
            | Entry::FindingsBegun(_)
            | Entry::Found(_)
            | Entry::FindingsAcked(_)
            | Entry::Uncorrected(_)
            | Entry::LogRead(_) => {}
        }
    }

    /// What a snapshot holds of the attempt, as if its records had come one by one; what is not of the attempt is not taken in.
    fn apply_snapshot(&mut self, held: &Held) {
        let key = held.key;
        *self = Self { steps: Vec::new(), reports: Vec::new(), ..held.clone() };
        for report in &held.reports {
            if AttemptKey::new(report.job_id, report.attempt) == key {
                self.apply_report(&Reported { report: report.clone(), shim_seen: 0 });
            }
        }
        let own = |step: &&v1::StartTasks| AttemptKey::new(step.job_id, step.attempt) == key;
        self.steps.extend(held.steps.iter().filter(own).cloned());
    }

    fn apply_order(&mut self, order: &v1::RunAttempt) {
        self.start_ordered |= order.start_now;
        self.order = Some(Box::new(order.clone()));
    }

    fn apply_report(&mut self, reported: &Reported) {
        let report = &reported.report;
        match &report.event {
            Some(report::Event::Accepted(_)) => self.accepted = true,
            Some(report::Event::Refused(_) | report::Event::Ended(_)) => {
                self.ended = true;
                // It is in the report.
                self.measuring = None;
            }
            Some(report::Event::TaskStarted(task)) => self.shim_has(task.step, task.rank),
            Some(report::Event::TaskEnded(task)) => self.shim_has(task.step, task.rank),
            Some(report::Event::Started(_) | report::Event::Unfit(_)) | None => {}
        }
        self.last_seq = self.last_seq.max(report.seq);
        self.shim_seen = self.shim_seen.max(reported.shim_seen);
        self.reports.push(report.clone());
    }
}

impl Held {
    /// A task was started or refused by the shim: nothing needs to be remembered to start it.
    fn shim_has(&mut self, step: u32, rank: u32) {
        let Some(tasks) = self.steps.iter_mut().find(|known| known.step == step) else {
            return;
        };
        tasks.tasks.retain(|task| task.rank != rank);
        if tasks.tasks.is_empty() {
            let v1::StartTasks { epoch, job_id, attempt, step, .. } = *tasks;
            *tasks = v1::StartTasks { epoch, job_id, attempt, step, ..Default::default() };
        }
    }

    /// Records that rebuild this. Several, because all steps of a long job in one would be larger than a frame.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let steps = self.steps.iter().cloned().map(Entry::TasksOrdered);
        let reported = |report: &v1::Report| Reported { report: report.clone(), shim_seen: 0 };
        let reports = self.reports.iter().map(reported).map(Entry::Reported);
        let head = Self { steps: Vec::new(), reports: Vec::new(), ..self.clone() };
        // Steps after reports: what the reports say of them is in them already.
        std::iter::once(Entry::Snapshot(head)).chain(reports).chain(steps)
    }
}

/// Everything the worker remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Largest epoch of a leader seen.
    pub epoch: u64,
    /// Boot of the machine the attempts were started in; empty before the first.
    pub boot_id: String,
    /// Attempts not forgotten.
    pub attempts: BTreeMap<AttemptKey, Held>,
    /// Findings, and what they are found by.
    pub findings: Remembered,
}

impl Image {
    /// Folds one record in.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Epoch(epoch) => self.epoch = self.epoch.max(*epoch),
            Entry::Boot(boot_id) => {
                if self.boot_id != *boot_id {
                    self.findings.rebooted();
                }
                self.boot_id.clone_from(boot_id);
            }
            Entry::FindingsBegun(_)
            | Entry::Found(_)
            | Entry::FindingsAcked(_)
            | Entry::Uncorrected(_)
            | Entry::LogRead(_) => self.findings.apply(entry),
            Entry::Forgotten(key) => {
                self.attempts.remove(key);
            }
            // An acknowledgement may come after the attempt was forgotten; it must not bring it back.
            Entry::Acked(ack) => self.apply_to_known(key_of_ack(ack), entry),
            Entry::Measured(measured) => self.apply_to_known(measured.key, entry),
            Entry::Snapshot(_)
            | Entry::Ordered(_)
            | Entry::StartOrdered(_)
            | Entry::StopOrdered(_)
            | Entry::TasksOrdered(_)
            | Entry::Reported(_) => self.apply_to_attempt(entry),
        }
    }

    /// Records that rebuild this image, for compaction.
    pub fn entries(&self) -> Vec<Entry> {
        let head = [Entry::Epoch(self.epoch), Entry::Boot(self.boot_id.clone())];
        let attempts = self.attempts.values().flat_map(Held::entries);
        head.into_iter().chain(self.findings.entries()).chain(attempts).collect()
    }

    fn apply_to_known(&mut self, key: AttemptKey, entry: &Entry) {
        if let Some(held) = self.attempts.get_mut(&key) {
            held.apply(entry);
        }
    }

    fn apply_to_attempt(&mut self, entry: &Entry) {
        if let Some(key) = entry.key() {
            self.attempts.entry(key).or_insert_with(|| Held::new(key)).apply(entry);
        }
    }
}

impl Entry {
    /// The attempt it is about, if it is about one.
    pub fn key(&self) -> Option<AttemptKey> {
        Some(match self {
            Self::Snapshot(held) => held.key,
            Self::Ordered(order) => AttemptKey::new(order.job_id, order.attempt),
            Self::StartOrdered(key) | Self::Forgotten(key) => *key,
            Self::StopOrdered(stop) => AttemptKey::new(stop.job_id, stop.attempt),
            Self::TasksOrdered(tasks) => AttemptKey::new(tasks.job_id, tasks.attempt),
            Self::Reported(Reported { report, .. }) => {
                AttemptKey::new(report.job_id, report.attempt)
            }
            Self::Acked(ack) => key_of_ack(ack),
            Self::Measured(measured) => measured.key,
            Self::Epoch(_)
            | Self::Boot(_)
            | Self::FindingsBegun(_)
            | Self::Found(_)
            | Self::FindingsAcked(_)
            | Self::Uncorrected(_)
            | Self::LogRead(_) => return None,
        })
    }
}

fn key_of_ack(ack: &v1::ReportAck) -> AttemptKey {
    AttemptKey::new(ack.job_id, ack.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_of_its_attempt_alone_and_its_reports_say_what_they_say() {
        let key = AttemptKey::new(7, 1);
        let step = |job_id, step| v1::StartTasks { job_id, attempt: 1, step, ..Default::default() };
        let ended = Some(report::Event::Ended(v1::AttemptEnded::default()));
        let report =
            v1::Report { job_id: 7, attempt: 1, seq: 3, event: ended, ..Default::default() };
        let (steps, reports) = (vec![step(7, 1), step(8, 2)], vec![report]);
        let snapshot = Entry::Snapshot(Held { steps, reports, ..Held::new(key) });
        let mut image = Image::default();
        image.apply(&snapshot);
        let held = &image.attempts[&key];
        assert_eq!((held.steps.len(), held.last_seq, held.ended), (1, 3, true));
        let mut again = Image::default();
        image.entries().iter().for_each(|entry| again.apply(entry));
        assert_eq!(again, image, "compaction forgets nothing");
    }
}
