//! Does each IMEX channel have one holder, and does the world know which?

use crate::imex::{self, ImexLease};
use crate::world::World;

/// What does not add up about channels, each with what it is about.
pub(super) fn misheld(world: &World) -> Vec<(String, String)> {
    let (mut wrong, mut held) = (Vec::new(), 0);
    for (id, attempt) in &world.attempts {
        for ImexLease { domain, channel } in imex::leases_of(&attempt.placement) {
            held += 1;
            let holder = world.imex.holder(domain, *channel);
            if holder != Some(*id) {
                let text = format!("has channel {channel} of {domain}, which {holder:?} holds");
                wrong.push((format!("attempt {id}"), text));
            }
        }
    }
    if held != world.imex.held() {
        let text = format!("{} are held by the count, {held} really", world.imex.held());
        wrong.push(("IMEX channels".to_owned(), text));
    }
    wrong
}
