//! What the daemon counts about itself, in the Prometheus text format, and the HTTP port that shows it.
//!
//! There is no global registry: whoever counts is given the [`Metrics`]. Nothing decides by these numbers.

mod http;
mod rpc;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gotgan_core::amount::GpuMilli;
use gotgan_core::health::State;
use gotgan_core::ids::GpuClass;
use gotgan_core::job::JobState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use self::http::{Readiness, answer, router, serve};
pub use self::rpc::{RpcMetricsLayer, RpcMetricsService};

/// Bounds for transactions and planning passes, in seconds: from far below a disk's sync to what a person notices.
const SECONDS_BOUNDS: [f64; 13] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Bounds for the number of changes that one transaction takes along.
const CHANGES_BOUNDS: [f64; 11] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0];

/// Everything that is counted. Shared behind an [`Arc`]; every field can be changed from any thread.
#[derive(Debug)]
pub struct Metrics {
    /// Transactions committed.
    pub rounds: Counter,
    /// Changes in a committed transaction.
    pub changes_per_round: Histogram,
    /// Time of a commit, in seconds.
    pub commit_seconds: Histogram,
    /// Time of a full planning pass, in seconds.
    plan_seconds: Histogram,
    /// Passes that only asked who starts in the room that there is, in seconds.
    event_pass_seconds: Histogram,
    /// Of these, those that were held against the same pass over everybody.
    pub cross_checks: Counter,
    /// Of these, those that decided something else.
    pub divergences: Counter,
    /// Decisions that plans made.
    decisions: Counter,
    /// Decisions that were refused when they should have been committed.
    pub refused_decisions: Counter,
    /// Assertions of the writer's that fired.
    pub assertions: Counter,
    /// Events committed.
    pub events: Counter,
    /// Reports of workers that were folded in.
    pub reports: Counter,
    /// Streams of workers that are open.
    pub worker_streams: Gauge,
    jobs: Family<StateLabels, Gauge>,
    gpus: Family<GpuLabels, Gauge<f64, AtomicU64>>,
    gpu_health: Family<StateLabels, Gauge>,
    node_health: Family<StateLabels, Gauge>,
    lemons: Gauge,
    health_alarms: Family<KindLabels, Gauge>,
    rpcs: Family<RpcLabels, Counter>,
    registry: Registry,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GpuLabels {
    class: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: &'static str,
    code: &'static str,
}

impl Metrics {
    /// All counts at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut metrics = Metrics {
            rounds: Counter::default(),
            changes_per_round: Histogram::new(CHANGES_BOUNDS),
            commit_seconds: Histogram::new(SECONDS_BOUNDS),
            plan_seconds: Histogram::new(SECONDS_BOUNDS),
            event_pass_seconds: Histogram::new(SECONDS_BOUNDS),
            cross_checks: Counter::default(),
            divergences: Counter::default(),
            decisions: Counter::default(),
            refused_decisions: Counter::default(),
            assertions: Counter::default(),
            events: Counter::default(),
            reports: Counter::default(),
            worker_streams: Gauge::default(),
            jobs: Family::default(),
            gpus: Family::default(),
            gpu_health: Family::default(),
            node_health: Family::default(),
            lemons: Gauge::default(),
            health_alarms: Family::default(),
            rpcs: Family::default(),
            registry: Registry::with_prefix("gotgan"),
        };
        metrics.register();
        metrics.set_jobs(&BTreeMap::new());
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("rounds", "Transactions committed", &self.rounds);
        counter("decisions", "Decisions that plans made", &self.decisions);
        counter("refused_decisions", "Decisions refused at commit", &self.refused_decisions);
        counter("planner_cross_checks", "Event passes cross-checked", &self.cross_checks);
        counter("planner_divergences", "Event passes found to differ", &self.divergences);
        counter("assertions", "Assertions of the writer that fired", &self.assertions);
        counter("events", "Events committed", &self.events);
        counter("reports", "Reports of workers folded in", &self.reports);
        let mut histogram = |name: &str, help: &str, histogram: &Histogram| {
            registry.register(name, help, histogram.clone());
        };
        histogram("changes_per_round", "Changes in one transaction", &self.changes_per_round);
        histogram("commit_seconds", "Time of a commit", &self.commit_seconds);
        histogram("plan_seconds", "Time of a full planning pass", &self.plan_seconds);
        histogram("event_pass_seconds", "Time of a pass for an event", &self.event_pass_seconds);
        registry.register("worker_streams", "Open streams of workers", self.worker_streams.clone());
        registry.register("jobs", "Jobs by state", self.jobs.clone());
        registry.register("gpus", "GPUs by class and state", self.gpus.clone());
        registry.register("gpu_health", "GPUs by how they stand", self.gpu_health.clone());
        let nodes = self.node_health.clone();
        registry.register("node_health", "Nodes as a whole by how they stand", nodes);
        let lemons = self.lemons.clone();
        registry.register("lemons", "Nodes on which jobs fail and hardly elsewhere", lemons);
        let alarms = self.health_alarms.clone();
        registry.register("health_alarms", "Alarms about hardware", alarms);
        registry.register("rpcs", "Calls by method and gRPC code", self.rpcs.clone());
    }

    /// Counts a pass of the planner with what it decided.
    pub fn count_pass(&self, is_full: bool, took: Duration, decisions: usize) {
        let times = if is_full { &self.plan_seconds } else { &self.event_pass_seconds };
        times.observe(took.as_secs_f64());
        self.decisions.inc_by(decisions as u64);
    }

    /// Sets how many jobs there are in each state; a state that is absent has none.
    pub fn set_jobs(&self, counts: &BTreeMap<JobState, u64>) {
        for state in JobState::ALL {
            let count = counts.get(&state).copied().unwrap_or_default();
            let labels = StateLabels { state: state.word() };
            self.jobs.get_or_create(&labels).set(whole(count));
        }
    }

    /// Sets the GPUs of a class; the three add up to its capacity.
    pub fn set_gpus(&self, class: &GpuClass, free: GpuMilli, allocated: GpuMilli, down: GpuMilli) {
        for (state, amount) in [("free", free), ("allocated", allocated), ("down", down)] {
            let labels = GpuLabels { class: class.as_str().to_owned(), state };
            self.gpus.get_or_create(&labels).set(gpus(amount));
        }
    }

    /// Sets how much hardware stands otherwise than sound, and how many alarms there are.
    pub fn set_health(&self, count: HealthCount) {
        let HealthCount { gpus, nodes, lemons, breakers, facility } = count;
        set_standings(&self.gpu_health, gpus);
        set_standings(&self.node_health, nodes);
        self.lemons.set(whole(lemons));
        for (kind, count) in [("breaker", breakers), ("facility", facility)] {
            self.health_alarms.get_or_create(&KindLabels { kind }).set(whole(count));
        }
    }

    /// Counts a call that has ended.
    fn count_rpc(&self, method: &'static str, code: &'static str) {
        self.rpcs.get_or_create(&RpcLabels { method, code }).inc();
    }

    /// Everything as text, in the OpenMetrics form that Prometheus reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail; a metric that fails to encode is missing from the page.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::warn!(%error, "metrics could not be encoded");
        }
        text
    }
}

