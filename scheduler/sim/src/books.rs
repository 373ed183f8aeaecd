//! The quota books of a run: the one it begins with, and what each event makes of it, found before anything runs.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{LotName, ProjectPath};
use gotgan_core::quota::{QuotaBook, parse};

use crate::fault::ScenarioFault;
use crate::scenario::AcceptFile;
use crate::setup::{BookStep, QuotaTexts};
use crate::units::Moment;

/// Quota books by the event that applies them.
#[derive(Debug)]
pub struct Books {
    /// At the beginning.
    pub first: QuotaBook,
    /// From an event on, by its place in the file.
    pub after: BTreeMap<usize, QuotaBook>,
    /// What the files alone say that an event applies, without batches accepted by command.
    pub files: BTreeMap<usize, QuotaBook>,
    /// What came of plans, by the event that makes them.
    pub planned: BTreeMap<usize, Planned>,
}

/// What came of a plan.
#[derive(Debug)]
pub enum Planned {
    /// It could be applied, as was expected.
    Accepted(Box<QuotaBook>),
    /// It was refused, as was expected.
    Refused,
    /// Not what was expected, in words.
    Otherwise(String),
}

impl Books {
    /// Follows the steps in the order of time, those left out excepted.
    ///
    /// # Errors
    /// What is wrong with the quota files at the first step at which anything is.
    pub fn of(
        first: &QuotaTexts,
        steps: &BTreeMap<(Moment, usize), BookStep<'_>>,
        left_out: &BTreeSet<usize>,
    ) -> Result<Self, Vec<ScenarioFault>> {
        let mut texts = first.clone();
        let mut accepted = BTreeMap::new();
        let first = book_of(&texts, &accepted)?;
        let (mut after, mut files) = (BTreeMap::new(), BTreeMap::new());
        let mut planned = BTreeMap::new();
        for ((at, index), step) in steps.iter().filter(|((_, index), _)| !left_out.contains(index))
        {
            match step {
                BookStep::Apply { texts: more, replaces, apply } => {
                    let applied = with(&texts, more, *replaces);
                    let alone = book_of(&applied, &BTreeMap::new())?;
                    let as_it_is = apply.as_written || accepted.is_empty();
                    let book = if as_it_is { alone.clone() } else { book_of(&applied, &accepted)? };
                    after.insert(*index, book);
                    files.insert(*index, alone);
                    if apply.refused.is_none() {
                        texts = applied;
                    }
                }
                BookStep::Plan(more, replaces, refused) => {
                    let book = book_of(&with(&texts, more, *replaces), &accepted);
                    planned.insert(*index, plan_of(book, refused));
                }
                BookStep::Accept(AcceptFile { lot, batch }) => {
                    accepted.insert((lot.clone(), *batch), at.0);
                    after.insert(*index, book_of(&texts, &accepted)?);
                }
            }
        }
        Ok(Books { first, after, files, planned })
    }

    /// Whether any of them has that node of the tree.
    #[must_use]
    pub fn know(&self, node: &ProjectPath) -> bool {
        std::iter::once(&self.first)
            .chain(self.after.values())
            .any(|book| book.nodes.contains_key(node))
    }
}

/// The texts with more of them.
fn with(texts: &QuotaTexts, more: &QuotaTexts, replaces: bool) -> QuotaTexts {
    let mut all = if replaces { QuotaTexts::new() } else { texts.clone() };
    all.extend(more.clone());
    all
}

/// What came of a plan, held against what must be said of it.
fn plan_of(book: Result<QuotaBook, Vec<ScenarioFault>>, refused: &[String]) -> Planned {
    let faults = match book {
        Ok(book) if refused.is_empty() => return Planned::Accepted(Box::new(book)),
        Ok(_) => return Planned::Otherwise("the plan was accepted".to_owned()),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    match refused.iter().find(|text| !faults.contains(*text)) {
        None if !refused.is_empty() => Planned::Refused,
        None => Planned::Otherwise(format!("the plan was refused: {faults}")),
        Some(text) => Planned::Otherwise(format!("the plan does not say \"{text}\": {faults}")),
    }
}

/// The book of these texts, with the batches that were accepted meanwhile.
fn book_of(
    texts: &QuotaTexts,
    accepted: &BTreeMap<(LotName, usize), UnixMicros>,
) -> Result<QuotaBook, Vec<ScenarioFault>> {
    let texts: Vec<(String, String)> =
        texts.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
    let faults = |faults: Vec<_>| faults.into_iter().map(ScenarioFault::from).collect::<Vec<_>>();
    let mut book = parse(&texts).map_err(faults)?;
    for ((lot, batch), at) in accepted {
        let place = batch
            .checked_sub(1)
            .and_then(|place| book.lots.get_mut(lot).and_then(|lot| lot.batches.get_mut(place)));
        let Some(place) = place else {
            return Err(vec![no_such_batch(lot, *batch)]);
        };
        place.accepted = Some(place.accepted.map_or(*at, |stated| stated.min(*at)));
    }
    Ok(book)
}

fn no_such_batch(lot: &LotName, batch: usize) -> ScenarioFault {
    ScenarioFault {
        file: "event".to_owned(),
        line: 0,
        key: "do.accept".to_owned(),
        message: format!("the quota files have no batch {batch} of a lot {lot}"),
    }
}
