//! Slow-downs come and go with every second: they count as lasting until they have been away for a while.
//!
//! Without this a hot afternoon would write a line of history for thousands of GPUs with every heartbeat.

use std::collections::BTreeMap;

use super::{Condition, GpuLook};
use crate::amount::UnixMicros;
use crate::ids::GpuUuid;

/// When each slow-down of the GPUs of a node was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damped(BTreeMap<(GpuUuid, Condition), UnixMicros>);

impl Damped {
    /// The looks, with slow-downs that were seen less than `for_s` ago.
    #[must_use]
    pub fn damp(&mut self, mut looks: Vec<GpuLook>, now: UnixMicros, for_s: i64) -> Vec<GpuLook> {
        for look in &looks {
            for condition in look.conditions.iter().filter(|it| it.is_of_the_facility()) {
                self.0.insert((look.uuid.clone(), *condition), now);
            }
        }
        self.0.retain(|_, seen| now.millis_since(*seen) < for_s.saturating_mul(1000));
        for look in &mut looks {
            let of_it = self.0.keys().filter(|(uuid, _)| *uuid == look.uuid);
            look.conditions.extend(of_it.map(|(_, condition)| *condition));
        }
        looks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn look(conditions: &[Condition]) -> Vec<GpuLook> {
        let uuid = GpuUuid::new("GPU-1").unwrap();
        vec![GpuLook { uuid, conditions: conditions.iter().copied().collect() }]
    }

    #[test]
    fn a_slow_down_that_flutters_lasts_until_it_has_been_away_and_nothing_else_does() {
        let mut damped = Damped::default();
        let at = |seconds: i64| UnixMicros::default().plus_seconds(seconds);
        let both = [Condition::PowerBrake, Condition::RemapPending];
        let mut seen = |seconds, conditions: &[Condition]| {
            damped.damp(look(conditions), at(seconds), 60).remove(0).conditions
        };
        assert_eq!(seen(0, &both), BTreeSet::from(both));
        assert_eq!(seen(5, &[]), BTreeSet::from([Condition::PowerBrake]));
        assert_eq!(seen(50, &[Condition::PowerBrake]), BTreeSet::from([Condition::PowerBrake]));
        assert_eq!(seen(109, &[]), BTreeSet::from([Condition::PowerBrake]));
        assert_eq!(seen(110, &[]), BTreeSet::new());
    }
}
