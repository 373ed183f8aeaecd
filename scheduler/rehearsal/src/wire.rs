//! One direction of a connection: messages arrive late, in their order but for those that need none, and now and then twice.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gotgan_scheduler::clock::{self, simulated};

use crate::{draw, weather};

enum Got<T> {
    Message(Option<T>),
    Due,
}

/// Carries what `next` gives to `give`, until one of them is gone. `is_loose` tells what may overtake and come twice.
pub async fn carry<T: Clone>(
    mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>,
    mut give: impl FnMut(T) -> bool,
    is_loose: impl Fn(&T) -> bool,
) {
    let mut under_way: VecDeque<(Duration, T)> = VecDeque::new();
    let mut closed = false;
    while !closed || !under_way.is_empty() {
        let due = under_way.front().map(|(due, _)| due.saturating_sub(simulated::passed()));
        let mut rest = pin!(clock::sleep(due.unwrap_or_default()));
        let got = poll_fn(|context| {
            if !closed && let Poll::Ready(message) = next(context) {
                return Poll::Ready(Got::Message(message));
            }
            match due {
                Some(_) => rest.as_mut().poll(context).map(|()| Got::Due),
                None => Poll::Pending,
            }
        });
        match got.await {
            Got::Message(Some(message)) => enter(&mut under_way, message, &is_loose),
            Got::Message(None) => {
                closed = true;
                // What was under way may go with the connection.
                if draw::one_in(2) {
                    under_way.clear();
                }
            }
            Got::Due => {
                if let Some((_, message)) = under_way.pop_front()
                    && !give(message)
                {
                    return;
                }
            }
        }
    }
}

fn enter<T: Clone>(
    under_way: &mut VecDeque<(Duration, T)>,
    message: T,
    is_loose: &impl Fn(&T) -> bool,
) {
    let arrives = || simulated::passed() + weather::delay(weather::now().late);
    let loose = is_loose(&message) && draw::one_in(weather::now().loose);
    if !loose {
        let last = under_way.back().map_or(Duration::ZERO, |(due, _)| *due);
        under_way.push_back((arrives().max(last), message));
        return;
    }
    for _ in 0..draw::between(1, 2) {
        let due = arrives();
        let at = draw::below(under_way.len() as u64 + 1);
        let at = usize::try_from(at).unwrap_or(0);
        under_way.insert(at, (due, message.clone()));
    }
    // Whoever was put before another is there no later than that.
    let mut latest = Duration::ZERO;
    for (due, _) in under_way.iter_mut() {
        latest = latest.max(*due);
        *due = latest;
    }
}
