//! Whether jobs with an image can run on this node, and what one of them needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gotgan_proto::v1::{self, RunAttempt};

use super::cdi::{self, DeviceNode, Edits, GpuName, Specs};
use super::config::{ContainersConfig, Run, find_program};
use super::probe;
use super::runtime::Runtime;
use super::spec::{ContainerSpec, RuntimeSpec, Way};
use crate::confine::config::UsersConfig;
use crate::confine::devices::{DEVICE_TABLE, channel_node};
use crate::confine::plan::{Measure, Plan};
use crate::confine::spec::Confinement;
use crate::exec::environment::is_batch;
use crate::exec::spec::{SCRIPT, WORK};
use crate::imex;
use crate::inventory::cards::Cards;

/// Whether images run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Images {
    /// The site does not ask for it.
    Off,
    /// It is asked for and cannot be had, for this reason.
    Unable(String),
    /// They run.
    Able {
        /// By what.
        by: By,
        /// The same for people.
        words: String,
    },
}

/// What images run by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// An OCI runtime.
    Runtime(Runtime),
    /// The site's launcher with its arguments.
    Launcher(Vec<String>),
}

/// What decides, beside the settings.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The worker is root.
    pub root: bool,
    /// Attempts have namespaces of their own.
    pub namespaces: bool,
    /// Some attempts run as users of their own.
    pub users: bool,
}

impl Facts {
    fn of(plan: &Plan, users: &UsersConfig) -> Self {
        let namespaces = plan.applied.contains(&Measure::Namespaces);
        Self { root: plan.root, namespaces, users: users.is_set() }
    }

    /// What keeps a runtime from being tried.
    fn missing(&self) -> Option<&'static str> {
        match self {
            Self { root: false, .. } => {
                Some("the worker is not root, and a runtime needs it to be")
            }
            Self { namespaces: false, .. } => Some(
                "jobs have no namespaces of their own here: see namespaces under [confinement]",
            ),
            Self { users: false, .. } => {
                Some("[users] gives jobs no user of their own, and no container runs as root")
            }
            Self { root: true, namespaces: true, users: true } => None,
        }
    }
}

/// Decides; the two questions are asked of the machine only if the answer matters.
pub fn decide(
    config: &ContainersConfig,
    facts: &Facts,
    try_runtime: impl FnOnce() -> Result<(Runtime, String), String>,
    find_launcher: impl FnOnce(&Path) -> Result<PathBuf, String>,
) -> Images {
    let found = match config.run {
        Run::Off => return Images::Off,
        Run::Runtime => match facts.missing() {
            Some(missing) => Err(missing.to_owned()),
            None => try_runtime().map(|(runtime, words)| (By::Runtime(runtime), words)),
        },
        Run::Launcher => launcher(config, find_launcher),
    };
    match found {
        Ok((by, words)) => Images::Able { by, words },
        Err(why) => Images::Unable(why),
    }
}

fn launcher(
    config: &ContainersConfig,
    find: impl FnOnce(&Path) -> Result<PathBuf, String>,
) -> Result<(By, String), String> {
    let (first, rest) = config.launcher.split_first().ok_or("containers.launcher is empty")?;
    let program = find(Path::new(first))?;
    let words = format!("{} (the site's launcher)", program.display());
    let argv = [program.to_string_lossy().into_owned()].into_iter().chain(rest.iter().cloned());
    Ok((By::Launcher(argv.collect()), words))
}

/// Finds out on this machine. Tries a runtime for real, with the shim's program.
pub fn find(config: &ContainersConfig, plan: &Plan, users: &UsersConfig, shim: &Path) -> Images {
    let search = std::env::var("PATH").unwrap_or_default();
    let try_runtime = || {
        let program = find_program(&config.runtime, &search)?;
        probe::ask(shim, &program)
    };
    decide(config, &Facts::of(plan, users), try_runtime, |program| find_program(program, &search))
}

/// Says once, when the worker starts, whether images run.
pub fn tell(images: &Images) {
    match images {
        Images::Off => {}
        Images::Unable(why) => {
            tracing::warn!("NO IMAGES run on this node, though asked for: {why}")
        }
        Images::Able { words, .. } => tracing::info!(by = words, "images run on this node"),
    }
}

/// As the scheduler is told.
pub fn reported(images: &Images) -> v1::Images {
    match images.clone() {
        Images::Off => v1::Images::default(),
        Images::Unable(missing) => v1::Images { missing, ..Default::default() },
        Images::Able { words: by, .. } => v1::Images { able: true, by, ..Default::default() },
    }
}

