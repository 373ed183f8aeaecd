//! What GPUs of attempts did: how much of what was held was used.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{output::time, view::amount};

/// A pause shorter than this is not worth a word.
const IDLE_MIN_MS: u64 = 60_000;
/// Below this part of the time, in percent, it is said for how much of it there are readings.
const SEEN_ENOUGH: u64 = 90;
const MILLI_JOULES_IN_WATT_HOUR: u64 = 3_600_000;

/// What the GPUs of an attempt did; what could not be read is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeasuredView {
    pub nodes: u32,
    pub observed_gpu_milli_seconds: u64,
    pub busy_gpu_milli_seconds: Option<u64>,
    pub energy_mj: Option<u64>,
    pub peak_memory_mib: Option<u64>,
    pub longest_idle_ms: Option<u64>,
    pub estimated: bool,
}

/// What an attempt held.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// GPU time, in milliseconds of one GPU.
    pub gpu_ms: u64,
    /// Nodes with GPUs.
    pub nodes: usize,
    /// Some of them are invented.
    pub simulated: bool,
    /// It still runs.
    pub so_far: bool,
}

impl MeasuredView {
    /// As the API has it.
    #[must_use]
    pub fn of(measured: &v1::MeasuredUse) -> Self {
        Self {
            nodes: measured.nodes,
            observed_gpu_milli_seconds: measured.observed_gpu_ms,
            busy_gpu_milli_seconds: measured.busy_gpu_ms,
            energy_mj: measured.energy_mj,
            peak_memory_mib: measured.peak_memory_mib,
            longest_idle_ms: measured.longest_idle_ms,
            estimated: measured.estimated,
        }
    }

    /// As in "12.3 GPU-h of 16 GPU-h (77 %), 48.2 kWh, peak 71.2 GiB"; what is not known is left out.
    #[must_use]
    pub fn text(&self, held: &Held) -> String {
        let busy = self.busy_gpu_milli_seconds.map(|busy_ms| {
            let (busy, all) = amount::two_gpu_times(busy_ms, held.gpu_ms);
            format!("{busy} of {all} ({} %)", percent(busy_ms, held.gpu_ms))
        });
        let energy = self.energy_mj.map(energy);
        let memory = self.peak_memory_mib.map(|mib| format!("peak {}", amount::memory(mib)));
        let known: Vec<String> = [busy, energy, memory].into_iter().flatten().collect();
        known.join(", ")
    }

    /// What is to be known of these figures.
    #[must_use]
    pub fn note(&self, held: &Held) -> String {
        let seen = percent(self.observed_gpu_milli_seconds, held.gpu_ms);
        let told = usize::try_from(self.nodes).unwrap_or(usize::MAX);
        let notes = [
            (held.so_far, "so far".to_owned()),
            (held.simulated, "simulated".to_owned()),
            (told < held.nodes, format!("told by {told} of {} nodes", held.nodes)),
            (!held.so_far && seen < SEEN_ENOUGH, format!("readings for {seen} % of the time")),
            (self.estimated, "of a part of a GPU that part of what the whole did".to_owned()),
        ];
        let there: Vec<String> =
            notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect();
        there.join("; ")
    }
}

/// How long GPUs do nothing, or how long one of them did: as in "all GPUs for 1h05m, told 2026-11-27 10:00:00 KST".
#[must_use]
pub fn idle_text(idle_ms: u64, longest_ms: u64, told_us: Option<i64>) -> String {
    let span = |ms: u64| time::span(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000));
    let told = told_us.map(|us| format!("its owner was told {}", time::local(us)));
    let idle = if idle_ms >= IDLE_MIN_MS {
        Some(format!("all GPUs for {}", span(idle_ms)))
    } else {
        (longest_ms >= IDLE_MIN_MS).then(|| format!("a GPU for {} at a time", span(longest_ms)))
    };
    let there: Vec<String> = [idle, told].into_iter().flatten().collect();
    there.join("; ")
}

/// Rounded down, and no more than all.
fn percent(part: u64, whole: u64) -> u64 {
    let hundredfold = u128::from(part) * 100;
    let percent = hundredfold.checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(percent).unwrap_or(100).min(100)
}

/// As in "512 J", "342.7 Wh", "48.2 kWh" or "1.5 MWh".
fn energy(milli_joules: u64) -> String {
    let watt_hours = |unit: u64| amount::tenths(milli_joules, MILLI_JOULES_IN_WATT_HOUR * unit);
    match milli_joules / MILLI_JOULES_IN_WATT_HOUR {
        0 => format!("{} J", milli_joules / 1000),
        1..1000 => format!("{} Wh", watt_hours(1)),
        1000..1_000_000 => format!("{} kWh", watt_hours(1000)),
        _ => format!("{} MWh", watt_hours(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Held = Held { gpu_ms: 57_600_000, nodes: 2, simulated: false, so_far: false };

    fn measured() -> MeasuredView {
        MeasuredView {
            nodes: 2,
            observed_gpu_milli_seconds: 57_000_000,
            busy_gpu_milli_seconds: Some(44_352_000),
            energy_mj: Some(173_520_000_000),
            peak_memory_mib: Some(72_908),
            longest_idle_ms: Some(5_000),
            estimated: false,
        }
    }

    #[test]
    fn what_was_used_of_what_was_held_is_one_line() {
        let text = measured().text(&HELD);
        assert_eq!(text, "12.3 GPU-h of 16 GPU-h (77 %), 48.2 kWh, peak 71.1 GiB");
        assert_eq!(measured().note(&HELD), "");
    }

    #[test]
    fn what_is_not_known_is_left_out_and_never_zero() {
        let unread = MeasuredView { busy_gpu_milli_seconds: None, energy_mj: None, ..measured() };
        assert_eq!(unread.text(&HELD), "peak 71.1 GiB");
    }

    #[test]
    fn what_is_to_be_known_of_the_figures_is_said() {
        let partly = MeasuredView {
            nodes: 1,
            observed_gpu_milli_seconds: 28_000_000,
            estimated: true,
            ..measured()
        };
        let held = Held { simulated: true, ..HELD };
        assert_eq!(
            partly.note(&held),
            "simulated; told by 1 of 2 nodes; readings for 48 % of the time; \
             of a part of a GPU that part of what the whole did"
        );
        assert_eq!(measured().note(&Held { so_far: true, ..HELD }), "so far");
    }

    #[test]
    fn idle_gpus_are_told_while_they_are_idle_and_the_longest_pause_after() {
        assert_eq!(idle_text(3_900_000, 3_900_000, None), "all GPUs for 1h05m");
        assert_eq!(idle_text(0, 3_900_000, None), "a GPU for 1h05m at a time");
        assert_eq!(idle_text(0, 59_999, None), "");
    }

    #[test]
    fn energy_is_told_in_a_unit_that_fits() {
        let told = [512_000, 5_400_000, 90_000_000_000, 5_400_000_000_000].map(energy);
        assert_eq!(told, ["512 J", "1.5 Wh", "25 kWh", "1.5 MWh"]);
    }
}
