//! What an expectation looks at, as it is at this moment.

use gotgan_core::alert::{Alert, AlertKind};
use gotgan_core::amount::{GpuMilli, GpuMilliSeconds, UnixMicros};
use gotgan_core::attempt::Cause;
use gotgan_core::job::JobState;
use gotgan_core::planner;
use gotgan_core::quota::QuotaBook;
use gotgan_core::quota::audit::edits;
use gotgan_core::quota::entitle::{Entitlements, NodeIndex};
use gotgan_core::quota::loan::LoanTerms;
use gotgan_core::quota::reserve::ReservationTerms;

use super::Engine;
use crate::expect::Found;
use crate::meter::{Booked, Parts};
use crate::record::{JobFacts, Origin};
use crate::scenario::{
    About, Delay, EventFile, Ledger, NodeClass, Query, ReservationOnly, Selection, Since, TellingOf,
};

impl Engine<'_> {
    pub(super) fn sample(&mut self, index: usize) {
        let setup = self.setup;
        if let Some(expect) = setup.expects.get(index) {
            let found = self.find(index, &expect.value);
            self.found.insert(index, found);
        }
    }

    fn find(&self, index: usize, query: &Query) -> Found {
        match query {
            Query::Guaranteed(of) => self.due_of(of, Entitlements::scaled_guarantee),
            Query::Entitled(of) => self.due_of(of, |due, node| due.of(node).entitled),
            Query::Held(of) => whole_gpus(self.world.usage.held(of.node.as_str(), &of.class)),
            Query::Running(of) => self.count(of, |job| job.state.is_active()),
            Query::Waiting(of) => {
                self.count(of, |job| matches!(job.state, JobState::Pending | JobState::Held))
            }
            Query::Starts(of) => {
                let starts = self.selected(of).flat_map(|job| &job.starts);
                number(starts.filter(|at| is_between(of, **at)).count())
            }
            Query::StartDelayMs(delay) => self.start_delay(delay),
            Query::RestartDelayMs(of) => {
                let delays = self.selected(of).flat_map(|job| job.restart_delays_ms(self.now));
                let longest = delays.filter(|(at, _)| is_between(of, *at)).map(|(_, ms)| ms).max();
                Found::Number(longest.unwrap_or(0))
            }
            Query::Preempted(of) => self.ends(of, |cause| cause == Cause::Preempted),
            Query::Stopped(of) => self.ends(of, |cause| {
                !matches!(cause, Cause::User | Cause::Limit | Cause::OutOfMemory)
            }),
            Query::MovedStarts(of) => self.first_starts(of),
            Query::ChargedGpuS(of) => self.booked(of, |booked| booked.charged),
            Query::OveruseGpuS(of) => self.booked(of, |booked| booked.overuse),
            Query::RefundedGpuS(of) => self.booked(of, |booked| booked.refunded),
            Query::LostWorkGpuMs(of) => self.lost_work(of),
            Query::IdleGpuMs(of) => wide(self.parts_since(index, of).idle),
            Query::ReservedIdleGpuMs(of) => wide(self.parts_since(index, of).reserved),
            Query::LentGpuS(of) => {
                let loans = self.world.book.loans.values().filter(|loan| {
                    loan.class == of.class && loan.lender.is_within(of.lender.as_str())
                });
                gpu_seconds(loans.map(LoanTerms::gpu_time).sum())
            }
            Query::ReservedGpuS(of) => self.reserved(of, |_, terms| terms.gpu_time()),
            Query::OwnGpuS(of) => self.reserved(of, QuotaBook::own_gpu_time),
            Query::IdleShareMilli(of) => {
                let parts = self.parts_since(index, of);
                wide(parts.idle * 1000 / parts.capacity.max(1))
            }
            Query::State(of) => {
                let id = self.record.named.get(&of.job);
                let job = id.and_then(|id| self.record.jobs.get(id));
                Found::Word(job.map_or("refused", |job| job.state.word()).to_owned())
            }
            Query::Associations(of) => number(self.moved.associations(of.verdict)),
            Query::MovedInGpuS(of) => wide(self.moved.used(&of.node)),
            Query::Changed(of) => number(self.changed_by(&of.event)),
            Query::Drift(_) => number(edits(&self.world.book, self.files).len()),
            Query::Alerts(of) => {
                number(self.record.alerts.iter().filter(|alert| is_told(of, alert)).count())
            }
        }
    }

    /// Things that were changed by an event; none before it happened.
    fn changed_by(&self, name: &str) -> usize {
        let named = |event: &EventFile| event.name.as_deref() == Some(name);
        let index = self.setup.events.iter().position(named);
        index.and_then(|index| self.record.changed.get(&index)).copied().unwrap_or(0)
    }

    fn reserved(
        &self,
        of: &ReservationOnly,
        what: impl Fn(&QuotaBook, &ReservationTerms) -> GpuMilliSeconds,
    ) -> Found {
        let book = &self.world.book;
        let terms = book.reservations.get(&of.reservation);
        gpu_seconds(terms.map(|terms| what(book, terms)).unwrap_or_default())
    }

    /// What became of a class by now is what an expectation over some time begins from.
    pub(super) fn mark(&mut self, index: usize) {
        let setup = self.setup;
        let since = setup.expects.get(index).and_then(|expect| since(&expect.value));
        if let Some(since) = since {
            let parts = self.meter.totals().remove(&since.class).unwrap_or_default();
            self.marks.insert(index, parts);
        }
    }

    /// What became of a class since the expectation's first moment.
    fn parts_since(&self, index: usize, of: &Since) -> Parts {
        let now = self.meter.totals().remove(&of.class).unwrap_or_default();
        now.without(&self.marks.get(&index).copied().unwrap_or_default())
    }

    fn due_of(&self, of: &NodeClass, what: impl Fn(&Entitlements, NodeIndex) -> GpuMilli) -> Found {
        let due = planner::entitlements(&self.world, self.now);
        let gpus =
            due.get(&of.class).and_then(|due| Some(what(due, due.arena().find(of.node.as_str())?)));
        whole_gpus(gpus.unwrap_or_default())
    }

    /// Jobs of a selection, whenever they were submitted.
    fn selected<'a>(&'a self, of: &'a Selection) -> impl Iterator<Item = &'a JobFacts> {
        self.record.jobs.values().filter(|job| is_selected(of, job))
    }

    /// Those submitted within its window.
    fn submitted<'a>(&'a self, of: &'a Selection) -> impl Iterator<Item = &'a JobFacts> {
        self.selected(of).filter(|job| is_between(of, job.submitted))
    }

    fn count(&self, of: &Selection, counts: impl Fn(&JobFacts) -> bool) -> Found {
        number(self.submitted(of).filter(|job| counts(job)).count())
    }

    fn ends(&self, of: &Selection, counts: impl Fn(Cause) -> bool) -> Found {
        let ends = self.selected(of).flat_map(|job| &job.ends);
        number(ends.filter(|end| is_between(of, end.at) && counts(end.cause)).count())
    }

    /// The delay of the job at that place, if they stand in the order of their delays.
    fn start_delay(&self, delay: &Delay) -> Found {
        let now = self.now;
        let mut delays: Vec<i64> =
            self.submitted(&delay.of).map(|job| job.start_delay_ms(now)).collect();
        delays.sort_unstable();
        let place = (delays.len() * delay.percentile as usize).div_ceil(100);
        Found::Number(place.checked_sub(1).and_then(|at| delays.get(at)).copied().unwrap_or(0))
    }

    fn first_starts(&self, of: &Selection) -> Found {
        let second = |job: &JobFacts| job.starts.first().map(|at| at.whole_seconds());
        Found::Starts(self.submitted(of).map(|job| (job.origin.clone(), second(job))).collect())
    }

    /// Thousandths of GPU-seconds as GPU-seconds.
    fn booked(&self, ledger: &Ledger, what: impl Fn(&Booked) -> u128) -> Found {
        let jobs = self.record.jobs.iter().filter(|(_, job)| {
            is_selected(&ledger.of, job) && is_between(&ledger.of, job.submitted)
        });
        let milli: u128 =
            jobs.map(|(id, _)| what(&self.meter.booked(*id, ledger.class.as_ref()))).sum();
        wide(milli / 1000)
    }

    fn lost_work(&self, of: &Selection) -> Found {
        let lost = self.selected(of).flat_map(|job| job.ends.iter().map(move |end| (job, end)));
        let lost = lost.filter(|(_, end)| is_between(of, end.at));
        let amount = |(job, end): (&JobFacts, &crate::record::AttemptEnd)| {
            u128::from(job.gpus) * u128::try_from(end.lost_ms).unwrap_or(0)
        };
        wide(lost.map(amount).sum())
    }
}

