//! The programs of a torment, the wires between them, and what befalls them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sqlx::{Connection, PgConnection};

use super::disk::Disk;
use super::evidence::Part;
use super::plan::{Fault, Harm, Shape, Target};
use super::quota;
use super::wire::{Condition, Wire};
use crate::api::Api;
use crate::cluster::{QUICK_TO_GIVE_UP, SchedulerProcess};
use crate::virtual_worker::session::now_us;
use crate::virtual_worker::{Journal, Play, Run, Script, VirtualWorker, inventory};
use crate::{Cluster, Database, process};
use gotgan_proto::v1::{self, ExitStatus, job_spec::Work};

/// Plants a bug in a scheduler.
const PLANTED_VARIABLE: &str = "GOTGAN_PLANTED_BUG";
/// GPUs of each node.
pub const GPUS: u32 = 4;
/// After a scheduler or its database is there again: until nodes have come back to it.
pub const COME_BACK: Duration = Duration::from_secs(4);
/// More than [`QUICK_TO_GIVE_UP`]: nobody is safe from preemption, gangs are planned for at once, and nothing waits long for
/// a quorum.
const SETTINGS: &str = "\
quorum_grace_ms = 1500
confirm_within_ms = 3000

[policy]
min_runtime_before_preemption_s = 0
planned_gangs_after_s = 0
";

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    cluster: Cluster,
    second: Option<SchedulerProcess>,
    virtuals: Vec<VirtualWorker>,
    /// Of each worker, of each virtual worker and of each client, one to every scheduler.
    wires: BTreeMap<Target, Vec<Wire>>,
    disk: Option<Disk>,
    shape: Shape,
    random: StdRng,
    /// When nodes could not be told what to do.
    apart: BTreeMap<String, Vec<(i64, i64)>>,
    /// Schedulers that were killed and are not to be started by whoever keeps them.
    down: Vec<bool>,
    /// How often a program ended by itself and was started again.
    restarts: BTreeMap<String, u32>,
}

impl Stage {
    /// Starts everything, with files below `directory`.
    pub async fn set(
        seed: u64,
        database: Database,
        shape: Shape,
        planted: Option<&str>,
        directory: &Path,
    ) -> Self {
        let data = directory.join("data");
        let disk = if shape.disk { Disk::mount(&data) } else { None };
        let mut builder = Cluster::builder(database).directory(directory).data(&data);
        if let Some(bug) = planted {
            builder = builder.variable(PLANTED_VARIABLE, bug);
        }
        let settings = format!("{QUICK_TO_GIVE_UP}{SETTINGS}");
        let tree = quota::tree(quota::LIMITS[0]);
        let mut cluster = builder.settings(&settings).quota(&tree).start().await;
        let second = (shape.schedulers > 1).then(|| cluster.add_standby());
        let mut stage = Self {
            shape: Shape { disk: disk.is_some(), ..shape },
            down: vec![false; shape.schedulers],
            random: StdRng::seed_from_u64(seed),
            virtuals: Vec::new(),
            wires: BTreeMap::new(),
            apart: BTreeMap::new(),
            restarts: BTreeMap::new(),
            cluster,
            second,
            disk,
        };
        for number in 0..shape.workers {
            stage.add_worker(number).await;
        }
        for number in 0..shape.virtuals {
            stage.add_virtual(number).await;
        }
        for number in 0..shape.clients {
            stage.wire(Target::Client(number)).await;
        }
        stage
    }

    /// What of the wanted shape there is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The API by each scheduler, over nobody's wire.
    #[must_use]
    pub fn apis(&self) -> Vec<Api> {
        self.scheduler_urls().iter().map(|url| self.cluster.api_at(url)).collect()
    }

    /// The API by each scheduler, over the wires of a client.
    #[must_use]
    pub fn apis_of(&self, client: usize) -> Vec<Api> {
        self.urls(Target::Client(client)).iter().map(|url| self.cluster.api_at(url)).collect()
    }

    fn scheduler_urls(&self) -> Vec<String> {
        let second = self.second.iter().map(SchedulerProcess::url);
        std::iter::once(self.cluster.scheduler.url()).chain(second).collect()
    }

