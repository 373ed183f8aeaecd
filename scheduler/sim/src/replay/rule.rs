//! The rules of a queue, by the names people know them by.

use std::fmt;
use std::str::FromStr;

use super::trace::TraceJob;

/// Who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Whoever came first, and of those the one with the smaller number.
    Fifo,
    /// Whoever says to be over soonest.
    Sjf,
    /// The tenant that used least for its share; its jobs by submission.
    Fair,
}

/// Who may pass one that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfill {
    /// Nobody.
    None,
    /// Everybody who fits.
    Skip,
    /// Those who do not put off the first that waits.
    Easy,
    /// Those who do not put off anybody: everyone is promised a moment at the submission.
    Conservative,
    /// Those who do not put off the first so many that wait.
    Reserved(u32),
}

/// How long a job is believed to run; never less than it will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// As long as it will.
    Exact,
    /// What people ask for: the next of a few round times.
    Bucketed,
    /// What the trace says was asked for; as long as it will where it says nothing.
    Asked,
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Who comes first.
    pub order: Order,
    /// Who may pass.
    pub backfill: Backfill,
    /// What is believed of jobs.
    pub estimate: Estimate,
}

/// Times that people ask for, seconds: 15 minutes, 1, 4 and 12 hours, 1, 2, 4, 7, 14, 28 and 60 days.
pub const BUCKETS_S: [i64; 11] = [
    900, 3_600, 14_400, 43_200, 86_400, 172_800, 345_600, 604_800, 1_209_600, 2_419_200, 5_184_000,
];

impl Estimate {
    /// What is believed of a job, seconds.
    #[must_use]
    pub fn of(self, job: &TraceJob) -> i64 {
        match self {
            Estimate::Exact => job.duration_s,
            Estimate::Bucketed => {
                let bucket = BUCKETS_S.into_iter().find(|bucket| *bucket >= job.duration_s);
                bucket.unwrap_or(job.duration_s)
            }
            Estimate::Asked => job.asked_s.unwrap_or(0).max(job.duration_s),
        }
    }
}

impl Rule {
    /// That the rule means anything.
    ///
    /// # Errors
    /// What does not go together.
    pub fn check(self) -> Result<(), &'static str> {
        match (self.order, self.backfill) {
            (Order::Sjf | Order::Fair, Backfill::Conservative) => {
                Err("conservative promises at the submission, so its order is fifo")
            }
            (Order::Fifo, Backfill::Conservative)
            | (
                Order::Fifo | Order::Sjf | Order::Fair,
                Backfill::None | Backfill::Skip | Backfill::Easy | Backfill::Reserved(_),
            ) => Ok(()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, {}", self.order, self.backfill, self.estimate)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Fifo => "fifo",
            Order::Sjf => "sjf",
            Order::Fair => "fair",
        })
    }
}

impl fmt::Display for Backfill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backfill::None => f.write_str("none"),
            Backfill::Skip => f.write_str("skip"),
            Backfill::Easy => f.write_str("easy"),
            Backfill::Conservative => f.write_str("conservative"),
            Backfill::Reserved(promises) => write!(f, "reserved:{promises}"),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Estimate::Exact => "exact",
            Estimate::Bucketed => "bucketed",
            Estimate::Asked => "asked",
        })
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fifo" => Ok(Order::Fifo),
            "sjf" => Ok(Order::Sjf),
            "fair" => Ok(Order::Fair),
            _ => Err("must be fifo, sjf or fair".to_owned()),
        }
    }
}

impl FromStr for Backfill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let promises = text.strip_prefix("reserved:").and_then(|count| count.parse().ok());
        match (text, promises) {
            ("none", _) => Ok(Backfill::None),
            ("skip", _) => Ok(Backfill::Skip),
            ("easy", _) => Ok(Backfill::Easy),
            ("conservative", _) => Ok(Backfill::Conservative),
            (_, Some(promises)) => Ok(Backfill::Reserved(promises)),
            (_, None) => Err("must be none, skip, easy, conservative or reserved:COUNT".to_owned()),
        }
    }
}

impl FromStr for Estimate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exact" => Ok(Estimate::Exact),
            "bucketed" => Ok(Estimate::Bucketed),
            "asked" => Ok(Estimate::Asked),
            _ => Err("must be exact, bucketed or asked".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::TenantIndex;
    use super::*;
    use gotgan_core::amount::UnixMicros;

    fn job(duration_s: i64, asked_s: Option<i64>) -> TraceJob {
        let (id, submit, gpus, tenant) = (0, UnixMicros(0), 1, TenantIndex(0));
        TraceJob { id, submit, duration_s, asked_s, gpus, tenant }
    }

    #[test]
    fn an_estimate_is_never_less_than_the_truth() {
        let bucketed = |seconds| Estimate::Bucketed.of(&job(seconds, None));
        assert_eq!(
            [900, 901, 5_184_000, 5_184_001].map(bucketed),
            [900, 3_600, 5_184_000, 5_184_001]
        );
        assert_eq!(Estimate::Asked.of(&job(100, Some(3600))), 3600);
        assert_eq!(Estimate::Asked.of(&job(100, Some(60))), 100);
        assert_eq!(Estimate::Asked.of(&job(100, None)), 100);
    }

    #[test]
    fn every_rule_is_read_as_it_is_written() {
        for text in ["none", "skip", "easy", "conservative", "reserved:5"] {
            assert_eq!(text.parse::<Backfill>().unwrap().to_string(), text);
        }
        for text in ["fifo", "sjf", "fair"] {
            assert_eq!(text.parse::<Order>().unwrap().to_string(), text);
        }
        for text in ["exact", "bucketed", "asked"] {
            assert_eq!(text.parse::<Estimate>().unwrap().to_string(), text);
        }
        assert!(
            "reserved:".parse::<Backfill>().is_err() && "reserved:-1".parse::<Backfill>().is_err()
        );
    }
}
