//! The books, checked from outside: what the ledger says against what the attempts held, and what virtual workers
//! saw against what may be.
//!
//! It shares no code with the scheduler: costs are computed anew from the times and the GPUs of the attempts.

use std::collections::BTreeMap;

use gotgan_proto::v1::{self, Cause, LedgerKind};

use crate::Api;
use crate::api::{is_terminal, told};
use crate::virtual_worker::Run;

/// Microseconds in a second.
const SECOND_US: i64 = 1_000_000;
/// Thousandths of a GPU that there are to hold.
const WHOLE_GPU_MILLI: u64 = 1000;

/// Sums over some attempts, in thousandths of a GPU-second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Charged.
    pub charged: i64,
    /// Given back.
    pub refunded: i64,
}

/// Checks the whole ledger of a cluster in which no job is on its way, and returns its sums.
///
/// # Panics
/// With the first thing that is wrong.
pub async fn ledger(api: &Api) -> Sums {
    let classes = classes(api).await;
    let mut expected: BTreeMap<(String, String), Sums> = BTreeMap::new();
    for job in api.all_jobs().await {
        let job = api.job(job.job_id).await;
        assert!(is_terminal(job.state()), "job {} is {:?}", job.job_id, job.state());
        check_job(&job);
        let project = job.spec.clone().unwrap_or_default().project;
        for attempt in &job.attempts {
            let class = gpus_of(attempt).next().map(|gpu| class_of(&classes, &gpu.uuid));
            let sums = expected.entry((project.clone(), class.unwrap_or_default())).or_default();
            sums.charged += attempt.charged_gpu_milli_seconds;
            sums.refunded += attempt.refunded_gpu_milli_seconds;
        }
    }
    expected.retain(|_, sums| *sums != Sums::default());
    check_balance(api, &expected).await;
    check_entries(api, &expected).await;
    expected.values().fold(Sums::default(), |all, one| Sums {
        charged: all.charged + one.charged,
        refunded: all.refunded + one.refunded,
    })
}

/// What each attempt paid is what it held, and what the job paid is their sum.
fn check_job(job: &v1::Job) {
    for attempt in &job.attempts {
        let id = format!("attempt {}.{}", job.job_id, attempt.number);
        assert_eq!(attempt.state(), v1::AttemptState::Ended, "{id} of a job that has ended");
        assert_ne!(attempt.cause(), Cause::Unspecified, "{id} ended without a cause");
        let seconds =
            attempt.ended_us.div_euclid(SECOND_US) - attempt.leased_us.div_euclid(SECOND_US);
        let gpus: i64 = gpus_of(attempt).map(|gpu| i64::from(gpu.milli)).sum();
        let held = gpus * seconds.max(0);
        let (charged, refunded) =
            (attempt.charged_gpu_milli_seconds, attempt.refunded_gpu_milli_seconds);
        // One whose end was told late may have been charged a slice beyond it; that is given back.
        assert!(charged >= held, "charge of {id}: {charged}, and it held {held}");
        let owed = match attempt.cause() {
            Cause::Hardware | Cause::Node | Cause::Network | Cause::Site => 0,
            Cause::Unspecified
            | Cause::User
            | Cause::Preempted
            | Cause::Limit
            | Cause::OutOfMemory => held,
        };
        assert_eq!(charged - refunded, owed, "what {id} paid: {charged} less {refunded}");
    }
    let paid: i64 = job
        .attempts
        .iter()
        .map(|attempt| attempt.charged_gpu_milli_seconds - attempt.refunded_gpu_milli_seconds)
        .sum();
    assert_eq!(job.paid_gpu_milli_seconds, paid, "what job {} paid", job.job_id);
}

async fn check_balance(api: &Api, expected: &BTreeMap<(String, String), Sums>) {
    let answer = api.quota().balance(v1::BalanceRequest::default()).await;
    let answer = answer.unwrap_or_else(|s| panic!("balance: {}", told(&s))).into_inner();
    assert!(answer.balanced, "the ledger is not balanced: {:#?}", answer.differences);
    assert!(answer.differences.is_empty());
    let mut found = BTreeMap::new();
    for line in answer.projects {
        assert_eq!(line.held_gpu_milli_seconds, 0, "{} holds though nothing runs", line.project);
        let sums = Sums {
            charged: line.charged_gpu_milli_seconds,
            refunded: line.refunded_gpu_milli_seconds,
        };
        if sums != Sums::default() {
            found.insert((line.project, line.gpu_class), sums);
        }
    }
    assert_eq!(&found, expected, "balance by project and class against the attempts");
}