fn set_standings(family: &Family<StateLabels, Gauge>, count: StandingCount) {
    let StandingCount { suspect, out, verifying } = count;
    for (state, count) in [("suspect", suspect), ("out", out), ("verifying", verifying)] {
        family.get_or_create(&StateLabels { state }).set(whole(count));
    }
}

/// Hardware of one kind that is not sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StandingCount {
    /// Watched, and taking work.
    pub suspect: u64,
    /// Out, or draining.
    pub out: u64,
    /// Watched before it takes work again.
    pub verifying: u64,
}

impl StandingCount {
    /// One more that stands so.
    pub fn add(&mut self, state: State) {
        match state {
            State::Ok => {}
            State::Suspect { .. } => self.suspect += 1,
            State::Out { .. } => self.out += 1,
            State::Verifying => self.verifying += 1,
        }
    }
}

/// Hardware that is not sound, and alarms about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthCount {
    /// GPUs.
    pub gpus: StandingCount,
    /// Nodes as a whole.
    pub nodes: StandingCount,
    /// Of these nodes, those that are it by whose jobs fail there.
    pub lemons: u64,
    /// Circuit breakers that are broken.
    pub breakers: u64,
    /// Racks and halls that are slowed down by heat or by their power.
    pub facility: u64,
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// For showing only: nothing is charged or compared by it.
fn gpus(amount: GpuMilli) -> f64 {
    f64::from(u32::try_from(amount.0).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_shows_every_metric_by_name() {
        let metrics = Metrics::new();
        let class = GpuClass::new("b200").unwrap();
        metrics.set_gpus(&class, GpuMilli(0), GpuMilli(0), GpuMilli(0));
        metrics.count_rpc("gotgan.v1.Jobs/Submit", "OK");
        metrics.set_health(HealthCount::default());
        let page = metrics.encode();
        let names = [
            "rounds",
            "changes_per_round",
            "commit_seconds",
            "plan_seconds",
            "event_pass_seconds",
            "planner_cross_checks",
            "planner_divergences",
            "decisions",
            "refused_decisions",
            "assertions",
            "events",
            "reports",
            "worker_streams",
            "jobs",
            "gpus",
            "gpu_health",
            "node_health",
            "lemons",
            "health_alarms",
            "rpcs",
        ];
        for name in names {
            assert!(page.contains(&format!("# TYPE gotgan_{name} ")), "{name} in {page}");
        }
    }

    #[test]
    fn counts_appear_on_the_page() {
        let metrics = Metrics::new();
        metrics.rounds.inc_by(3);
        metrics.commit_seconds.observe(0.003);
        metrics.worker_streams.inc();
        let page = metrics.encode();
        for line in [
            "gotgan_rounds_total 3\n",
            "gotgan_commit_seconds_bucket{le=\"0.002\"} 0\n",
            "gotgan_commit_seconds_bucket{le=\"0.005\"} 1\n",
            "gotgan_worker_streams 1\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }

    #[test]
    fn states_without_jobs_go_back_to_zero() {
        let metrics = Metrics::new();
        metrics.set_jobs(&[(JobState::Running, 2)].into());
        metrics.set_jobs(&[(JobState::Pending, 1)].into());
        let page = metrics.encode();
        assert!(page.contains("gotgan_jobs{state=\"running\"} 0\n"), "{page}");
        assert!(page.contains("gotgan_jobs{state=\"pending\"} 1\n"), "{page}");
    }

    #[test]
    fn hardware_that_is_not_sound_is_counted_by_how_it_stands() {
        let metrics = Metrics::new();
        let gpus = StandingCount { out: 2, ..StandingCount::default() };
        let nodes = StandingCount { suspect: 3, ..StandingCount::default() };
        metrics.set_health(HealthCount { gpus, nodes, lemons: 1, breakers: 1, facility: 0 });
        let page = metrics.encode();
        assert!(page.contains("gotgan_node_health{state=\"suspect\"} 3\n"), "{page}");
        assert!(page.contains("gotgan_lemons 1\n"), "{page}");
        assert!(page.contains("gotgan_gpu_health{state=\"out\"} 2\n"), "{page}");
        assert!(page.contains("gotgan_gpu_health{state=\"suspect\"} 0\n"), "{page}");
        assert!(page.contains("gotgan_health_alarms{kind=\"breaker\"} 1\n"), "{page}");
    }

    #[test]
    fn gpus_are_shown_by_class_and_state_as_whole_gpus() {
        let metrics = Metrics::new();
        let class = GpuClass::new("b200").unwrap();
        metrics.set_gpus(&class, GpuMilli(1500), GpuMilli(6500), GpuMilli(0));
        let page = metrics.encode();
        assert!(page.contains("gotgan_gpus{class=\"b200\",state=\"free\"} 1.5\n"), "{page}");
        assert!(page.contains("gotgan_gpus{class=\"b200\",state=\"down\"} 0.0\n"), "{page}");
    }
}