    async fn wire(&mut self, end: Target) {
        let mut wires = Vec::new();
        for url in self.scheduler_urls() {
            let (_, address) = url.split_once("://").unwrap_or_default();
            wires.push(Wire::to(address).await);
        }
        self.wires.insert(end, wires);
    }

    fn urls(&self, end: Target) -> Vec<String> {
        let wires = self.wires.get(&end).into_iter().flatten();
        wires.map(|wire| format!("https://{}", wire.address())).collect()
    }

    async fn add_worker(&mut self, number: usize) {
        let target = Target::Worker(number);
        self.wire(target).await;
        let (urls, gpus) = (self.urls(target), format!("{GPUS}xB200"));
        self.cluster.add_worker_by(urls, &node(target), &gpus, "").await;
    }

    async fn add_virtual(&mut self, number: usize) {
        let target = Target::Virtual(number);
        self.wire(target).await;
        let (name, urls) = (node(target), self.urls(target));
        let (first, others) = urls.split_first().expect("there is a scheduler");
        let link = self.cluster.link(&name).await.at(first).also_at(others);
        let journal = Journal::new(inventory(&name, quota::CLASS, GPUS), Script::by(play));
        self.virtuals.push(VirtualWorker::start(link, journal));
        self.cluster.api.wait_for_node(&name, v1::NodeLiveness::Ready).await;
    }

    /// It begins.
    pub async fn befall(&mut self, fault: &Fault) {
        let target = fault.target;
        match (target, fault.harm) {
            (Target::Scheduler(number), Harm::Kill) => {
                self.down[number] = true;
                self.scheduler(number).kill();
            }
            (Target::Scheduler(number), _) => self.scheduler(number).pause(),
            (Target::Worker(_), Harm::Kill) => self.cluster.worker(&node(target)).kill(),
            (Target::Worker(_), Harm::Pause) => self.cluster.worker(&node(target)).pause(),
            (Target::Worker(_), Harm::PowerCut) => self.cluster.worker(&node(target)).kill_node(),
            (Target::Worker(_), Harm::KillShim) => self.kill_a_shim(target),
            (Target::Virtual(number), Harm::Silence) => self.virtuals[number].cut(),
            (Target::Virtual(number), Harm::Reinstall) => self.virtuals[number].lose_everything(),
            (Target::Server, _) => crash(self.cluster.database()).await,
            (Target::Disk, _) => self.disk.iter().for_each(Disk::fill),
            (_, Harm::Wires(condition) | Harm::WiresThenCut(condition)) => {
                self.wires[&target].iter().for_each(|wire| wire.set(condition));
            }
            // No other is drawn.
            (Target::Worker(_) | Target::Virtual(_) | Target::Client(_), _) => {}
        }
        self.keep_apart(fault);
    }

    /// Its end: what was harmed is made sound.
    pub fn heal(&mut self, fault: &Fault) {
        let target = fault.target;
        match (target, fault.harm) {
            (Target::Scheduler(number), Harm::Kill) => {
                self.down[number] = false;
                self.scheduler(number).spawn();
            }
            (Target::Scheduler(number), _) => self.scheduler(number).resume(),
            (Target::Worker(_), Harm::Kill | Harm::PowerCut) => {
                self.cluster.worker(&node(target)).restart();
            }
            (Target::Worker(_), Harm::Pause) => self.cluster.worker(&node(target)).resume(),
            (Target::Virtual(number), Harm::Silence | Harm::Reinstall) => {
                self.virtuals[number].connect();
            }
            (Target::Disk, _) => self.disk.iter().for_each(Disk::empty),
            (_, Harm::Wires(_)) => {
                self.wires[&target].iter().for_each(|wire| wire.set(Condition::SOUND));
            }
            (_, Harm::WiresThenCut(_)) => {
                for wire in &self.wires[&target] {
                    wire.cut();
                    wire.set(Condition::SOUND);
                }
            }
            (Target::Worker(_) | Target::Virtual(_) | Target::Client(_) | Target::Server, _) => {}
        }
    }

