//! One row a job: what other programs make plots and tables of.

use super::report::Replayed;

/// CSV with the columns `id`, `submit_s`, `start_s`, `end_s`, `gpus` and `tenant`, in the order of the trace; of a job
/// that never started, start and end are empty.
#[must_use]
pub fn text(replayed: Replayed<'_>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _ = writer.write_record(["id", "submit_s", "start_s", "end_s", "gpus", "tenant"]);
    for (job, ran) in replayed.trace.jobs.iter().zip(&replayed.played.jobs) {
        let second = |at: gotgan_core::amount::UnixMicros| at.whole_seconds().to_string();
        let tenant = replayed.trace.tenants.get(job.tenant.0).cloned().unwrap_or_default();
        let _ = writer.write_record([
            job.id.to_string(),
            second(job.submit),
            ran.map_or_else(String::new, |ran| second(ran.start)),
            ran.map_or_else(String::new, |ran| second(ran.end)),
            job.gpus.to_string(),
            tenant,
        ]);
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}
