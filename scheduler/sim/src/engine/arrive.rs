//! Jobs that streams bring: by the clock, or as many as keep a project asking for so much.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use gotgan_core::admit::{
    AdmitContext, CommandRequest, ConstraintsRequest, JobRequest, ResourcesRequest, WorkRequest,
    admit,
};
use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::ids::{IdempotencyKey, JobId, ProjectPath};
use gotgan_core::job::{Digest, JobState};
use gotgan_core::lifecycle::{self, Submission};
use gotgan_core::spec::{JobSpec, TaskLayout};
use gotgan_core::topology::Level;

use super::{Engine, Step};
use crate::draw::Draw;
use crate::record::{JobFacts, Origin, RefusedSubmission};
use crate::scenario::{Arrival, Duration, JobTerms, SizeFile, StreamFile, SubmitFile};
use crate::units::Span;
use crate::worker::Work;
use gotgan_core::fabric::CLUSTER_LABEL;

/// A stream for one project.
#[derive(Debug)]
pub(super) struct Source {
    stream: usize,
    project: ProjectPath,
    draw: Draw,
    /// Jobs so far.
    number: u64,
    /// The job that comes next.
    next: Drawn,
    /// GPUs of its jobs that are not over.
    asked: u64,
}

/// Size and length of a job.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    nodes: u32,
    gpus: u32,
    length: Span,
}

impl Drawn {
    fn total(self) -> u64 {
        u64::from(self.nodes) * u64::from(self.gpus)
    }
}

/// Sources, and which of them must be looked at.
#[derive(Debug, Default)]
pub(super) struct Sources {
    all: Vec<Source>,
    known: BTreeSet<(usize, ProjectPath)>,
    /// Jobs that count for a source that fills up.
    asked_by: BTreeMap<JobId, (usize, u64)>,
    /// Sources that may ask for more.
    short: BTreeSet<usize>,
}

/// A job on its way to the scheduler.
struct NewJob<'a> {
    origin: Origin,
    project: &'a ProjectPath,
    drawn: Drawn,
    terms: &'a JobTerms,
}