    /// Starts again what has ended by itself, as whoever keeps it does.
    pub fn tend(&mut self) {
        for number in 0..self.shape.schedulers {
            let ended = !self.down[number] && self.scheduler(number).ended().is_some();
            if ended {
                *self.restarts.entry(format!("scheduler {number}")).or_default() += 1;
                self.scheduler(number).spawn();
            }
        }
        for number in 0..self.shape.workers {
            let name = node(Target::Worker(number));
            if self.cluster.worker(&name).ended().is_some() {
                *self.restarts.entry(name.clone()).or_default() += 1;
                self.cluster.worker(&name).restart();
            }
        }
    }

    /// Programs that ended by themselves, and how often.
    #[must_use]
    pub fn restarts(&self) -> &BTreeMap<String, u32> {
        &self.restarts
    }

    /// Kills every scheduler and starts it again.
    pub fn restart_schedulers(&mut self) {
        for number in 0..self.shape.schedulers {
            self.scheduler(number).kill();
        }
        for number in 0..self.shape.schedulers {
            self.scheduler(number).spawn();
        }
    }

    fn scheduler(&mut self, number: usize) -> &mut SchedulerProcess {
        match (number, &mut self.second) {
            (1, Some(second)) => second,
            _ => &mut self.cluster.scheduler,
        }
    }

    fn kill_a_shim(&mut self, target: Target) {
        let shims = self.cluster.worker(&node(target)).job_processes();
        let shims: Vec<u32> =
            shims.into_iter().filter(|id| process::name(*id) == "gotgan-shim").collect();
        shims.choose(&mut self.random).copied().into_iter().for_each(process::kill);
    }

    fn keep_apart(&mut self, fault: &Fault) {
        let from_us = now_us();
        let until = fault.lasts + COME_BACK;
        let until_us = from_us + i64::try_from(until.as_micros()).unwrap_or(i64::MAX);
        let nodes = match fault.target {
            Target::Worker(_) | Target::Virtual(_) => vec![node(fault.target)],
            Target::Scheduler(_) | Target::Server | Target::Disk => self.nodes(),
            Target::Client(_) => Vec::new(),
        };
        for node in nodes {
            self.apart.entry(node).or_default().push((from_us, until_us));
        }
    }

    /// Names of all nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let workers = (0..self.shape.workers).map(Target::Worker);
        workers.chain((0..self.shape.virtuals).map(Target::Virtual)).map(node).collect()
    }

    /// When nodes could not be told what to do.
    #[must_use]
    pub fn apart(&self) -> &BTreeMap<String, Vec<(i64, i64)>> {
        &self.apart
    }

    /// What virtual workers ran.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        self.virtuals.iter().flat_map(VirtualWorker::runs).collect()
    }
}

fn node(target: Target) -> String {
    match target {
        Target::Worker(number) => format!("node-{number}"),
        Target::Virtual(number) => format!("v{number}"),
        Target::Scheduler(_) | Target::Client(_) | Target::Server | Target::Disk => String::new(),
    }
}

/// What a real job does, on a timer.
fn play(order: &v1::RunAttempt) -> Play {
    let argv = match order.spec.as_ref().and_then(|spec| spec.work.as_ref()) {
        Some(Work::Command(command)) => Part::read(&command.argv),
        Some(Work::Script(_)) | None => None,
    };
    argv.map_or(Play::Forever, |part| {
        Play::Run(part.lasts, ExitStatus { code: part.code.into(), signal: 0 })
    })
}

/// Kills one of the server's processes for this database: the server ends all of them and recovers from its log.
async fn crash(database: &Database) {
    let Some(url) = database.url() else { return };
    let Ok(mut connection) = PgConnection::connect(&url).await else { return };
    let query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()";
    let found: Result<Vec<i32>, _> = sqlx::query_scalar(query).fetch_all(&mut connection).await;
    let ids = found.unwrap_or_default().into_iter().filter_map(|id| u32::try_from(id).ok());
    // A server elsewhere has processes of other numbers.
    let here = ids.filter(|id| process::name(*id).starts_with("postgres"));
    here.take(1).for_each(process::kill);
}
