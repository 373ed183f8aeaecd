//! The newest reading of each GPU, with when it came. Pure: whoever uses it says what time it is.

use std::time::{Duration, Instant};

use gotgan_proto::v1::{GpuFault, GpuReading};

use super::frames::Look;

/// The newest look at a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// As it goes into heartbeats.
    pub reading: GpuReading,
    /// Those of its processes that compute.
    pub compute_processes: u32,
    /// When it came.
    pub at: Instant,
}

/// What a new look brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Something that is not to wait for the next heartbeat.
    pub news: bool,
    /// A count of uncorrectable errors that was not told before.
    pub uncorrected: Option<u64>,
}

/// All GPUs that are registered.
#[derive(Debug)]
pub struct Board {
    places: Vec<Place>,
    /// A GPU whose newest reading is older does not answer.
    patience: Duration,
}

#[derive(Debug)]
struct Place {
    uuid: String,
    state: State,
    /// Why nobody reads it now; empty while somebody does.
    unread: String,
    /// Whoever reads heartbeats knows that it does not answer, or is about to.
    silence_told: bool,
    /// The last one read, whatever came between.
    action: Option<i32>,
    fault: i32,
    uncorrected: Option<u64>,
}

#[derive(Debug)]
enum State {
    /// Nothing has been read since then.
    Awaited(Instant),
    Seen(Seen),
}

impl Board {
    /// With nothing read yet.
    pub fn new(uuids: &[String], patience: Duration, now: Instant) -> Self {
        let place = |uuid: &String| Place {
            uuid: uuid.clone(),
            state: State::Awaited(now),
            unread: String::new(),
            silence_told: false,
            action: None,
            fault: 0,
            uncorrected: None,
        };
        Self { places: uuids.iter().map(place).collect(), patience }
    }

    /// Whether every GPU has been read.
    pub fn is_full(&self) -> bool {
        self.places.iter().all(|place| matches!(place.state, State::Seen(_)))
    }

    /// Takes a new look at a GPU.
    pub fn take(&mut self, look: Look, now: Instant) -> Brought {
        let place = self.places.iter_mut().find(|place| place.uuid == look.reading.uuid);
        place.map_or_else(Brought::default, |place| place.take(look, now))
    }

    /// Nobody reads GPUs for the moment, and why. What was read holds for as long as ever: that the process died says
    /// nothing of the hardware, and another one may read it in time.
    pub fn unread(&mut self, why: &str) {
        self.places.iter_mut().for_each(|place| why.clone_into(&mut place.unread));
    }

    /// Whether some GPU has fallen silent since this was asked last.
    pub fn falls_silent(&mut self, now: Instant) -> bool {
        let mut news = false;
        for place in &mut self.places {
            if silent_for(&place.state, self.patience, now).is_some() {
                news |= !std::mem::replace(&mut place.silence_told, true);
            }
        }
        news
    }

    /// The newest look at every GPU.
    pub fn latest(&self, now: Instant) -> Vec<Seen> {
        self.places.iter().map(|place| place.latest(self.patience, now)).collect()
    }
}

impl Place {
    fn take(&mut self, look: Look, now: Instant) -> Brought {
        let Look { reading, compute_processes, cut: _ } = look;
        let fault = std::mem::replace(&mut self.fault, reading.fault);
        let appears = reading.fault != 0 && reading.fault != fault;
        // One that could not be read tells of no action; that is no change of it.
        let known = reading.recovery_action != 0;
        let action = if known { self.action.replace(reading.recovery_action) } else { self.action };
        let changed = known && action.is_some_and(|before| before != reading.recovery_action);
        let uncorrected = reading.ecc_uncorrected.filter(|now| self.uncorrected != Some(*now));
        self.uncorrected = uncorrected.or(self.uncorrected);
        self.silence_told = false;
        self.unread.clear();
        self.state = State::Seen(Seen { reading, compute_processes, at: now });
        Brought { news: appears || changed, uncorrected }
    }

    fn latest(&self, patience: Duration, now: Instant) -> Seen {
        let silence = silent_for(&self.state, patience, now);
        let why = match (&self.state, silence) {
            (State::Seen(seen), None) => return seen.clone(),
            (State::Awaited(_), None) => String::new(),
            (_, Some(_)) if !self.unread.is_empty() => {
                format!("driver_unresponsive: {}", self.unread)
            }
            (State::Seen(_) | State::Awaited(_), Some(age)) => {
                format!("driver_unresponsive: no answer for {} s", age.as_secs())
            }
        };
        let fault = if why.is_empty() { GpuFault::Unspecified } else { GpuFault::Unresponsive };
        let uuid = self.uuid.clone();
        let reading = GpuReading { uuid, error: why, fault: fault.into(), ..Default::default() };
        Seen { reading, compute_processes: 0, at: now }
    }
}

