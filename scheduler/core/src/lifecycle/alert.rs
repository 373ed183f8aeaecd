//! People are told when a part of a budget is used. Nothing else happens to anybody.

use std::sync::Arc;

use super::draft::Draft;
use crate::alert::Alert;
use crate::change::{Change, EventKind, Subject};
use crate::ids::ProjectPath;

/// Nodes of which something is said in one round, so that the first round after a large change stays a short one.
const TOLD_MAX: usize = 1_000;

/// Tells what there is to tell of budgets. While attempts are still to be settled it waits: what they used may belong to
/// the period before.
pub fn tell_alerts(draft: &mut Draft<'_>) {
    if draft.world.next_due().is_some_and(|due| due <= draft.now) {
        return;
    }
    let due = draft.world.alerts_due_by(draft.now).take(TOLD_MAX);
    let due: Vec<ProjectPath> = due.cloned().collect();
    for alert in
        due.iter().flat_map(|path| draft.world.alerts_of(path, draft.now)).collect::<Vec<_>>()
    {
        tell(draft, alert);
    }
}

fn tell(draft: &mut Draft<'_>, mut alert: Alert) {
    alert.seq = draft.world.sequences.next_event;
    let text = alert.describe();
    draft.push(Change::QuotaAlerted(Arc::new(alert)));
    draft.tell(Subject::Quota, EventKind::QuotaAlert, text);
}
