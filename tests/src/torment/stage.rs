//! The programs of a torment, the wires between them, and what befalls them.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::certificates::{Authority, BRIEF, LONG, Life, Rejoining};
use super::disk::Disk;
use super::driver::{self, Driver};
use super::evidence::Part;
use super::history::WrongClock;
use super::plan::{Fault, GPUS, Harm, Program, Shape, Target};
use super::quota;
use super::wire::{Condition, Wire};
use crate::api::Api;
use crate::cluster::{QUICK_TO_GIVE_UP, SchedulerProcess};
use crate::libc_faults::{self, LibcFaults};
use crate::virtual_worker::session::now_us;
use crate::virtual_worker::{Journal, Play, Run, Script, VirtualWorker, inventory};
use crate::{Cluster, Database, process};
use gotgan_proto::v1::{self, ExitStatus, job_spec::Work};

/// Plants a bug in a scheduler.
const PLANTED_VARIABLE: &str = "GOTGAN_PLANTED_BUG";
/// Names the file that says what is wrong below the database server, where that was started so that something can be.
const SERVER_FAULTS_VARIABLE: &str = "GOTGAN_TEST_POSTGRES_FAULTS";
/// After a scheduler or its database is there again: until nodes have come back to it.
pub const COME_BACK: Duration = Duration::from_secs(4);
/// Until a worker that joined anew is there again: its node is not heard first, and it tries less and less often.
const REJOIN: Duration = Duration::from_secs(15);
/// More than [`QUICK_TO_GIVE_UP`]: nobody is safe from preemption, gangs are planned for at once, nothing waits long for a
/// quorum, and GPUs that are well again are soon believed.
const SETTINGS: &str = "\
quorum_grace_ms = 1500
confirm_within_ms = 3000

[policy]
min_runtime_before_preemption_s = 0
planned_gangs_after_s = 0

[policy.health]
verify_s = 1
slowdown_s = 1
breaker_percent = 100
";