impl Engine<'_> {
    /// Every stream opens at its first moment.
    pub(super) fn schedule_streams(&mut self) {
        let setup = self.setup;
        for (index, stream) in setup.streams.iter().enumerate() {
            let from = stream.from.unwrap_or(setup.from);
            self.at(from.0, Step::Open(index));
        }
    }

    /// A stream begins with every project there is now; those that come later are taken up when they do.
    pub(super) fn open(&mut self, index: usize) {
        let setup = self.setup;
        let Some(stream) = setup.streams.get(index) else { return };
        let tree = Arc::clone(&self.world.quota);
        let leaves = tree.nodes.keys().filter(|path| is_of(stream, path) && tree.is_leaf(path));
        for project in leaves {
            if self.sources.known.insert((index, project.clone())) {
                self.add_source(index, stream, project);
            }
        }
    }

    fn add_source(&mut self, index: usize, stream: &StreamFile, project: &ProjectPath) {
        let name = format!("{}/{project}", stream.name);
        let mut draw = Draw::named(self.setup.seed, &name);
        let next = draw_job(&mut draw, stream);
        let (project, place) = (project.clone(), self.sources.all.len());
        let source = Source { stream: index, project, draw, number: 0, next, asked: 0 };
        self.sources.all.push(source);
        match stream.arrive {
            Arrival::FillGpus(_) | Arrival::FillGuaranteeMilli(_) => {
                self.sources.short.insert(place);
            }
            Arrival::Once(_) => self.at(self.now, Step::Arrive(place)),
            Arrival::Every(_) | Arrival::Poisson(_) => self.expect_next(place),
        }
    }

    fn expect_next(&mut self, place: usize) {
        let setup = self.setup;
        let Some(source) = self.sources.all.get_mut(place) else { return };
        let wait_ms = match setup.streams[source.stream].arrive {
            Arrival::Every(span) => span.as_millis(),
            Arrival::Poisson(wait) => {
                let drawn = source.draw.exponential(wait.mean.as_millis());
                in_steps(drawn, wait.step)
            }
            Arrival::Once(_) | Arrival::FillGpus(_) | Arrival::FillGuaranteeMilli(_) => return,
        };
        self.at(self.now.plus_millis(wait_ms), Step::Arrive(place));
    }

    pub(super) fn arrive(&mut self, place: usize) {
        let setup = self.setup;
        let Some(source) = self.sources.all.get(place) else { return };
        let stream = &setup.streams[source.stream];
        if is_over(stream, self.now) {
            return;
        }
        let jobs = match stream.arrive {
            Arrival::Once(jobs) => jobs,
            Arrival::Every(_)
            | Arrival::Poisson(_)
            | Arrival::FillGpus(_)
            | Arrival::FillGuaranteeMilli(_) => 1,
        };
        for _ in 0..jobs {
            self.submit_next(place);
        }
        self.expect_next(place);
    }

    /// Sources that fill up ask for more, as long as that is not too much.
    pub(super) fn fill(&mut self) {
        if std::mem::take(&mut self.dirty.tree) {
            self.look_at_the_tree();
        }
        for place in std::mem::take(&mut self.sources.short) {
            let most = self.most(place);
            self.draw_what_fits(place, most);
            while self.sources.all[place].asked + self.sources.all[place].next.total() <= most {
                if !self.submit_next(place) {
                    break;
                }
            }
        }
    }

    /// A source that asks for nothing and drew more than it may ever ask for draws again.
    fn draw_what_fits(&mut self, place: usize, most: u64) {
        let setup = self.setup;
        let source = &mut self.sources.all[place];
        let sizes = &setup.streams[source.stream].size;
        let possible = sizes
            .iter()
            .any(|size| size.weight > 0 && u64::from(size.nodes) * u64::from(size.gpus) <= most);
        while possible && source.asked == 0 && source.next.total() > most {
            source.next = draw_job(&mut source.draw, &setup.streams[source.stream]);
        }
    }

    fn look_at_the_tree(&mut self) {
        let setup = self.setup;
        for (index, stream) in setup.streams.iter().enumerate() {
            if stream.from.unwrap_or(setup.from).0 <= self.now && !is_over(stream, self.now) {
                self.open(index);
            }
        }
        self.sources.short.extend(0..self.sources.all.len());
    }

    /// GPUs that a source keeps asking for; none for one that goes by the clock.
    fn most(&self, place: usize) -> u64 {
        let source = &self.sources.all[place];
        let stream = &self.setup.streams[source.stream];
        let Some(node) = self.world.quota.nodes.get(&source.project) else { return 0 };
        if is_over(stream, self.now) || !self.world.quota.is_leaf(&source.project) {
            return 0;
        }
        match stream.arrive {
            Arrival::FillGpus(gpus) => u64::from(gpus),
            Arrival::FillGuaranteeMilli(milli) => {
                let class = stream.job.class.as_ref();
                let guarantee = class.and_then(|class| node.guarantees.get(class));
                let gpus = guarantee.map_or(0, |gpus| gpus.0 / GpuMilli::WHOLE.0);
                gpus * u64::from(milli) / 1000
            }
            Arrival::Once(_) | Arrival::Every(_) | Arrival::Poisson(_) => 0,
        }
    }

    /// Submits a source's next job; false if the scheduler refused it.
    fn submit_next(&mut self, place: usize) -> bool {
        let setup = self.setup;
        let source = &mut self.sources.all[place];
        let stream = &setup.streams[source.stream];
        source.number += 1;
        let drawn = std::mem::replace(&mut source.next, draw_job(&mut source.draw, stream));
        let project = source.project.clone();
        self.record.brought.insert(stream.name.clone());
        let origin = Origin::Stream {
            stream: stream.name.clone(),
            project: project.clone(),
            number: source.number,
        };
        let new = NewJob { origin, project: &project, drawn, terms: &stream.job };
        let Some(id) = self.submit(new) else { return false };
        self.sources.all[place].asked += drawn.total();
        self.sources.asked_by.insert(id, (place, drawn.total()));
        true
    }

    /// A job of a source is over.
    pub(super) fn no_longer_asked_for(&mut self, id: JobId) {
        let Some((place, gpus)) = self.sources.asked_by.remove(&id) else { return };
        let source = &mut self.sources.all[place];
        source.asked = source.asked.saturating_sub(gpus);
        self.sources.short.insert(place);
    }

    pub(super) fn submit_named(&mut self, submit: &SubmitFile) {
        let drawn = Drawn { nodes: submit.nodes, gpus: submit.gpus, length: submit.duration };
        let origin = Origin::Named(submit.name.clone());
        let new = NewJob { origin, project: &submit.project, drawn, terms: &submit.job };
        if let Some(id) = self.submit(new) {
            self.record.named.insert(submit.name.clone(), id);
        }
    }

    /// Submits a job as a client would; `None` if it was refused.
    fn submit(&mut self, new: NewJob<'_>) -> Option<JobId> {
        let context = AdmitContext {
            quota: Arc::clone(&self.world.quota),
            fleet: Arc::clone(&self.fleet),
            policy: Arc::clone(&self.policy),
        };
        let stored = match admit(request(&new), &context) {
            Ok(admitted) => self.store(admitted.spec),
            Err(faults) => Err(faults.first().map_or_else(String::new, ToString::to_string)),
        };
        match stored {
            Ok(id) => {
                self.remember(id, new);
                Some(id)
            }
            Err(reason) => {
                let (at, project) = (self.now, new.project.clone());
                self.record.refused.push(RefusedSubmission { at, project, reason });
                None
            }
        }
    }

    fn store(&mut self, spec: JobSpec) -> Result<JobId, String> {
        let key = format!("scenario-{}", self.world.sequences.next_job);
        let submission = Submission {
            owner: super::act::operator(),
            key: IdempotencyKey::new(&key).map_err(|error| error.to_string())?,
            digest: Digest(Arc::from("")),
            spec: Arc::new(spec),
            outcomes: BTreeMap::new(),
        };
        let stored = self.write(|draft| lifecycle::submit(draft, vec![submission]));
        let ids = stored.map_err(|(_, refusal)| refusal.to_string())?;
        ids.first().copied().ok_or_else(|| "no job was stored".to_owned())
    }

    fn remember(&mut self, id: JobId, new: NewJob<'_>) {
        let checkpoint_ms = new.terms.checkpoint.map(Span::as_millis);
        let work = Work { left_ms: new.drawn.length.as_millis(), checkpoint_ms };
        self.workers.work.insert(id, work);
        let facts = JobFacts {
            origin: new.origin,
            project: new.project.clone(),
            gpus: new.drawn.total(),
            submitted: self.now,
            starts: Vec::new(),
            ends: Vec::new(),
            last_started: 0,
            state: JobState::Pending,
        };
        self.record.jobs.insert(id, facts);
    }
}

