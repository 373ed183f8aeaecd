//! From what the site asks for and what the machine can to what is applied to every attempt, and what is missing. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::cgroup::CgroupSpec;
use super::config::{ConfinementConfig, Mode, Tmp, UsersConfig};
use super::devices::{self, Device};
use super::machine::{CgroupPlace, Machine};
use super::spec::{Confinement, Namespaces, PrivateTmp, UnixUser};

/// One way in which an attempt is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// All its processes are in one cgroup, and end with it.
    Cgroup,
    /// It cannot have more memory than it asked for.
    MemoryLimit,
    /// It cannot have more CPU time than it asked for.
    CpuLimit,
    /// It cannot have more processes than the site allows.
    ProcessLimit,
    /// It sees its own processes, mounts and shared memory alone.
    Namespaces,
    /// Its `/tmp` is its own.
    PrivateTmp,
    /// It cannot open GPUs that are not its own.
    DeviceFilter,
    /// None of its programs makes its user more than they are.
    NoNewPrivileges,
    /// It runs as a user that is not the worker's.
    OwnUser,
}

impl Measure {
    /// All of them, in the order they are shown in.
    pub const ALL: [Measure; 9] = [
        Measure::Cgroup,
        Measure::MemoryLimit,
        Measure::CpuLimit,
        Measure::ProcessLimit,
        Measure::Namespaces,
        Measure::PrivateTmp,
        Measure::DeviceFilter,
        Measure::NoNewPrivileges,
        Measure::OwnUser,
    ];

    /// For listings.
    pub fn word(self) -> &'static str {
        match self {
            Measure::Cgroup => "cgroup",
            Measure::MemoryLimit => "memory limit",
            Measure::CpuLimit => "CPU limit",
            Measure::ProcessLimit => "process limit",
            Measure::Namespaces => "namespaces",
            Measure::PrivateTmp => "private /tmp",
            Measure::DeviceFilter => "device filter",
            Measure::NoNewPrivileges => "no new privileges",
            Measure::OwnUser => "own user",
        }
    }
}

/// What else decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The state directory lies below `/tmp`, where a private one would hide it.
    pub state_below_tmp: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// As asked for.
    pub mode: Mode,
    /// Applied to every attempt.
    pub applied: BTreeSet<Measure>,
    /// Asked for and not to be had, with the reason as a fragment for a person.
    pub missing: BTreeMap<Measure, String>,
    /// Tasks can run as others than the worker.
    pub root: bool,
    config: ConfinementConfig,
    cgroup: Option<CgroupPlace>,
}

/// Decides.
pub fn plan(
    config: &ConfinementConfig,
    users: &UsersConfig,
    machine: &Machine,
    circumstances: &Circumstances,
) -> Plan {
    let (mut applied, mut missing) = (BTreeSet::new(), BTreeMap::new());
    let asking = Asking { config, users, machine, circumstances };
    for measure in Measure::ALL.into_iter().filter(|measure| asking.wants(*measure)) {
        match asking.can(measure) {
            Ok(()) => drop(applied.insert(measure)),
            Err(why) => drop(missing.insert(measure, why)),
        }
    }
    let cgroup = machine.cgroup.clone().ok().filter(|_| applied.contains(&Measure::Cgroup));
    let (mode, root, config) = (config.mode, machine.root, config.clone());
    Plan { mode, applied, missing, root, config, cgroup }
}

struct Asking<'a> {
    config: &'a ConfinementConfig,
    users: &'a UsersConfig,
    machine: &'a Machine,
    circumstances: &'a Circumstances,
}

