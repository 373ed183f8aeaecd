//! Traces that are replayed: tables, the Standard Workload Format, our own history.

use std::path::Path;

use gotgan_sim::replay::trace::{self, Format};
use gotgan_sim::table::unpacked;

/// The first byte says what the rest is. A trace is refused, or has jobs in order, each of a tenant, with numbers of which no
/// sum overflows.
pub(crate) fn take(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let format = match kind % 3 {
        0 => Format::Csv,
        1 => Format::Swf,
        _ => Format::Jobs,
    };
    let Ok(text) = unpacked(rest) else { return };
    let read = trace::read_text(Path::new("trace"), text, format);
    let trace = match read {
        Ok(trace) => trace,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(!trace.jobs.is_empty());
    let key = |job: &trace::TraceJob| (job.submit, job.id);
    assert!(trace.jobs.is_sorted_by_key(key));
    let mut gpu_seconds: i128 = 0;
    for job in &trace.jobs {
        assert!(job.tenant.0 < trace.tenants.len());
        assert!(job.duration_s > 0 && job.gpus > 0 && job.submit.0 >= 0, "{job:?}");
        assert!(job.asked_s.is_none_or(|asked| asked > 0), "{job:?}");
        let ends = job.submit.plus_seconds(job.duration_s.max(job.asked_s.unwrap_or(0)));
        assert!(ends > job.submit, "{job:?}");
        gpu_seconds += i128::from(job.duration_s) * i128::from(job.gpus);
    }
    assert!(gpu_seconds > 0);
}
