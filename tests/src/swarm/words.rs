//! How a job of a swarm says how long it runs: by the command that it would be on a real node.

use std::time::Duration;

use gotgan_proto::v1::{ExitStatus, JobSpec, RunAttempt, job_spec::Work};

use crate::jobs;
use crate::virtual_worker::{Play, Script};

/// The program, and the word for no end.
const SLEEP: &str = "sleep";
const FOR_EVER: &str = "infinity";

/// A job that runs so long and succeeds.
#[must_use]
pub fn runs_for(time: Duration) -> JobSpec {
    jobs::command(&[SLEEP, &time.as_secs_f64().to_string()])
}

/// A job that runs until it is told to stop.
#[must_use]
pub fn runs_for_ever() -> JobSpec {
    jobs::command(&[SLEEP, FOR_EVER])
}

/// What the nodes of a swarm do with an attempt: what its command says; any other command takes no time.
#[must_use]
pub fn script() -> Script {
    Script::by(play)
}

fn play(order: &RunAttempt) -> Play {
    match asleep(order.spec.as_ref()) {
        Some(FOR_EVER) => Play::Forever,
        word => Play::Run(seconds(word.unwrap_or_default()), ExitStatus::default()),
    }
}

fn asleep(spec: Option<&JobSpec>) -> Option<&str> {
    let Some(Work::Command(command)) = spec?.work.as_ref() else { return None };
    match command.argv.as_slice() {
        [program, time] if program == SLEEP => Some(time),
        _ => None,
    }
}

fn seconds(word: &str) -> Duration {
    let seconds = word.parse().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    seconds.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(spec: JobSpec) -> Play {
        play(&RunAttempt { spec: Some(spec), ..Default::default() })
    }

    #[test]
    fn a_job_runs_for_the_time_that_it_says() {
        let half_a_second = Duration::from_millis(500);
        assert_eq!(
            played(runs_for(half_a_second)),
            Play::Run(half_a_second, ExitStatus::default())
        );
        assert_eq!(played(runs_for_ever()), Play::Forever);
    }

    #[test]
    fn any_other_command_takes_no_time() {
        let nothing = Play::Run(Duration::ZERO, ExitStatus::default());
        assert_eq!(played(jobs::command(&["/bin/true"])), nothing);
        assert_eq!(played(jobs::command(&["sleep", "well"])), nothing);
    }
}