impl Asking<'_> {
    fn wants(&self, measure: Measure) -> bool {
        let config = self.config;
        let wanted = match measure {
            Measure::Cgroup | Measure::OwnUser => true,
            Measure::MemoryLimit => config.memory_limit,
            Measure::CpuLimit => config.cpu_limit,
            Measure::ProcessLimit => config.processes_max > 0,
            Measure::Namespaces => config.namespaces,
            Measure::PrivateTmp => config.tmp != Tmp::Shared,
            Measure::DeviceFilter => config.device_filter,
            Measure::NoNewPrivileges => config.no_new_privileges,
        };
        wanted && config.mode != Mode::Off
    }

    fn can(&self, measure: Measure) -> Result<(), String> {
        match measure {
            Measure::Cgroup => self.place().map(drop),
            Measure::MemoryLimit => self.controller("memory"),
            Measure::CpuLimit => self.controller("cpu"),
            Measure::ProcessLimit => self.controller("pids"),
            Measure::Namespaces => self.machine.namespaces.clone(),
            Measure::PrivateTmp => self.private_tmp(),
            Measure::DeviceFilter => {
                self.place().map(drop).and_then(|()| self.machine.device_filter.clone())
            }
            Measure::NoNewPrivileges => Ok(()),
            Measure::OwnUser => self.own_user(),
        }
    }

    fn place(&self) -> Result<&CgroupPlace, String> {
        self.machine.cgroup.as_ref().map_err(Clone::clone)
    }

    fn controller(&self, name: &str) -> Result<(), String> {
        let place = self.place().map_err(|_| "there is no cgroup".to_owned())?;
        match place.controllers.contains(name) {
            true => Ok(()),
            false => Err(format!("no {name} controller in {}", place.root.display())),
        }
    }

    fn private_tmp(&self) -> Result<(), String> {
        if !self.config.namespaces || self.machine.namespaces.is_err() {
            return Err("there are no namespaces".into());
        }
        match self.circumstances.state_below_tmp {
            true => Err("state_directory lies below /tmp and would be hidden".into()),
            false => Ok(()),
        }
    }

    fn own_user(&self) -> Result<(), String> {
        match (self.machine.root, self.users.is_complete()) {
            (true, true) => Ok(()),
            (true, false) => Err("tasks run as root and can undo the rest; see [users]".into()),
            (false, _) => Err("the worker is not root: all tasks run as its user".into()),
        }
    }
}

/// What is to be known of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptNeeds {
    /// Name of its cgroup, no other's on this machine.
    pub cgroup_name: String,
    /// CPUs it asked for; 0: it did not say.
    pub cpu_milli: u64,
    /// Memory it asked for; 0: it did not say.
    pub memory_mib: u64,
    /// Nodes of its GPUs.
    pub devices: BTreeSet<Device>,
    /// Text of `/proc/devices`.
    pub device_table: String,
    /// Who it runs as, if not as the worker.
    pub user: Option<UnixUser>,
}

impl Plan {
    /// Nothing is applied and nothing was asked for.
    pub fn off() -> Self {
        let config = ConfinementConfig { mode: Mode::Off, ..Default::default() };
        let (users, machine) = (UsersConfig::default(), Machine::unable("not looked at"));
        plan(&config, &users, &machine, &Circumstances::default())
    }

    /// Why the worker must not run like this, if it must not.
    pub fn refusal(&self) -> Option<String> {
        let refused = self.mode == Mode::Required && !self.missing.is_empty();
        refused.then(|| self.sentences().join("; "))
    }

