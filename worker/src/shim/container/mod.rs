//! A task in an image: the shim's fork opens the image as the task's user, makes the mounts, has the runtime start the
//! container, and then keeps it as the process that the shim knows as the task.
//!
//! All that is made is in a namespace of mounts of the task's own, so nothing of it outlives the task.

mod image;
mod keeper;
mod stage;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::grip::Grip;
use super::protocol::{StepSpec, TaskSpec};
use super::task::Failure;
use super::tree;
use crate::container::config::IMAGE;
use crate::container::mounts::{self, HostMount, Places};
use crate::container::oci;
use crate::container::spec::{ContainerSpec, RuntimeSpec, Way};

use keeper::Keeper;
use stage::Stage;

/// Directory in the attempt's own on which everything of a container is mounted; empty outside of it.
const PLACE: &str = "container";

/// A task that is to run by a runtime.
pub struct Contained<'a> {
    container: &'a ContainerSpec,
    spec: &'a RuntimeSpec,
    /// Where the keeper says what went wrong after the task counts as started.
    word: File,
}

impl<'a> Contained<'a> {
    /// Begins, where the attempt's directory is the current one; absent if the task is to run otherwise.
    pub fn of(grip: &'a Grip, word: &Path) -> io::Result<Option<Self>> {
        let Some(container) = grip.container() else { return Ok(None) };
        let Way::Runtime(spec) = &container.way else { return Ok(None) };
        DirBuilder::new().recursive(true).mode(0o700).create(PLACE)?;
        Ok(Some(Self { container, spec, word: File::create(word)? }))
    }

    /// Runs it. Returns only what kept it from beginning.
    pub fn run(self, step: &StepSpec, task: &TaskSpec, grip: &Grip) -> Failure {
        match self.begin(step, task, grip) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn begin(self, step: &StepSpec, task: &TaskSpec, grip: &Grip) -> Result<Infallible, Failure> {
        let wanted = self.mounts(task, grip);
        let stage = Stage::set(self.container, self.spec, &wanted, grip)?;
        let argv = if task.argv.is_empty() { &step.argv } else { &task.argv };
        let Some(program) = argv.first() else {
            return Err(Failure::not_found("no program given".into()));
        };
        let directory = self.directory(task, &stage);
        stage.has_directory(&directory, &wanted, grip)?;
        let environment = self.environment(step, task, grip, (&stage, &directory));
        let keeper = Keeper {
            runtime: &self.spec.runtime,
            id: format!("{}-{}.{}", self.spec.name, step.step, task.rank),
            place: stage.place.clone(),
            last_hook: oci::has_last_hook(&self.spec.gpus),
            program,
            search: environment.get("PATH").map_or("", String::as_str),
        };
        let user = grip.user().ok_or_else(no_user)?;
        let config = oci::config(&oci::Container {
            root: stage::ROOT,
            user,
            argv,
            environment: &environment,
            directory: &directory,
            mounts: &stage.mounts,
            own_tmp: grip.has_own_tmp(),
            gpus: &self.spec.gpus,
        });
        let text = config.to_string();
        fs::write(stage.place.join("config.json"), text)
            .map_err(stage::failed("its configuration"))?;
        keeper.keep(self.word)
    }

    fn mounts(&self, task: &TaskSpec, grip: &Grip) -> Vec<HostMount> {
        let home = grip.user().map_or("", |user| &user.home);
        let places = Places {
            working_directory: Path::new(&task.directory),
            home: Path::new(home),
            work: &self.spec.work,
            script: self.spec.script.as_deref(),
            authority: self.spec.authority.as_deref(),
        };
        let mut wanted = mounts::wanted(&self.spec.mounts, &places);
        // Those are in the container anyway.
        wanted.retain(|mount| !grip.hides(&mount.path));
        wanted
    }

    /// The image's own, where the job names none.
    fn directory(&self, task: &TaskSpec, stage: &Stage) -> String {
        let is_default = Path::new(&task.directory) == self.spec.work;
        let of_image = stage.bundle.as_ref().and_then(|bundle| bundle.directory.clone());
        of_image.filter(|_| is_default).unwrap_or_else(|| task.directory.clone())
    }

    fn environment(
        &self,
        step: &StepSpec,
        task: &TaskSpec,
        grip: &Grip,
        (stage, directory): (&Stage, &str),
    ) -> BTreeMap<String, String> {
        let of_image = stage.bundle.as_ref().map_or(&[][..], |bundle| &bundle.environment);
        let of_user = grip.environment().into_iter().filter_map(|(name, value)| match name {
            // Its shell is the node's.
            "SHELL" => None,
            "HOME" if !stage.has_bound(Path::new(&value)) => {
                Some((name.to_owned(), directory.to_owned()))
            }
            _ => Some((name.to_owned(), value)),
        });
        let own = step.environment.clone().into_iter().chain(task.environment.clone());
        oci::environment(of_image, &self.spec.gpus, of_user.chain(own))
    }
}

fn no_user() -> Failure {
    Failure::of_node(
        "cannot start: it has no user of its own, and no container runs as root".into(),
    )
}

/// Whether tasks are kept by a process that is none of them.
pub fn has_keeper(grip: &Grip) -> bool {
    grip.container().is_some_and(|container| matches!(container.way, Way::Runtime(_)))
}

/// Of a task that is known by this process, the one that is it: in a container, the first that its keeper has.
pub fn process_of(pid: i32, grip: &Grip) -> i32 {
    if !grip.is_keeper(pid) {
        return pid;
    }
    let children = tree::processes().unwrap_or_default().into_iter();
    let children = children.filter(|process| process.parent == pid && !process.zombie);
    children.min_by_key(|process| process.start_ticks).map_or(pid, |process| process.pid)
}

/// The command by the site's launcher, where images run by one. In a fork that is its task's user.
pub fn launched(
    argv: &[String],
    task: &TaskSpec,
    grip: &Grip,
) -> Result<Option<Vec<String>>, Failure> {
    let Some(container) = grip.container() else { return Ok(None) };
    let Way::Launcher(template) = &container.way else { return Ok(None) };
    let image = image::for_launcher(container, grip)?;
    let word = |word: &String| word.replace(IMAGE, &image).replace("{directory}", &task.directory);
    Ok(Some(template.iter().map(word).chain(argv.iter().cloned()).collect()))
}
