//! Keeping the lease of the leader, and stopping at once when it is lost.
//!
//! Both sides count its length by their own monotonic clocks: who leads from before its last renewal, who stands by from when
//! it saw that. What the wall clocks of their hosts show is written down for people and decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::Epoch;
use gotgan_store::{Claim, Leadership, Sight, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::clock;

/// Between looks of a standby at whether the leader's lease has run out.
const STANDBY_LOOK: Duration = Duration::from_millis(200);
/// Between tries to reach a store that is away for a moment.
const STORE_AWAY_LOOK: Duration = Duration::from_millis(500);

/// Opens the store, and waits for one that is away for a moment: a scheduler that ends because its database restarts is
/// given up by whoever keeps it after some such ends. `None` if asked to stop first.
///
/// # Errors
/// [`StoreError`] if it cannot be opened, or was away all that time.
pub async fn open(
    url: &str,
    wait: Duration,
    stop: &CancellationToken,
) -> Result<Option<Arc<dyn Store>>, StoreError> {
    let begun = clock::instant();
    let mut told = false;
    loop {
        let error = match gotgan_store::open(url).await {
            Ok(store) => return Ok(Some(store)),
            Err(error) if !error.is_passing() || clock::since(begun) >= wait => return Err(error),
            Err(error) => error,
        };
        if !std::mem::replace(&mut told, true) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, wait_s = wait.as_secs(), "waiting for the database");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            () = clock::sleep(STORE_AWAY_LOOK) => {}
        }
    }
}

/// By what a leadership is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long a lease runs.
    pub lease_ms: i64,
    /// Whether a leader whose session with the database has ended is succeeded at once, and not after its lease.
    pub watches: bool,
}

/// A lease that was given up runs until here.
const GIVEN_UP: UnixMicros = UnixMicros(0);

/// The lease of another as it was seen last, and since when it was the same.
#[derive(Debug, Clone, Copy)]
struct Seen {
    lease: (Epoch, UnixMicros),
    since: Instant,
}

impl Seen {
    /// By what right this process would lead now.
    fn claim(seen: Option<Self>, lease_ms: i64) -> Claim {
        let length = Duration::from_millis(u64::try_from(lease_ms).unwrap_or(0));
        let ran_out = seen.filter(|seen| clock::since(seen.since) >= length);
        let until = clock::now().plus_millis(lease_ms);
        Claim { over: GIVEN_UP, unless_renewed: ran_out.map(|seen| seen.lease), until }
    }

    /// What is seen now.
    fn again(seen: Option<Self>, leader: &Leadership) -> Self {
        let lease = (leader.epoch, leader.expires);
        let same = seen.filter(|seen| seen.lease == lease);
        same.unwrap_or_else(|| Self { lease, since: clock::instant() })
    }
}

/// Gives the leadership of that epoch up, so that others need not wait for its lease to run out.
///
/// # Errors
/// [`StoreError`] if the store does not take it.
pub async fn resign(store: &Arc<dyn Store>, epoch: Epoch) -> Result<(), StoreError> {
    store.resign(epoch, GIVEN_UP).await
}

/// Waits until the store gives this process the leadership under its name and address; `None` if asked to stop first. Calls
/// `on_standby` with each leader it finds, once for its epoch. A store that is away for a moment is waited for.
///
/// # Errors
/// [`StoreError`] if the store fails otherwise.
pub async fn take(
    store: &Arc<dyn Store>,
    (holder, address): (&str, &str),
    terms: Terms,
    stop: &CancellationToken,
    mut on_standby: impl FnMut(Leadership),
) -> Result<Option<Leadership>, StoreError> {
    let (mut told, mut away, mut seen) = (None, false, None);
    loop {
        let claim = Seen::claim(seen, terms.lease_ms);
        let taken = store.succeed_leader(holder, address, claim).await;
        let is_away = taken.as_ref().is_err_and(StoreError::is_passing);
        match taken {
            Err(error) if is_away => {
                if !away {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "standing by for the database");
                }
            }
            Ok(leadership) => return Ok(Some(leadership)),
            Err(StoreError::LedByAnother(leader)) => {
                let epoch = leader.epoch;
                seen = Some(Seen::again(seen, &leader));
                let is_gone = terms.watches && is_gone(store, epoch).await;
                if told != Some(epoch) {
                    tracing::info!(leader = leader.holder, address = leader.address, "standing by");
                    told = Some(epoch);
                    on_standby(leader);
                }
                if is_gone {
                    continue;
                }
            }
            Err(error) => return Err(error),
        }
        away = is_away;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            () = clock::sleep(STANDBY_LOOK) => {}
        }
    }
}