/// Images on this node.
#[derive(Clone, Debug)]
pub struct Containers {
    /// Whether they run.
    pub images: Images,
    /// As the site has it.
    pub config: ContainersConfig,
    /// GPUs, with how files may name them.
    pub cards: Arc<Cards>,
    /// GPUs are invented: no file needs to name them.
    pub simulated: bool,
}

impl Containers {
    /// None run.
    pub fn off() -> Self {
        let (config, cards) = (ContainersConfig::default(), Arc::default());
        Self { images: Images::Off, config, cards, simulated: false }
    }

    /// Whether what an image's processes see of the environment is theirs alone, and nothing of the daemon's.
    pub fn hides_environment(&self, order: &RunAttempt) -> bool {
        let by_runtime = matches!(self.images, Images::Able { by: By::Runtime(_), .. });
        by_runtime && !image_of(order).is_empty()
    }

    /// How the attempt of this order runs in its image; absent if it has none. Reads the site's CDI files; an error is
    /// for a person, and the node's own.
    pub fn of(
        &self,
        order: &RunAttempt,
        directory: &str,
        ca_path: &str,
        confinement: &Confinement,
    ) -> Result<Option<ContainerSpec>, String> {
        let image = image_of(order);
        if image.is_empty() {
            return Ok(None);
        }
        let way = match &self.images {
            Images::Off => return Err("this node runs no images: [containers] is off".into()),
            Images::Unable(why) => return Err(format!("this node runs no images: {why}")),
            Images::Able { by: By::Launcher(argv), .. } => Way::Launcher(
                argv.iter().map(|word| word.replace("{attempt}", directory)).collect(),
            ),
            Images::Able { by: By::Runtime(runtime), .. } => {
                if confinement.user.is_none() {
                    return Err(
                        "[users] names no user for this job, and no container runs as root".into(),
                    );
                }
                Way::Runtime(self.runtime_spec(runtime, order, directory, ca_path)?)
            }
        };
        let image_roots = self.config.image_roots.clone();
        Ok(Some(ContainerSpec { image: image.into(), image_roots, way }))
    }

    fn runtime_spec(
        &self,
        runtime: &Runtime,
        order: &RunAttempt,
        directory: &str,
        ca_path: &str,
    ) -> Result<RuntimeSpec, String> {
        let directory = PathBuf::from(directory);
        let has_script = is_batch(order) && !order.tasks.is_empty();
        Ok(RuntimeSpec {
            runtime: runtime.clone(),
            name: format!("gotgan-{}.{}", order.job_id, order.attempt),
            work: directory.join(WORK),
            script: has_script.then(|| directory.join(SCRIPT)),
            authority: (!ca_path.is_empty()).then(|| ca_path.into()),
            mounts: self.config.rules()?,
            gpus: self.gpus(order)?.with_device(channel(order)),
            directory,
        })
    }

    /// Invented GPUs need nothing, but get what a file says for them.
    fn gpus(&self, order: &RunAttempt) -> Result<Edits, String> {
        let name = |gpu: &v1::GpuAllocation| self.cards.container_name(&gpu.uuid);
        let names: Vec<GpuName> = order.gpus.iter().map(name).collect();
        if names.is_empty() {
            return Ok(Edits::default());
        }
        match Specs::read(&self.config.cdi_directories).of_gpus(&names) {
            Ok(edits) => edits.with_numbers(cdi::numbers),
            Err(_) if self.simulated => Ok(Edits::default()),
            Err(why) => Err(why),
        }
    }
}

/// The IMEX channel of the attempt, as its containers have it; absent if it has none.
fn channel(order: &RunAttempt) -> Option<DeviceNode> {
    let number = Some(order.imex_channel).filter(|number| *number > 0)?;
    let table = std::fs::read_to_string(DEVICE_TABLE).unwrap_or_default();
    let device = channel_node(number, &table)?;
    Some(DeviceNode::character(imex::path_of(number), device.major, number))
}