fn is_of(stream: &StreamFile, path: &ProjectPath) -> bool {
    let below = |node: &ProjectPath| path.is_within(node.as_str());
    stream.project.as_ref() == Some(path) || stream.below.as_ref().is_some_and(below)
}

fn is_over(stream: &StreamFile, now: UnixMicros) -> bool {
    stream.until.is_some_and(|until| until.0 <= now)
}

fn word(level: Option<Level>) -> String {
    level.map_or_else(String::new, |level| level.word().to_owned())
}

/// The job as a client would ask for it.
fn request(new: &NewJob<'_>) -> JobRequest {
    let NewJob { origin, project, drawn, terms } = new;
    let name = match origin {
        Origin::Named(name) | Origin::Stream { stream: name, .. } => name.clone(),
    };
    let argv = vec!["simulated".to_owned()];
    let labels = terms.cluster.iter().map(|name| (CLUSTER_LABEL.to_owned(), name.to_string()));
    JobRequest {
        name,
        project: project.to_string(),
        work: Some(WorkRequest::Command(CommandRequest {
            argv,
            layout: Some(TaskLayout::PerNode),
        })),
        resources: ResourcesRequest {
            nodes: drawn.nodes,
            nodes_max: terms.nodes_max.map_or(0, NonZeroU32::get),
            gpus_per_node: drawn.gpus,
            gpu_class: terms.class.as_ref().map_or_else(String::new, ToString::to_string),
            ..ResourcesRequest::default()
        },
        constraints: ConstraintsRequest {
            labels: labels.collect(),
            same_cluster: terms.same_cluster,
            one: word(terms.one),
            prefer: word(terms.prefer),
            segment_nodes: terms.segment.map_or(0, NonZeroU32::get),
            segment_level: word(terms.segment_level),
            ..ConstraintsRequest::default()
        },
        time_limit_s: terms.time_limit.map_or(0, Span::whole_seconds),
        priority: terms.priority,
        requeue: terms.requeue,
        scavenger: terms.scavenger,
        grace_s: terms.grace.map(|grace| u32::try_from(grace.whole_seconds()).unwrap_or(u32::MAX)),
        ..JobRequest::default()
    }
}

fn draw_job(draw: &mut Draw, stream: &StreamFile) -> Drawn {
    let SizeFile { nodes, gpus, .. } = draw_size(draw, &stream.size);
    let length_ms = match stream.duration {
        Duration::Fixed(length) => length.as_millis(),
        Duration::Uniform(between) => {
            let step = between.step.as_millis();
            let (least, most) = (between.least.as_millis(), between.most.as_millis());
            least + draw.between(0, (most - least) / step) * step
        }
        Duration::Exponential(capped) => {
            let drawn = draw.exponential(capped.mean.as_millis()).min(capped.most.as_millis());
            in_steps(drawn, capped.step)
        }
    };
    Drawn { nodes, gpus, length: Span::millis(length_ms) }
}

fn draw_size(draw: &mut Draw, sizes: &[SizeFile]) -> SizeFile {
    let all: u64 = sizes.iter().map(|size| u64::from(size.weight)).sum();
    let mut at = draw.below(all);
    let chosen = sizes.iter().find(|size| {
        let here = at < u64::from(size.weight);
        at = at.saturating_sub(u64::from(size.weight));
        here
    });
    chosen.copied().unwrap_or(SizeFile { nodes: 1, gpus: 1, weight: 1 })
}

/// The next multiple of the step, at least one.
fn in_steps(millis: i64, step: Span) -> i64 {
    let step = step.as_millis();
    (millis / step + 1) * step
}