/// Whether the leader's process is gone; its lease is ended then. One that lost its session alone renews its lease, or is
/// succeeded though it lives: what it writes after that is refused.
async fn is_gone(store: &Arc<dyn Store>, epoch: Epoch) -> bool {
    // A database that does not answer now is told of by the next try to lead.
    if !matches!(store.look_for_leader(epoch).await, Ok(Sight::Gone)) {
        return false;
    }
    tracing::warn!(%epoch, "the leader's session with the database has ended");
    resign(store, epoch).await.is_ok()
}

/// Renews the lease three times in its length; returns when it is lost or when asked to stop.
///
/// The time is counted from before the last renewal that worked, by the monotonic clock. A process that was paused past its
/// lease asks the store once more: it leads on if nobody took over, and ends if somebody did. Until it knows, the store
/// refuses its writes if they are too late.
pub async fn keep(store: Arc<dyn Store>, epoch: Epoch, lease_ms: i64, stop: CancellationToken) {
    let lease = Duration::from_millis(u64::try_from(lease_ms).unwrap_or(0));
    let mut renewed = clock::instant();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock::sleep(lease / 3) => {}
        }
        let began = clock::instant();
        let left = match lease.saturating_sub(clock::since(renewed)) {
            // Paused past it. As long as nobody has taken the lease it is still this one's, which only the store can say.
            Duration::ZERO => lease / 3,
            left => left,
        };
        let renewal = store.renew_leadership(epoch, clock::now(), lease_ms);
        let Some(outcome) = clock::within(left, renewal).await else {
            tracing::error!(%epoch, "the store does not answer and the lease has run out");
            return;
        };
        match outcome {
            Ok(()) => renewed = began,
            Err(StoreError::Fenced { newer, .. }) => {
                tracing::error!(%epoch, %newer, "another scheduler leads");
                return;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "lease not renewed");
            }
        }
        if clock::since(renewed) > lease {
            tracing::error!(%epoch, "the lease has run out");
            return;
        }
        show(&store, epoch, lease / 3).await;
    }
}

/// Lets standbys see that this process is there. They wait for the lease where they cannot.
pub async fn show(store: &Arc<dyn Store>, epoch: Epoch, limit: Duration) {
    let shown = clock::within(limit, store.show_leader(epoch)).await;
    if let Some(Err(error)) = shown {
        tracing::debug!(error = &error as &dyn std::error::Error, "not shown to standbys");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody listens there.
    const NOBODY: &str = "postgres://nobody@127.0.0.1:1/none";
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_database_that_is_away_is_waited_for_and_one_that_cannot_be_is_not() {
        let (stopped, never) = (CancellationToken::new(), CancellationToken::new());
        stopped.cancel();
        assert!(open(NOBODY, LONG, &stopped).await.unwrap().is_none(), "asked to stop meanwhile");
        let given_up = open(NOBODY, Duration::ZERO, &never).await.unwrap_err();
        assert!(given_up.is_passing(), "{given_up:?}");
        let unknown = open("mysql://there", LONG, &never).await.unwrap_err();
        assert!(matches!(unknown, StoreError::Unsupported(_)), "{unknown:?}");
    }
}