async fn check_entries(api: &Api, expected: &BTreeMap<(String, String), Sums>) {
    let mut found: BTreeMap<(String, String), Sums> = BTreeMap::new();
    let mut held = 0;
    for entry in entries(api).await {
        let sums = found.entry((entry.project.clone(), entry.gpu_class.clone())).or_default();
        let amount = entry.gpu_milli_seconds;
        assert!(amount > 0, "an entry of nothing: {entry:?}");
        match entry.kind() {
            LedgerKind::Hold => held += amount,
            LedgerKind::Release => held -= amount,
            LedgerKind::Charge | LedgerKind::Overuse => sums.charged += amount,
            LedgerKind::Refund => sums.refunded += amount,
            LedgerKind::Unspecified => panic!("an entry without a kind: {entry:?}"),
        }
    }
    found.retain(|_, sums| *sums != Sums::default());
    assert_eq!(held, 0, "holds that were not released");
    assert_eq!(&found, expected, "entries of the ledger against the attempts");
}

async fn entries(api: &Api) -> Vec<v1::LedgerEntry> {
    let (mut entries, mut token) = (Vec::<v1::LedgerEntry>::new(), String::new());
    loop {
        let page = Some(v1::PageRequest { size: 1000, token });
        let answer = api.quota().ledger(v1::LedgerRequest { page, ..Default::default() }).await;
        let answer = answer.unwrap_or_else(|s| panic!("ledger: {}", told(&s))).into_inner();
        entries.extend(answer.entries);
        token = answer.next_token;
        if token.is_empty() {
            let numbers: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "oldest first, none twice");
            return entries;
        }
    }
}

fn gpus_of(attempt: &v1::Attempt) -> impl Iterator<Item = &v1::GpuAllocation> {
    attempt.allocation.iter().flat_map(|node| &node.gpus)
}

/// Instances of a GPU that was cut anew are not there any more: they were of the only class that there is.
fn class_of(classes: &BTreeMap<String, String>, uuid: &str) -> String {
    classes.get(uuid).cloned().unwrap_or_else(|| {
        let all: std::collections::BTreeSet<&String> = classes.values().collect();
        assert_eq!(all.len(), 1, "{uuid} is of no class, or of any of {all:?}");
        all.into_iter().next().cloned().unwrap_or_default()
    })
}

/// Class of every GPU and every instance there is, by UUID.
async fn classes(api: &Api) -> BTreeMap<String, String> {
    let (mut classes, mut token) = (BTreeMap::new(), String::new());
    loop {
        let page = Some(v1::PageRequest { size: 1000, token });
        let answer = api.nodes().list(v1::ListNodesRequest { page, ..Default::default() }).await;
        let answer = answer.unwrap_or_else(|s| panic!("nodes: {}", told(&s))).into_inner();
        let devices =
            answer.nodes.into_iter().flat_map(|node| node.inventory.unwrap_or_default().gpus);
        for device in devices {
            let instances = device.mig.into_iter().flat_map(|cut| cut.instances);
            classes.extend(instances.map(|one| (one.uuid, device.gpu_class.clone())));
            classes.insert(device.uuid, device.gpu_class);
        }
        token = answer.next_token;
        if token.is_empty() {
            return classes;
        }
    }
}

/// Checks what virtual workers saw: nothing ran twice, and no GPU had more than there is of it at any moment.
///
/// # Panics
/// With the first thing that is wrong.
pub fn runs(runs: &[Run]) {
    let mut changes: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for run in runs {
        let id = (run.node.as_str(), run.job_id, run.attempt);
        assert!(run.starts <= 1, "{id:?} was started {} times", run.starts);
        assert!(seen.insert(id, ()).is_none(), "{id:?} came twice");
        for (uuid, milli) in &run.gpus {
            let milli = i64::from(*milli);
            let list = changes.entry(uuid.as_str()).or_default();
            list.push((run.from_us, milli));
            list.push((run.until_us.unwrap_or(i64::MAX), -milli));
        }
    }
    for (uuid, mut list) in changes {
        // What ends at a moment makes room for what begins at it.
        list.sort_unstable();
        let mut in_use = 0;
        for (at_us, change) in list {
            in_use += change;
            let whole = i64::try_from(WHOLE_GPU_MILLI).unwrap_or(i64::MAX);
            assert!(in_use <= whole, "{uuid} is used {in_use} thousandths at {at_us}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job_id: u64, from_us: i64, until_us: i64, milli: u32) -> Run {
        Run {
            node: "n".into(),
            job_id,
            attempt: 1,
            gpus: vec![("GPU-0".into(), milli)],
            imex_channel: 0,
            from_us,
            until_us: Some(until_us),
            starts: 1,
        }
    }

    #[test]
    fn one_after_the_other_and_two_halves_are_allowed() {
        runs(&[run(1, 0, 10, 1000), run(2, 10, 20, 500), run(3, 12, 20, 500)]);
    }

    #[test]
    #[should_panic(expected = "GPU-0 is used 1500 thousandths")]
    fn a_gpu_given_twice_is_found() {
        runs(&[run(1, 0, 10, 1000), run(2, 9, 20, 500)]);
    }
}
