//! Does a scenario contradict itself? Names that are used and not there, moments outside of it, bounds without a use.

use std::collections::BTreeSet;

use gotgan_core::ids::{ClusterName, NodeName, ProjectPath};
use gotgan_core::topology::Level;

use super::Setup;
use crate::fault::{ScenarioFault, Source};
use crate::fleet;
use crate::scenario::{
    About, Arrival, Duration, EventAction, EventFile, ExpectFile, JobTerms, MaintainFile, Query,
    Scalar, ScenarioFile, Selection, SizeFile, StreamFile,
};
use crate::units::{Moment, Span};

/// GPUs of one node, and nodes of one cluster: more is a slip.
const GPUS_PER_NODE_MAX: u32 = 64;
const NODES_MAX: u32 = 100_000;

/// Everything wrong with the file alone.
pub(super) fn faults(file: &ScenarioFile, source: Source<'_>) -> Vec<ScenarioFault> {
    let mut check = Check { file, source, at: 0, section: String::new(), faults: Vec::new() };
    check.whole();
    check.clusters();
    for stream in &file.stream {
        check.at = stream.span().start;
        check.section = format!("stream \"{}\"", stream.as_ref().name);
        check.stream(stream.as_ref());
    }
    for event in &file.event {
        check.at = event.span().start;
        check.section = "event".to_owned();
        check.event(event.as_ref());
    }
    for expect in &file.expect {
        check.at = expect.span().start;
        check.section = "expect".to_owned();
        check.expect(expect.as_ref());
    }
    check.faults
}

/// Nodes of the quota tree that are looked at and are in no quota file: a misspelt one would always be found to be
/// nothing.
pub(super) fn unknown_nodes(setup: &Setup, source: Source<'_>) -> Vec<ScenarioFault> {
    let of_streams =
        setup.streams.iter().flat_map(|stream| stream.project.iter().chain(&stream.below));
    let of_expects = setup.expects.iter().filter_map(|expect| node_of(&expect.value));
    let unknown: BTreeSet<&ProjectPath> =
        of_streams.chain(of_expects).filter(|node| !setup.books.know(node)).collect();
    let place = |node: &ProjectPath| source.text.find(&format!("\"{node}\"")).unwrap_or(0);
    let fault = |node: &ProjectPath| {
        source.fault(place(node), "node", format!("{node} is in no quota file of this scenario"))
    };
    unknown.into_iter().map(fault).collect()
}

fn node_of(query: &Query) -> Option<&ProjectPath> {
    match query.about() {
        About::Node(of) => Some(&of.node),
        About::Jobs(of) => of.node.as_ref(),
        About::Told(of) => Some(&of.node),
        About::Loans(of) => Some(&of.lender),
        About::Since(_) | About::Job(_) | About::Event(_) | About::Book | About::Reservation(_) => {
            None
        }
    }
}

struct Check<'a> {
    file: &'a ScenarioFile,
    source: Source<'a>,
    /// Where what is looked at begins.
    at: usize,
    /// What that is called.
    section: String,
    faults: Vec<ScenarioFault>,
}

