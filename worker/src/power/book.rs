//! Which GPU is to have which limit: for every GPU what it has without a cap, and who holds it with which.
//!
//! Of several attempts that share a GPU the lowest cap holds.

use std::collections::{BTreeMap, BTreeSet};

use super::Rest;
use super::setter::{Answer, Setting};
use crate::held::AttemptKey;

/// Limits of all GPUs.
#[derive(Debug, Default)]
pub(super) struct Book {
    gpus: BTreeMap<String, Gpu>,
}

#[derive(Debug)]
struct Gpu {
    rest: Rest,
    /// Caps, milliwatts.
    caps_mw: BTreeMap<AttemptKey, u32>,
}

impl Gpu {
    fn limit_mw(&self) -> u32 {
        // A cap above what the GPU has anyway lifts nothing.
        let lowest = self.caps_mw.values().copied().min();
        lowest.map_or(self.rest.limit_mw, |cap| cap.min(self.rest.limit_mw))
    }
}

impl Book {
    /// Nobody holds any.
    pub fn of(rest: BTreeMap<String, Rest>) -> Self {
        let gpu = |(uuid, rest)| (uuid, Gpu { rest, caps_mw: BTreeMap::new() });
        Self { gpus: rest.into_iter().map(gpu).collect() }
    }

    /// GPUs that have a cap or may have one left from before.
    pub fn known(&self) -> BTreeSet<String> {
        let concerned = |gpu: &Gpu| gpu.rest.touched || !gpu.caps_mw.is_empty();
        let known = self.gpus.iter().filter(|(_, gpu)| concerned(gpu));
        known.map(|(uuid, _)| uuid.clone()).collect()
    }

    /// From now on an attempt holds these GPUs with a cap.
    pub fn hold(&mut self, key: AttemptKey, uuids: &BTreeSet<String>, cap_mw: u32) {
        for (uuid, gpu) in &mut self.gpus {
            if uuids.contains(uuid) {
                gpu.caps_mw.insert(key, cap_mw);
            }
        }
    }

    /// The attempt holds nothing any more; gives the GPUs that it had with a cap.
    pub fn release(&mut self, key: AttemptKey) -> BTreeSet<String> {
        let gpus = self.gpus.iter_mut();
        let released =
            gpus.filter_map(|(uuid, gpu)| gpu.caps_mw.remove(&key).map(|_| uuid.clone()));
        released.collect()
    }

    /// What these GPUs are to have.
    pub fn settings(&self, uuids: &BTreeSet<String>) -> Vec<Setting> {
        let wanted = self.gpus.iter().filter(|(uuid, _)| uuids.contains(*uuid));
        wanted
            .map(|(uuid, gpu)| Setting { uuid: uuid.clone(), limit_mw: Some(gpu.limit_mw()) })
            .collect()
    }

    /// These are about to be set.
    pub fn touch(&mut self, wanted: &[Setting]) {
        for setting in wanted {
            if let Some(gpu) = self.gpus.get_mut(&setting.uuid) {
                gpu.rest.touched = true;
            }
        }
    }

    /// These are as they should be: those that nobody caps are as they were.
    pub fn settle(&mut self, wanted: &[Setting]) {
        for setting in wanted {
            if let Some(gpu) = self.gpus.get_mut(&setting.uuid) {
                gpu.rest.touched = !gpu.caps_mw.is_empty();
            }
        }
    }

    /// What is to be written down: GPUs that may have something else than what they have without a cap.
    pub fn touched(&self) -> BTreeMap<String, u32> {
        let touched = self.gpus.iter().filter(|(_, gpu)| gpu.rest.touched);
        touched.map(|(uuid, gpu)| (uuid.clone(), gpu.rest.limit_mw)).collect()
    }

    /// Whether every GPU that was to be set was, and none may draw more than its cap.
    ///
    /// # Errors
    /// The first that is not so, for a person.
    pub fn judge(&self, wanted: &[Setting], found: &[Answer]) -> Result<(), String> {
        for Setting { uuid, limit_mw } in wanted {
            let limit_mw = limit_mw.unwrap_or(u32::MAX);
            let Some(answer) = found.iter().find(|answer| answer.uuid == *uuid) else {
                return Err(format!("the driver did not answer for the power limit of GPU {uuid}"));
            };
            if let Some(why) = &answer.error {
                let watts = limit_mw / 1_000;
                return Err(format!("GPU {uuid} does not take a power limit of {watts} W: {why}"));
            }
            let capped = self.gpus.get(uuid).is_some_and(|gpu| !gpu.caps_mw.is_empty());
            if capped && answer.enforced_mw > limit_mw {
                let [cap, enforced] = [limit_mw, answer.enforced_mw].map(watts);
                return Err(format!("GPU {uuid} was capped at {cap} W and may draw {enforced} W"));
            }
        }
        Ok(())
    }
}

