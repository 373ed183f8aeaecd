//! Deciding which nodes are suspect and which are lost, from when they were last heard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::ids::NodeName;
use gotgan_core::lifecycle;
use gotgan_core::node::Liveness;

use crate::config::Timing;
use crate::flow::command::WriterHandle;
use crate::flow::dispatch::Dispatcher;
use crate::flow::telemetry::Telemetry;

/// What a look found for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Heard,
    Missed,
    GivenUp,
}

/// Looks until the writer is gone.
pub async fn run(
    writer: WriterHandle,
    telemetry: Arc<Telemetry>,
    dispatcher: Arc<Dispatcher>,
    timing: Timing,
) {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(timing.repair_every_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let last = telemetry.last_heard();
        let known = writer.read(|world| {
            let nodes = world.nodes.iter().map(|(name, node)| (name.clone(), node.liveness));
            nodes.collect::<Vec<(NodeName, Liveness)>>()
        });
        let Ok(known) = known.await else { return };
        let findings: Vec<(NodeName, Finding)> = known
            .into_iter()
            .filter_map(|(node, liveness)| {
                let connected = dispatcher.is_connected(&node);
                let since = last.get(&node).copied().unwrap_or(began).elapsed();
                let finding = judge(liveness, connected, since, &timing)?;
                Some((node, finding))
            })
            .collect();
        if !findings.is_empty() && writer.write(move |round| settle(round, findings)).await.is_err()
        {
            return;
        }
    }
}

fn settle(round: &mut crate::flow::round::RoundDraft<'_>, findings: Vec<(NodeName, Finding)>) {
    for (node, finding) in findings {
        match finding {
            Finding::Heard => lifecycle::hear(&mut round.draft, &node),
            Finding::Missed => lifecycle::miss(&mut round.draft, &node),
            Finding::GivenUp => lifecycle::give_up(&mut round.draft, &node),
        }
    }
}

/// What to do about a node last heard `since` ago; `None` if nothing.
fn judge(liveness: Liveness, connected: bool, since: Duration, timing: &Timing) -> Option<Finding> {
    let suspect = since > Duration::from_millis(timing.suspect_after_ms);
    let lost = since > Duration::from_millis(timing.lost_after_ms);
    match liveness {
        Liveness::Ready if suspect => Some(Finding::Missed),
        Liveness::Unknown | Liveness::Suspect if lost => Some(Finding::GivenUp),
        // A registration makes a node ready; here only one whose beats had paused on a stream that held.
        Liveness::Suspect if connected && !suspect => Some(Finding::Heard),
        Liveness::Ready | Liveness::Unknown | Liveness::Suspect | Liveness::Lost => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(liveness: Liveness, connected: bool, seconds: u64) -> Option<Finding> {
        judge(liveness, connected, Duration::from_secs(seconds), &Timing::default())
    }

    #[test]
    fn a_node_becomes_suspect_before_it_is_lost() {
        assert_eq!(judged(Liveness::Ready, true, 10), None);
        assert_eq!(judged(Liveness::Ready, true, 16), Some(Finding::Missed));
        assert_eq!(judged(Liveness::Ready, true, 300), Some(Finding::Missed));
        assert_eq!(judged(Liveness::Suspect, true, 121), Some(Finding::GivenUp));
    }

    #[test]
    fn a_node_nobody_has_heard_since_the_start_is_lost_after_the_same_time() {
        assert_eq!(judged(Liveness::Unknown, false, 100), None);
        assert_eq!(judged(Liveness::Unknown, false, 121), Some(Finding::GivenUp));
    }

    #[test]
    fn a_lost_node_returns_only_by_registering() {
        assert_eq!(judged(Liveness::Lost, true, 0), None);
        assert_eq!(judged(Liveness::Suspect, true, 1), Some(Finding::Heard));
        assert_eq!(judged(Liveness::Suspect, false, 1), None);
    }
}