impl Check<'_> {
    fn require(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            let key = if self.section.is_empty() {
                key.to_owned()
            } else {
                format!("{}: {key}", self.section)
            };
            self.faults.push(self.source.fault(self.at, &key, message));
        }
    }

    fn whole(&mut self) {
        let file = self.file;
        self.require(file.from < file.until, "until", "must come after `from`");
        self.require(!file.cluster.is_empty(), "cluster", "there must be one at least");
        for name in file.compare.iter().flat_map(|compare| &compare.without) {
            let known = file.event.iter().any(|event| event.as_ref().name.as_ref() == Some(name));
            self.require(known, "compare.without", format!("no event is named \"{name}\""));
        }
    }

    fn clusters(&mut self) {
        let mut names = BTreeSet::new();
        for cluster in &self.file.cluster {
            let name = &cluster.name;
            self.require(names.insert(name), "cluster.name", format!("{name} is there twice"));
            let gpus = (1..=GPUS_PER_NODE_MAX).contains(&cluster.gpus_per_node);
            let text = format!("of {name} must be 1 to {GPUS_PER_NODE_MAX}");
            self.require(gpus, "cluster.gpus_per_node", text);
            let nodes = cluster.nodes.saturating_add(cluster.spare_nodes);
            let text = format!("of {name} must be 1 to {NODES_MAX}, spare ones included");
            self.require((1..=NODES_MAX).contains(&nodes), "cluster.nodes", text);
            let own = !cluster.blocks.contains_key(&Level::Cluster);
            let text =
                format!("of {name}: all of its nodes are of one cluster, the one of that name");
            self.require(own, "cluster.blocks.cluster", text);
        }
    }

    fn stream(&mut self, stream: &StreamFile) {
        let same = self.file.stream.iter().filter(|other| other.as_ref().name == stream.name);
        self.require(same.count() == 1, "name", "another stream has it too");
        let one = stream.project.is_some() != stream.below.is_some();
        self.require(one, "project", "give either `project` or `below`");
        self.require(!stream.size.is_empty(), "size", "there must be one at least");
        let weight: u64 = stream.size.iter().map(|size| u64::from(size.weight)).sum();
        self.require(weight > 0, "size", "one must have a weight above 0");
        for size in &stream.size {
            self.size(size.nodes, size.gpus);
        }
        self.duration(stream.duration);
        self.arrival(stream.arrive, stream);
        self.terms(&stream.job);
        for moment in stream.from.iter().chain(&stream.until) {
            self.within(*moment, "from, until");
        }
    }

    fn size(&mut self, nodes: u32, gpus: u32) {
        self.require(nodes > 0 && gpus > 0, "nodes, gpus", "must be 1 at least");
    }

    fn duration(&mut self, duration: Duration) {
        let (least, step) = match duration {
            Duration::Fixed(length) => (length, Span::millis(1)),
            Duration::Uniform(between) => {
                let ordered = between.least <= between.most;
                self.require(ordered, "duration", "`least` must not be above `most`");
                (between.least, between.step)
            }
            Duration::Exponential(capped) => (capped.mean, capped.step),
        };
        let positive = least.as_millis() > 0 && step.as_millis() > 0;
        self.require(positive, "duration", "lengths and steps must be above 0");
    }

    fn arrival(&mut self, arrival: Arrival, stream: &StreamFile) {
        match arrival {
            Arrival::Once(_) | Arrival::FillGpus(_) => {}
            Arrival::Every(span) => {
                self.require(span.as_millis() > 0, "arrive.every", "must be above 0");
            }
            Arrival::Poisson(wait) => {
                let positive = wait.mean.as_millis() > 0 && wait.step.as_millis() > 0;
                self.require(positive, "arrive.poisson", "must be above 0");
            }
            Arrival::FillGuaranteeMilli(_) => {
                let text = "needs `job.class`: a guarantee is of a class";
                self.require(stream.job.class.is_some(), "arrive.fill_guarantee_milli", text);
            }
        }
    }

    fn terms(&mut self, terms: &JobTerms) {
        if let Some(name) = &terms.cluster {
            self.require(
                self.has_cluster(name),
                "job.cluster",
                format!("no cluster {name} is there"),
            );
        }
        let checkpoint = terms.checkpoint.is_none_or(|every| every.as_millis() > 0);
        self.require(checkpoint, "job.checkpoint", "must be above 0");
    }

    fn has_cluster(&self, name: &ClusterName) -> bool {
        self.file.cluster.iter().any(|cluster| cluster.name == *name)
    }

    fn within(&mut self, at: Moment, key: &str) {
        let (from, until) = (self.file.from, self.file.until);
        let text = format!("{at} is not within the scenario, {from} to {until}");
        self.require((from..=until).contains(&at), key, text);
    }

    fn event(&mut self, event: &EventFile) {
        self.within(event.at, "at");
        let named = |other: &EventFile| other.name.is_some() && other.name == event.name;
        let same = self.file.event.iter().filter(|other| named(other.as_ref())).count();
        self.require(same <= 1, "name", "another event has it too");
        match &event.action {
            EventAction::Submit(submit) => {
                let SizeFile { nodes, gpus, .. } =
                    SizeFile { nodes: submit.nodes, gpus: submit.gpus, weight: 1 };
                self.size(nodes, gpus);
                self.terms(&submit.job);
                let same = self.submitted().filter(|name| *name == submit.name).count();
                self.require(same == 1, "do.submit.name", "another job has it too");
            }
            EventAction::Cancel(name) => self.job("do.cancel", name),
            EventAction::Lose(node)
            | EventAction::Return(node)
            | EventAction::Drain(node)
            | EventAction::Resume(node) => {
                self.node("do", node);
            }
            EventAction::Maintain(maintain) => self.maintain(event, maintain),
            EventAction::Apply(_)
            | EventAction::Plan(_)
            | EventAction::Accept(_)
            | EventAction::Restart => {}
        }
    }

    fn node(&mut self, key: &str, node: &NodeName) {
        let known = fleet::has_node(&self.file.cluster, node);
        self.require(known, key, format!("no cluster has a node {node}"));
    }

    fn maintain(&mut self, event: &EventFile, maintain: &MaintainFile) {
        for node in &maintain.nodes {
            self.node("do.maintain.nodes", node);
        }
        self.require(!maintain.nodes.is_empty(), "do.maintain.nodes", "there must be one at least");
        let length = maintain.duration.as_millis() >= 1000;
        self.require(length, "do.maintain.duration", "must be 1s at least");
        let later = maintain.from.is_none_or(|from| from >= event.at);
        self.require(later, "do.maintain.from", "must not come before `at`");
    }

    fn submitted(&self) -> impl Iterator<Item = &str> {
        self.file.event.iter().filter_map(|event| match &event.as_ref().action {
            EventAction::Submit(submit) => Some(submit.name.as_str()),
            EventAction::Cancel(_)
            | EventAction::Apply(_)
            | EventAction::Plan(_)
            | EventAction::Accept(_)
            | EventAction::Lose(_)
            | EventAction::Return(_)
            | EventAction::Drain(_)
            | EventAction::Resume(_)
            | EventAction::Maintain(_)
            | EventAction::Restart => None,
        })
    }

    fn job(&mut self, key: &str, name: &str) {
        let known = self.submitted().any(|other| other == name);
        self.require(known, key, format!("no event submits a job \"{name}\""));
    }

    fn expect(&mut self, expect: &ExpectFile) {
        if let Some(at) = expect.at {
            self.within(at, "at");
        }
        let compares =
            expect.equals_counterfactual || expect.at_most_counterfactual_milli.is_some();
        let bounded =
            expect.equals.is_some() || expect.at_most.is_some() || expect.at_least.is_some();
        let text = "give equals, at_most or at_least, or compare with the counterfactual";
        self.require(bounded || compares, "equals", text);
        let moved = matches!(expect.value, Query::MovedStarts(_));
        let there = self.file.compare.is_some() || !(compares || moved);
        self.require(
            there,
            "value",
            "needs a [compare] that says what the counterfactual leaves out",
        );
        let word = matches!(expect.equals, Some(Scalar::Word(_)));
        let state = matches!(expect.value, Query::State(_));
        let plain =
            word == (state && expect.equals.is_some()) && !(state && expect.at_most.is_some());
        self.require(plain, "equals", "a state is a word, all else is a number");
        if let Query::State(of) = &expect.value {
            self.job("value.state.job", &of.job);
        }
        if let Query::StartDelayMs(delay) = &expect.value {
            let possible = (1..=100).contains(&delay.percentile);
            self.require(possible, "value.start_delay_ms.percentile", "must be 1 to 100");
        }
        match expect.value.about() {
            About::Jobs(of) => self.selection(of),
            About::Event(of) => self.applies(&of.event),
            About::Node(_)
            | About::Since(_)
            | About::Job(_)
            | About::Book
            | About::Told(_)
            | About::Loans(_)
            | About::Reservation(_) => {}
        }
    }

    fn applies(&mut self, name: &str) {
        let known = self.file.event.iter().map(|event| event.as_ref()).any(|event| {
            event.name.as_deref() == Some(name) && matches!(event.action, EventAction::Apply(_))
        });
        self.require(known, "value.changed.event", format!("no event \"{name}\" applies files"));
    }

    fn selection(&mut self, of: &Selection) {
        if let Some(name) = &of.job {
            self.job("value: job", name);
        }
        if let Some(name) = &of.stream {
            let known = self.file.stream.iter().any(|stream| stream.as_ref().name == *name);
            self.require(known, "value: stream", format!("no stream is named \"{name}\""));
        }
    }
}
