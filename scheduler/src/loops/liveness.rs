//! Deciding which nodes are suspect and which are lost, from when they were last heard.

use std::sync::Arc;
use std::time::Duration;

use gotgan_core::ids::NodeName;
use gotgan_core::lifecycle;
use gotgan_core::node::Liveness;

use crate::clock;
use crate::config::Timing;
use crate::flow::command::{FlowError, WriterHandle};
use crate::flow::dispatch::Dispatcher;
use crate::flow::round::RoundDraft;
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
    let began = clock::instant();
    let mut ticks = clock::every(Duration::from_millis(timing.repair_every_ms));
    loop {
        ticks.tick().await;
        let known = writer.read(|world| {
            let nodes = world.nodes.iter().map(|(name, node)| (name.clone(), node.liveness));
            nodes.collect::<Vec<(NodeName, Liveness)>>()
        });
        let known = match known.await {
            Ok(known) => known,
            Err(FlowError::NotCommitted) => continue,
            Err(FlowError::NotLeader | FlowError::Stopping) => return,
        };
        // Taken after the wait for the writer, so that a stall of the store is not held against the nodes.
        let last = telemetry.last_heard();
        let findings: Vec<(NodeName, Finding)> = known
            .into_iter()
            .filter_map(|(node, liveness)| {
                let connected = dispatcher.is_connected(&node);
                let since = clock::since(last.get(&node).copied().unwrap_or(began));
                let finding = judge(liveness, connected, since, &timing)?;
                Some((node, finding))
            })
            .collect();
        if findings.is_empty() {
            continue;
        }
        match writer.write(move |round| settle(round, findings)).await {
            // A node that was given up while its stream held must register anew, so that what still runs there is
            // found and stopped.
            Ok(given_up) => given_up.iter().for_each(|node| dispatcher.cut(node)),
            Err(FlowError::NotCommitted) => {}
            Err(FlowError::NotLeader | FlowError::Stopping) => return,
        }
    }
}

/// Carries the findings out; returns the nodes that were given up.
fn settle(round: &mut RoundDraft<'_>, findings: Vec<(NodeName, Finding)>) -> Vec<NodeName> {
    let mut given_up = Vec::new();
    for (node, finding) in findings {
        match finding {
            Finding::Heard => lifecycle::hear(&mut round.draft, &node),
            Finding::Missed => lifecycle::miss(&mut round.draft, &node),
            Finding::GivenUp => {
                if lifecycle::give_up(&mut round.draft, &node) {
                    given_up.push(node);
                }
            }
        }
    }
    given_up
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