/// How long nothing has come, if that is too long.
fn silent_for(state: &State, patience: Duration, now: Instant) -> Option<Duration> {
    let since = match state {
        State::Awaited(since) => *since,
        State::Seen(seen) => seen.at,
    };
    let age = now.saturating_duration_since(since);
    (age > patience).then_some(age)
}

#[cfg(test)]
mod tests {
    use gotgan_proto::v1::GpuRecoveryAction;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);
    const SECOND: Duration = Duration::from_secs(1);

    fn board(now: Instant) -> Board {
        Board::new(&["GPU-0".to_owned(), "GPU-1".to_owned()], PATIENCE, now)
    }

    fn look(uuid: &str, change: impl Fn(&mut GpuReading)) -> Look {
        let mut reading = GpuReading { uuid: uuid.into(), ..Default::default() };
        change(&mut reading);
        Look { reading, compute_processes: 0, cut: None }
    }

    fn faults(board: &Board, now: Instant) -> Vec<GpuFault> {
        board.latest(now).iter().map(|seen| seen.reading.fault()).collect()
    }

    #[test]
    fn a_gpu_that_falls_silent_is_unresponsive_alone_and_that_is_news_once() {
        let start = Instant::now();
        let mut board = board(start);
        board.take(look("GPU-0", |_| {}), start);
        board.take(look("GPU-1", |_| {}), start);
        let later = start + 4 * SECOND;
        board.take(look("GPU-0", |_| {}), later);
        assert_eq!(faults(&board, later), [GpuFault::Unspecified, GpuFault::Unresponsive]);
        assert!(board.latest(later)[1].reading.error.starts_with("driver_unresponsive"));
        assert!(board.falls_silent(later));
        assert!(!board.falls_silent(later + SECOND));
        board.take(look("GPU-1", |_| {}), later + SECOND);
        assert_eq!(faults(&board, later + SECOND), [GpuFault::Unspecified; 2]);
        assert!(board.falls_silent(later + 9 * SECOND), "it may fall silent again");
    }

    #[test]
    fn a_gpu_that_has_not_been_read_yet_is_not_unresponsive_before_its_time() {
        let start = Instant::now();
        let mut board = board(start);
        assert!(!board.is_full() && !board.falls_silent(start + SECOND));
        assert_eq!(faults(&board, start + SECOND), [GpuFault::Unspecified; 2]);
        assert_eq!(faults(&board, start + 4 * SECOND), [GpuFault::Unresponsive; 2]);
    }

    #[test]
    fn where_nobody_reads_gpus_are_unresponsive_in_their_time_and_it_is_said_why() {
        let start = Instant::now();
        let mut board = board(start);
        board.take(look("GPU-0", |_| {}), start);
        board.unread("it died");
        board.unread("it died again");
        assert_eq!(faults(&board, start), [GpuFault::Unspecified; 2]);
        let later = start + 4 * SECOND;
        board.take(look("GPU-1", |_| {}), start + 2 * SECOND);
        assert_eq!(faults(&board, later), [GpuFault::Unresponsive, GpuFault::Unspecified]);
        assert_eq!(board.latest(later)[0].reading.error, "driver_unresponsive: it died again");
    }

    #[test]
    fn a_new_recovery_action_and_a_fault_that_appears_are_news() {
        let start = Instant::now();
        let mut board = board(start);
        let mut news = |change: fn(&mut GpuReading)| board.take(look("GPU-0", change), start).news;
        let asks = |reading: &mut GpuReading| {
            reading.recovery_action = GpuRecoveryAction::ResetGpu.into();
        };
        assert!(!news(|reading| reading.recovery_action = GpuRecoveryAction::None.into()));
        assert!(news(asks));
        assert!(!news(asks));
        assert!(news(|reading| reading.fault = GpuFault::Lost.into()));
        assert!(!news(|reading| reading.fault = GpuFault::Lost.into()));
        assert!(!news(asks), "the action is as it was, and a fault that goes is none");
        assert!(news(|reading| reading.fault = GpuFault::ResetRequired.into()));
    }

    #[test]
    fn a_count_is_told_when_it_is_another_one() {
        let start = Instant::now();
        let mut board = board(start);
        let counts = [Some(0), Some(0), None, Some(2), Some(2), Some(0)];
        let told = counts.map(|count| {
            let look = look("GPU-1", |reading| reading.ecc_uncorrected = count);
            board.take(look, start).uncorrected
        });
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(0)]);
    }
}