/// As in "500" or "500.5".
fn watts(mw: u32) -> String {
    match mw % 1_000 {
        0 => (mw / 1_000).to_string(),
        rest => format!("{}.{:03}", mw / 1_000, rest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn book(touched: bool) -> Book {
        let rest = Rest { limit_mw: 700_000, touched };
        Book::of([("GPU-1".to_owned(), rest), ("GPU-2".to_owned(), rest)].into())
    }

    fn one() -> BTreeSet<String> {
        BTreeSet::from(["GPU-1".to_owned()])
    }

    fn limit(book: &Book) -> u32 {
        book.settings(&one())[0].limit_mw.unwrap()
    }

    fn answer(enforced_mw: u32, error: Option<&str>) -> Answer {
        let error = error.map(str::to_owned);
        Answer { uuid: "GPU-1".to_owned(), before_mw: 700_000, enforced_mw, error }
    }

    #[test]
    fn of_attempts_that_share_a_gpu_the_lowest_cap_holds_until_it_is_gone() {
        let mut book = book(false);
        let (first, second) = (AttemptKey::new(1, 1), AttemptKey::new(2, 1));
        book.hold(first, &one(), 500_000);
        assert_eq!(limit(&book), 500_000);
        book.hold(second, &one(), 400_000);
        assert_eq!(limit(&book), 400_000);
        assert_eq!(book.release(second), one());
        assert_eq!(limit(&book), 500_000);
        assert_eq!(book.release(first), one());
        assert_eq!(limit(&book), 700_000);
        assert!(book.release(first).is_empty());
    }

    #[test]
    fn a_cap_above_what_a_gpu_may_draw_anyway_lifts_nothing() {
        let mut book = book(false);
        book.hold(AttemptKey::new(1, 1), &one(), 900_000);
        assert_eq!(limit(&book), 700_000);
    }

    #[test]
    fn what_may_be_capped_is_written_down_until_it_is_known_not_to_be() {
        let mut book = book(false);
        let key = AttemptKey::new(1, 1);
        assert!(book.touched().is_empty());
        book.hold(key, &one(), 500_000);
        let wanted = book.settings(&one());
        book.touch(&wanted);
        assert_eq!(book.touched(), [("GPU-1".to_owned(), 700_000)].into());
        book.settle(&wanted);
        assert_eq!(book.touched().len(), 1, "it is held");
        book.release(key);
        assert_eq!(book.touched().len(), 1, "it is not known to be as it was");
        book.settle(&book.settings(&one()));
        assert!(book.touched().is_empty());
    }

    #[test]
    fn what_an_earlier_daemon_left_is_known_and_goes_back() {
        let book = book(true);
        assert_eq!(book.known().len(), 2);
        assert_eq!(limit(&book), 700_000);
    }

    #[test]
    fn a_gpu_that_refuses_or_may_draw_more_than_its_cap_is_told() {
        let mut book = book(false);
        let judged = |book: &Book, answer: &[Answer]| book.judge(&book.settings(&one()), answer);
        judged(&book, &[answer(700_000, None)]).unwrap();
        book.hold(AttemptKey::new(1, 1), &one(), 500_000);
        judged(&book, &[answer(500_000, None)]).unwrap();
        judged(&book, &[answer(450_000, None)]).unwrap();
        let refused = judged(&book, &[answer(0, Some("no permission (code 4)"))]).unwrap_err();
        assert_eq!(
            refused,
            "GPU GPU-1 does not take a power limit of 500 W: no permission (code 4)"
        );
        let above = judged(&book, &[answer(500_500, None)]).unwrap_err();
        assert_eq!(above, "GPU GPU-1 was capped at 500 W and may draw 500.500 W");
        assert!(judged(&book, &[]).unwrap_err().contains("did not answer"));
    }
}