/// What the job's image is; empty: it has none.
pub fn image_of(order: &RunAttempt) -> &str {
    order.spec.as_ref().map_or("", |spec| spec.image.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::confine::spec::UnixUser;
    use crate::container::runtime::RuntimeKind;
    use gotgan_proto::v1::{GpuAllocation, JobSpec};

    fn runtime() -> Runtime {
        Runtime { program: "/usr/sbin/runc".into(), kind: RuntimeKind::Runc }
    }

    fn decided(run: Run, facts: &Facts) -> Images {
        let launcher = vec!["apptainer".into(), "exec".into(), "{image}".into()];
        let config = ContainersConfig { run, launcher, ..Default::default() };
        let found = || Ok((runtime(), "runc 1.1.5".into()));
        decide(&config, facts, found, |program| Ok(Path::new("/usr/bin").join(program)))
    }

    const ALL: Facts = Facts { root: true, namespaces: true, users: true };

    fn containers(images: Images) -> Containers {
        Containers { images, ..Containers::off() }
    }

    fn order(image: &str, gpus: &[&str]) -> RunAttempt {
        let gpu = |uuid: &&str| GpuAllocation { uuid: (*uuid).into(), milli: 1000 };
        let spec = JobSpec { image: image.into(), ..Default::default() };
        let (gpus, spec) = (gpus.iter().map(gpu).collect(), Some(spec));
        RunAttempt { job_id: 7, attempt: 2, gpus, spec, ..Default::default() }
    }

    fn confinement() -> Confinement {
        let user = UnixUser {
            name: "ada".into(),
            uid: 1042,
            gid: 100,
            groups: vec![100],
            home: "/home/ada".into(),
            shell: "/bin/sh".into(),
        };
        Confinement { user: Some(user), ..Confinement::default() }
    }

    #[test]
    fn a_runtime_is_tried_only_where_its_containers_would_be_kept_apart() {
        assert_eq!(decided(Run::Off, &ALL), Images::Off);
        let able = decided(Run::Runtime, &ALL);
        assert_eq!(able, Images::Able { by: By::Runtime(runtime()), words: "runc 1.1.5".into() });
        for (facts, word) in [
            (Facts { root: false, ..ALL }, "not root"),
            (Facts { namespaces: false, ..ALL }, "[confinement]"),
            (Facts { users: false, ..ALL }, "[users]"),
        ] {
            let Images::Unable(why) = decided(Run::Runtime, &facts) else { panic!("{facts:?}") };
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn a_launcher_needs_nothing_but_to_be_there() {
        let facts = Facts { root: false, namespaces: false, users: false };
        let Images::Able { by, words } = decided(Run::Launcher, &facts) else { panic!() };
        assert_eq!(
            by,
            By::Launcher(vec!["/usr/bin/apptainer".into(), "exec".into(), "{image}".into()])
        );
        assert_eq!(words, "/usr/bin/apptainer (the site's launcher)");
    }

    #[test]
    fn what_is_told_of_a_node_says_why_not() {
        assert_eq!(reported(&Images::Off), v1::Images::default());
        assert_eq!(reported(&Images::Unable("x".into())).missing, "x");
        assert!(reported(&decided(Run::Runtime, &ALL)).able);
    }

    #[test]
    fn a_job_without_an_image_needs_nothing_and_one_with_an_image_a_user() {
        let containers = containers(decided(Run::Runtime, &ALL));
        let of = |order: &RunAttempt, confinement: &Confinement| {
            containers.of(order, "/s/attempts/7.2", "/s/tls/ca.pem", confinement)
        };
        assert_eq!(of(&order("", &[]), &Confinement::default()).unwrap(), None);
        assert!(
            of(&order("/images/x", &[]), &Confinement::default()).unwrap_err().contains("[users]")
        );
        let spec = of(&order("/images/x", &[]), &confinement()).unwrap().unwrap();
        let Way::Runtime(spec) = spec.way else { panic!() };
        assert_eq!(spec.work, Path::new("/s/attempts/7.2/work"));
        assert_eq!(spec.name, "gotgan-7.2");
        assert_eq!(spec.script, None);
        let off = Containers::off().of(&order("/images/x", &[]), "/s", "", &confinement());
        assert!(off.unwrap_err().contains("[containers] is off"));
    }

    #[test]
    fn a_gpu_that_no_file_names_is_the_nodes_fault_unless_it_is_invented() {
        let mut containers = containers(decided(Run::Runtime, &ALL));
        containers.config.cdi_directories = vec!["/nowhere".into()];
        let order = order("/images/x", &["GPU-1"]);
        let error = containers.of(&order, "/s", "", &confinement()).unwrap_err();
        assert!(error.contains("nvidia.com/gpu=GPU-1"), "{error}");
        containers.simulated = true;
        assert!(containers.of(&order, "/s", "", &confinement()).unwrap().is_some());
    }
}