    /// What is missing, a sentence each, without a full stop.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |(measure, why): (&Measure, &String)| format!("{}: {why}", measure.word());
        self.missing.iter().map(sentence).collect()
    }

    /// What is applied, a word each.
    pub fn words(&self) -> Vec<String> {
        self.applied.iter().map(|measure| measure.word().to_owned()).collect()
    }

    /// What is applied to this attempt.
    pub fn of_attempt(&self, needs: AttemptNeeds) -> Confinement {
        let has = |measure| self.applied.contains(&measure);
        Confinement {
            cgroup: self.cgroup.as_ref().map(|place| self.cgroup_of(place, &needs)),
            namespaces: has(Measure::Namespaces).then(|| Namespaces { tmp: self.tmp() }),
            devices: has(Measure::DeviceFilter)
                .then(|| devices::rules(&needs.devices, &needs.device_table)),
            no_new_privileges: has(Measure::NoNewPrivileges),
            user: needs.user,
            give_up_ms: self.config.give_up_s.saturating_mul(1000),
        }
    }

    fn cgroup_of(&self, place: &CgroupPlace, needs: &AttemptNeeds) -> CgroupSpec {
        let limit = |measure, amount: u64| {
            (self.applied.contains(&measure) && amount > 0).then_some(amount)
        };
        CgroupSpec {
            path: place.root.join(Path::new(&needs.cgroup_name)),
            born_inside: place.born_inside,
            memory_max_bytes: limit(Measure::MemoryLimit, needs.memory_mib)
                .map(|mib| mib.saturating_mul(1 << 20)),
            cpu_milli: limit(Measure::CpuLimit, needs.cpu_milli),
            processes_max: limit(Measure::ProcessLimit, self.config.processes_max),
            own_root: place.own,
        }
    }

    fn tmp(&self) -> PrivateTmp {
        match (self.applied.contains(&Measure::PrivateTmp), self.config.tmp) {
            (true, Tmp::Disk) => PrivateTmp::Disk,
            (true, Tmp::Memory) => PrivateTmp::Memory,
            (true, Tmp::Shared) | (false, _) => PrivateTmp::Shared,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn machine(controllers: &[&str]) -> Machine {
        let controllers = controllers.iter().map(|&name| name.to_owned()).collect();
        let root = "/sys/fs/cgroup/jobs".into();
        let place = CgroupPlace { root, own: false, controllers, born_inside: true };
        Machine { root: true, cgroup: Ok(place), namespaces: Ok(()), device_filter: Ok(()) }
    }

    fn users() -> UsersConfig {
        UsersConfig { default: "jobs".into(), ..Default::default() }
    }

    fn plan_of(config: &ConfinementConfig, machine: &Machine) -> Plan {
        plan(config, &users(), machine, &Circumstances::default())
    }

    #[test]
    fn a_machine_that_can_all_lacks_nothing_and_an_attempt_gets_what_it_asked_for() {
        let config = ConfinementConfig { mode: Mode::Required, ..Default::default() };
        let plan = plan_of(&config, &machine(&["memory", "cpu", "pids"]));
        assert_eq!((plan.applied.len(), plan.refusal()), (Measure::ALL.len(), None));
        let needs = AttemptNeeds {
            cgroup_name: "n1.7.1".into(),
            cpu_milli: 2500,
            memory_mib: 3,
            ..Default::default()
        };
        let confinement = plan.of_attempt(needs);
        let cgroup = confinement.cgroup.unwrap();
        assert_eq!(cgroup.path, Path::new("/sys/fs/cgroup/jobs/n1.7.1"));
        assert_eq!((cgroup.memory_max_bytes, cgroup.cpu_milli), (Some(3 << 20), Some(2500)));
        assert_eq!(cgroup.processes_max, Some(32_768));
        assert_eq!(confinement.namespaces, Some(Namespaces { tmp: PrivateTmp::Disk }));
        assert!(confinement.devices.is_some() && confinement.no_new_privileges);
    }

    #[test]
    fn what_is_missing_is_said_and_refused_only_where_all_is_required() {
        let mut config = ConfinementConfig::default();
        let lame = machine(&["cpu"]);
        let plan = plan_of(&config, &lame);
        let missing: Vec<_> = plan.missing.keys().copied().collect();
        assert_eq!(missing, [Measure::MemoryLimit, Measure::ProcessLimit]);
        assert_eq!(plan.refusal(), None);
        let limits = plan.of_attempt(AttemptNeeds { memory_mib: 9, ..Default::default() });
        assert_eq!(limits.cgroup.unwrap().memory_max_bytes, None);
        config.mode = Mode::Required;
        let refusal = plan_of(&config, &lame).refusal().unwrap();
        assert!(refusal.contains("memory limit: no memory controller in /sys"), "{refusal}");
        (config.memory_limit, config.processes_max) = (false, 0);
        assert_eq!(plan_of(&config, &lame).refusal(), None);
    }

    #[test]
    fn without_a_cgroup_there_are_neither_limits_nor_a_device_filter() {
        let no_cgroup = Machine { cgroup: Err("no v2".into()), ..machine(&[]) };
        let plan = plan_of(&ConfinementConfig::default(), &no_cgroup);
        assert_eq!(plan.missing[&Measure::DeviceFilter], "no v2");
        assert_eq!(plan.missing[&Measure::CpuLimit], "there is no cgroup");
        let confinement = plan.of_attempt(AttemptNeeds::default());
        assert_eq!((confinement.cgroup, confinement.devices), (None, None));
    }

    #[test]
    fn a_state_directory_below_tmp_keeps_tmp_shared_and_that_is_said() {
        let circumstances = Circumstances { state_below_tmp: true };
        let config = ConfinementConfig::default();
        let plan = plan(&config, &users(), &machine(&[]), &circumstances);
        assert!(plan.missing[&Measure::PrivateTmp].contains("state_directory"));
        let namespaces = plan.of_attempt(AttemptNeeds::default()).namespaces.unwrap();
        assert_eq!(namespaces.tmp, PrivateTmp::Shared);
    }

    #[test]
    fn tasks_that_run_as_root_or_as_the_worker_are_a_thing_that_is_missing() {
        let (config, none) = (ConfinementConfig::default(), UsersConfig::default());
        let circumstances = Circumstances::default();
        let as_root = plan(&config, &none, &machine(&[]), &circumstances);
        assert!(as_root.missing[&Measure::OwnUser].contains("root"));
        let machine = Machine { root: false, ..machine(&[]) };
        let as_worker = plan(&config, &users(), &machine, &circumstances);
        assert!(as_worker.missing[&Measure::OwnUser].contains("its user"));
    }

    #[test]
    fn off_asks_for_nothing_and_misses_nothing() {
        let plan = Plan::off();
        assert!(plan.applied.is_empty() && plan.missing.is_empty());
        assert_eq!(plan.of_attempt(AttemptNeeds::default()).cgroup, None);
    }
}