/// Over which time an expectation looks at a class, if it does.
pub(super) fn since(query: &Query) -> Option<&Since> {
    match query.about() {
        About::Since(since) => Some(since),
        About::Node(_)
        | About::Jobs(_)
        | About::Job(_)
        | About::Event(_)
        | About::Book
        | About::Told(_)
        | About::Loans(_)
        | About::Reservation(_) => None,
    }
}

fn is_selected(of: &Selection, job: &JobFacts) -> bool {
    let named = |name: &String| matches!(&job.origin, Origin::Named(own) if own == name);
    let brought =
        |name: &String| matches!(&job.origin, Origin::Stream { stream, .. } if stream == name);
    of.job.as_ref().is_none_or(named)
        && of.stream.as_ref().is_none_or(brought)
        && of.node.as_ref().is_none_or(|node| job.project.is_within(node.as_str()))
}

/// Whether somebody was told what is asked about; that a larger budget changed nothing is not.
fn is_told(of: &TellingOf, alert: &Alert) -> bool {
    alert.kind == AlertKind::Passed
        && alert.node == of.node
        && of.percent.is_none_or(|percent| alert.percent == percent)
        && of.from.is_none_or(|from| from.0 <= alert.at)
        && of.until.is_none_or(|until| alert.at < until.0)
}

fn is_between(of: &Selection, at: UnixMicros) -> bool {
    of.from.is_none_or(|from| from.0 <= at) && of.until.is_none_or(|until| at < until.0)
}

fn number(count: usize) -> Found {
    Found::Number(i64::try_from(count).unwrap_or(i64::MAX))
}

fn wide(amount: u128) -> Found {
    Found::Number(i64::try_from(amount).unwrap_or(i64::MAX))
}

fn gpu_seconds(time: GpuMilliSeconds) -> Found {
    Found::Number(time.0 / 1000)
}

fn whole_gpus(gpus: GpuMilli) -> Found {
    wide(u128::from(gpus.0 / GpuMilli::WHOLE.0))
}