/// What is wrong below the database server, where something can be.
#[must_use]
pub fn server_faults() -> Option<PathBuf> {
    env::var_os(SERVER_FAULTS_VARIABLE).map(PathBuf::from)
}

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
    /// What is wrong below each program.
    beneath: BTreeMap<Program, LibcFaults>,
    /// The library that brings it about.
    library: PathBuf,
    authority: Authority,
    /// Of the first workers.
    drivers: Vec<Driver>,
    wrong_clocks: Vec<WrongClock>,
    /// Workers that need new certificates. Given up when this is dropped.
    rejoining: JoinSet<()>,
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
        let library = libc_faults::place(directory);
        let beneath = beneath(&shape, directory);
        let variables = |program: &Program| beneath[program].variables(&library);
        for (name, value) in variables(&Program::Scheduler(0)) {
            builder = builder.variable(&name, &value);
        }
        let settings = format!("{QUICK_TO_GIVE_UP}{SETTINGS}");
        let tree = quota::tree(quota::LIMITS[0]);
        let mut cluster = builder.settings(&settings).quota(&tree).start().await;
        let authority = Authority::of(&cluster.scheduler.directory().join("tls"));
        let settings = certify(&authority, &certificate_of(cluster.directory(), 0));
        cluster.scheduler.kill();
        cluster.scheduler.configure(&settings);
        cluster.scheduler.start();
        let second = (shape.schedulers > 1).then(|| {
            let settings = certify(&authority, &certificate_of(cluster.directory(), 1));
            cluster.add_standby_with(&variables(&Program::Scheduler(1)), &settings)
        });
        let mut stage = Self {
            shape: Shape { disk: disk.is_some(), ..shape },
            down: vec![false; shape.schedulers],
            random: StdRng::seed_from_u64(seed),
            virtuals: Vec::new(),
            wires: BTreeMap::new(),
            apart: BTreeMap::new(),
            restarts: BTreeMap::new(),
            drivers: Vec::new(),
            wrong_clocks: Vec::new(),
            rejoining: JoinSet::new(),
            beneath,
            library,
            authority,
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
        let (urls, name) = (self.urls(target), node(target));
        let variables = self.beneath[&Program::Worker(number)].variables(&self.library);
        let (mut gpus, mut settings) = (format!("{GPUS}xB200"), "");
        if number < self.shape.drivers {
            let directory = self.cluster.directory().join(format!("driver-{name}"));
            let driver = Driver::place(directory, &name);
            (gpus, settings) = (driver.library().display().to_string(), driver::WORKER_SETTINGS);
            self.drivers.push(driver);
        }
        self.cluster.add_worker_by(urls, &name, &gpus, settings, &variables).await;
    }

    async fn add_virtual(&mut self, number: usize) {
        let target = Target::Virtual(number);
        self.wire(target).await;
        let (name, urls) = (node(target), self.urls(target));
        let (first, others) = urls.split_first().expect("there is a scheduler");
        let link = self.cluster.link(&name).await.at(first).also_at(others);
        let journal = Journal::new(inventory(&name, quota::CLASS, GPUS as u32), Script::by(play));
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
            (Target::Scheduler(number), Harm::Expire) => {
                self.scheduler(number).kill();
                self.certify_scheduler(number, BRIEF);
                self.scheduler(number).spawn();
            }
            (Target::Scheduler(number), _) => self.scheduler(number).pause(),
            (Target::Worker(_), Harm::Expire) => {
                self.cluster.worker(&node(target)).kill();
                self.certify_worker(target);
                self.cluster.worker(&node(target)).restart();
            }
            (Target::Clock(program), Harm::Step(by_ms)) => self.step_clock(program, by_ms, fault),
            (Target::Syncs(program), Harm::Slow(by)) => self.beneath[&program].slow_syncs(by),
            (Target::Gpus(worker), Harm::LoseGpu(gpu)) => self.drivers[worker].lose(gpu),
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
            (Target::Worker(_) | Target::Virtual(_) | Target::Client(_), _)
            | (Target::Clock(_) | Target::Syncs(_) | Target::Gpus(_), _) => {}
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
            (Target::Scheduler(number), Harm::Expire) => {
                // Whoever comes back before the new one is there finds the one that ran out.
                self.wires.values().filter_map(|wires| wires.get(number)).for_each(Wire::cut);
                self.certify_scheduler(number, LONG);
            }
            (Target::Scheduler(number), _) => self.scheduler(number).resume(),
            (Target::Worker(_), Harm::Expire) => self.rejoin(target),
            (Target::Clock(program), _) => self.beneath[&program].step_clock(0),
            (Target::Syncs(program), _) => self.beneath[&program].slow_syncs(Duration::ZERO),
            (Target::Gpus(worker), _) => self.drivers[worker].find(),
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

    fn certify_scheduler(&self, number: usize, lasts: Duration) {
        let path = certificate_of(self.cluster.directory(), number);
        self.authority.certify_scheduler(&path, lasts);
    }

    fn certify_worker(&mut self, target: Target) {
        let name = node(target);
        let state = self.cluster.worker(&name).state_directory().to_owned();
        self.authority.certify_worker(&name, &state, Life::lasting(BRIEF));
    }

    /// Throws a worker out whose certificate ran out, and has it join anew.
    fn rejoin(&mut self, target: Target) {
        self.wires[&target].iter().for_each(Wire::cut);
        let (node, urls, ca) = (node(target), self.urls(target), self.cluster.scheduler.ca_path());
        let state = self.cluster.worker(&node).state_directory().to_owned();
        let rejoining = Rejoining { node, urls, ca, state };
        self.rejoining.spawn(rejoining.join(self.apis()));
    }

    fn step_clock(&mut self, program: Program, by_ms: i64, fault: &Fault) {
        self.beneath[&program].step_clock(by_ms);
        let from_us = now_us();
        let until_us = from_us + i64::try_from(fault.lasts.as_micros()).unwrap_or(i64::MAX);
        let node = match program {
            Program::Worker(number) => Some(node(Target::Worker(number))),
            Program::Scheduler(_) | Program::Server => None,
        };
        let by_us = by_ms.saturating_mul(1_000);
        self.wrong_clocks.push(WrongClock { from_us, until_us, by_us, node });
    }

    /// Clocks that were off.
    #[must_use]
    pub fn wrong_clocks(&self) -> &[WrongClock] {
        &self.wrong_clocks
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

    /// Ends everything of a node and starts it again; of a virtual one nothing needs that.
    pub fn reboot(&mut self, name: &str) {
        let workers = (0..self.shape.workers).map(|number| node(Target::Worker(number)));
        if workers.into_iter().any(|worker| worker == name) {
            let worker = self.cluster.worker(name);
            worker.kill_node();
            worker.restart();
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
        let until = match (fault.target, fault.harm) {
            (Target::Worker(_), Harm::Expire) => fault.lasts + REJOIN,
            _ => fault.lasts + COME_BACK,
        };
        let until_us = from_us + i64::try_from(until.as_micros()).unwrap_or(i64::MAX);
        let nodes = match fault.target {
            Target::Worker(_) | Target::Virtual(_) => vec![node(fault.target)],
            Target::Scheduler(_) | Target::Server | Target::Disk => self.nodes(),
            Target::Syncs(Program::Worker(number)) => vec![node(Target::Worker(number))],
            Target::Syncs(_) | Target::Clock(Program::Scheduler(_)) => self.nodes(),
            Target::Client(_) | Target::Clock(_) | Target::Gpus(_) => Vec::new(),
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

/// One for each program, and what whoever started the database server has made for it.
fn beneath(shape: &Shape, directory: &Path) -> BTreeMap<Program, LibcFaults> {
    let schedulers = (0..shape.schedulers).map(Program::Scheduler);
    let programs = schedulers.chain((0..shape.workers).map(Program::Worker)).enumerate();
    let path = |number: usize| directory.join(format!("libc-faults-{number}"));
    let mut beneath: BTreeMap<_, _> =
        programs.map(|(number, program)| (program, LibcFaults::at(&path(number)))).collect();
    let server = server_faults().filter(|_| shape.slow_server);
    beneath.extend(server.map(|path| (Program::Server, LibcFaults::at(&path))));
    beneath
}

/// Not on the disk that may be full.
fn certificate_of(directory: &Path, scheduler: usize) -> PathBuf {
    directory.join(format!("scheduler-{scheduler}.pem"))
}

/// Makes a scheduler's certificate; gives the settings that name it.
fn certify(authority: &Authority, path: &Path) -> String {
    authority.certify_scheduler(path, LONG);
    authority.settings(path)
}

fn node(target: Target) -> String {
    match target {
        Target::Worker(number) => format!("node-{number}"),
        Target::Virtual(number) => format!("v{number}"),
        Target::Scheduler(_)
        | Target::Client(_)
        | Target::Server
        | Target::Disk
        | Target::Clock(_)
        | Target::Syncs(_)
        | Target::Gpus(_) => String::new(),
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
