//! What confines an attempt, from the plan of this node and the attempt's order; and whose its directory is.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;

use gotgan_proto::v1::RunAttempt;

use super::spec::{SCRIPT, WORK};
use crate::confine::config::{Mode, UsersConfig};
use crate::confine::devices::{DEVICE_TABLE, channel_node, permission_nodes};
use crate::confine::plan::{AttemptNeeds, Plan};
use crate::confine::spec::{Confinement, UnixUser};
use crate::confine::users;
use crate::held::AttemptKey;
use crate::inventory::cards::Cards;

/// How this node confines attempts.
#[derive(Clone, Debug)]
pub struct Confining {
    /// What is applied.
    pub plan: Plan,
    /// Who runs as whom.
    pub users: UsersConfig,
    /// First part of the names of cgroups: no other worker's on this machine.
    pub prefix: String,
    /// GPUs, with their device nodes.
    pub cards: Arc<Cards>,
}

impl Confining {
    /// Nothing is confined.
    pub fn off() -> Self {
        let (users, cards) = (UsersConfig::default(), Arc::default());
        Self { plan: Plan::off(), users, prefix: String::new(), cards }
    }

    /// What confines the attempt of this order. May ask the system for users; an error is for a person.
    pub fn of(&self, order: &RunAttempt) -> Result<Confinement, String> {
        let device_table = fs::read_to_string(DEVICE_TABLE).unwrap_or_default();
        let nodes = order.gpus.iter().flat_map(|gpu| {
            let nodes = self.cards.nodes(&gpu.uuid);
            let permissions = permission_nodes(&nodes.permissions, &device_table);
            nodes.devices.into_iter().chain(permissions)
        });
        let channel = Some(order.imex_channel).filter(|channel| *channel > 0);
        let channel = channel.and_then(|channel| channel_node(channel, &device_table));
        let devices = nodes.chain(channel).collect();
        let key = AttemptKey::new(order.job_id, order.attempt);
        Ok(self.plan.of_attempt(AttemptNeeds {
            cgroup_name: format!("{}.{}", self.prefix, key.directory_name()),
            cpu_milli: order.cpu_milli,
            memory_mib: order.memory_mib,
            devices,
            device_table,
            user: self.user_of(order)?,
        }))
    }

    /// Who the attempt runs as; absent: the worker's own user.
    pub fn user_of(&self, order: &RunAttempt) -> Result<Option<UnixUser>, String> {
        let project = order.spec.as_ref().map_or("", |spec| spec.project.as_str());
        match self.users.name_of(&order.owner, project) {
            Some(_) if !self.plan.root => Ok(None),
            Some(name) => users::find(name).map(Some),
            None if self.plan.mode == Mode::Required => {
                Err(format!("[users] names no user for {} of {project}", order.owner))
            }
            None => Ok(None),
        }
    }

    /// Gives an attempt's directory to whom it runs as, as far as it is theirs: they work in it and run their script,
    /// and what the worker keeps there is not for them.
    pub fn hand_over(&self, directory: &Path, order: &RunAttempt) -> io::Result<()> {
        let Some(user) = self.user_of(order).map_err(io::Error::other)? else {
            return Ok(());
        };
        fs::set_permissions(directory, Permissions::from_mode(0o711))?;
        for (name, mode) in [(WORK, 0o700), (SCRIPT, 0o700)] {
            let path = directory.join(name);
            if path.exists() {
                chown(&path, Some(user.uid), Some(user.gid))?;
                fs::set_permissions(&path, Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }
}

/// A number that tells state directories apart (FNV-1a), the same in every version of the worker.
pub fn number_of(text: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    text.bytes().fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_proto::v1::{GpuAllocation, GpuDevice, JobSpec};

    use super::*;
    use crate::confine::config::ConfinementConfig;
    use crate::confine::devices::Device;
    use crate::confine::machine::{CgroupPlace, Machine};
    use crate::confine::plan::{Circumstances, plan};

    fn confining(users: UsersConfig, root: bool) -> Confining {
        let place = CgroupPlace {
            root: "/sys/fs/cgroup/jobs".into(),
            own: false,
            controllers: ["memory".to_owned()].into(),
            born_inside: true,
        };
        let (namespaces, device_filter) = (Ok(()), Ok(()));
        let machine = Machine { root, cgroup: Ok(place), namespaces, device_filter };
        let config = ConfinementConfig::default();
        let plan = plan(&config, &users, &machine, &Circumstances::default());
        let device = |uuid: &str| GpuDevice { uuid: uuid.into(), ..GpuDevice::default() };
        let cards = Cards::new(Some("/nowhere".into()));
        let minor = |uuid: &str| uuid.strip_prefix("GPU-")?.parse().ok();
        cards.know(&[device("GPU-1"), device("GPU-2")], minor);
        Confining { plan, users, prefix: "n1-0".into(), cards: Arc::new(cards) }
    }

    fn order(owner: &str) -> RunAttempt {
        let gpu = GpuAllocation { uuid: "GPU-2".into(), ..Default::default() };
        let spec = JobSpec { project: "lab/x".into(), ..Default::default() };
        RunAttempt {
            job_id: 7,
            attempt: 2,
            gpus: vec![gpu],
            memory_mib: 64,
            owner: owner.into(),
            spec: Some(spec),
            ..Default::default()
        }
    }

    #[test]
    fn an_attempt_gets_the_nodes_of_its_gpus_and_a_cgroup_of_its_own_name() {
        let confinement = confining(UsersConfig::default(), true).of(&order("ada")).unwrap();
        let cgroup = confinement.cgroup.unwrap();
        assert_eq!(cgroup.path, Path::new("/sys/fs/cgroup/jobs/n1-0.7.2"));
        assert_eq!(cgroup.memory_max_bytes, Some(64 << 20));
        let allowed = confinement.devices.unwrap().allowed;
        assert!(allowed.contains(&Device { major: 195, minor: Some(2) }));
        assert!(!allowed.contains(&Device { major: 195, minor: Some(1) }));
        assert_eq!(confinement.user, None);
    }

    #[test]
    fn nobody_runs_as_root_nor_as_a_user_that_is_not_there() {
        let by_owner = [("ada".to_owned(), "root".to_owned())].into();
        let users = UsersConfig { default: "nobody".into(), by_owner, ..Default::default() };
        let as_root = confining(users.clone(), true);
        assert!(as_root.of(&order("ada")).unwrap_err().contains("root"));
        assert_eq!(as_root.of(&order("bob")).unwrap().user.unwrap().name, "nobody");
        // Who is not root cannot become anybody else, and has said so when it started.
        assert_eq!(confining(users, false).of(&order("bob")).unwrap().user, None);
    }

    #[test]
    fn state_directories_have_numbers_of_their_own() {
        assert_eq!(number_of("/var/lib/gotgan-worker"), number_of("/var/lib/gotgan-worker"));
        assert_ne!(number_of("/a"), number_of("/b"));
    }
}
