//! OCI runtimes: how they are called, and what they say when they cannot start something.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A runtime on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its program, absolute.
    pub program: PathBuf,
    /// Which one it is.
    pub kind: RuntimeKind,
}

/// Runtimes that are known to leave a process in the cgroup that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// Of the Open Container Initiative.
    Runc,
    /// In C.
    Crun,
}

/// Where a runtime finds and leaves what belongs to one container.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Name of the container.
    pub id: &'a str,
    /// Directory with its configuration.
    pub bundle: &'a Path,
    /// Directory for the runtime's own notes.
    pub state: &'a Path,
    /// File into which it says what went wrong.
    pub log: &'a Path,
    /// File into which it writes the number of the process.
    pub pid_file: &'a Path,
}

impl Runtime {
    /// By what it says of its version, as in "runc version 1.1.5"; with that in short, for people.
    pub fn of_version(program: &Path, text: &str) -> Result<(Self, String), String> {
        let mut words = text.split_whitespace();
        let (name, version) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let kind = match name {
            "runc" => RuntimeKind::Runc,
            "crun" => RuntimeKind::Crun,
            _ => {
                let shown = program.display();
                return Err(format!(
                    "{shown} is neither runc nor crun; set containers.runtime to one of them"
                ));
            }
        };
        Ok((Self { program: program.to_owned(), kind }, format!("{name} {version}")))
    }

    /// Arguments that start a container and return once its process runs. Both kinds find the cgroups read-only and are
    /// told that this is right, so the process stays where the shim has put it.
    pub fn start(&self, call: &Call<'_>) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let words = ["run", "--detach", "--bundle"].map(str::to_owned);
        let pid = ["--pid-file".to_owned(), text(call.pid_file), call.id.to_owned()];
        self.common(call).into_iter().chain(words).chain([text(call.bundle)]).chain(pid).collect()
    }

    /// Arguments that run what is to run after the container.
    pub fn delete(&self, call: &Call<'_>) -> Vec<String> {
        let words = ["delete", "--force", call.id].map(str::to_owned);
        self.common(call).into_iter().chain(words).collect()
    }

    fn common(&self, call: &Call<'_>) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let cgroups = match self.kind {
            RuntimeKind::Runc => "--rootless=true",
            RuntimeKind::Crun => "--cgroup-manager=disabled",
        };
        let log = ["--log".to_owned(), text(call.log), "--log-format=json".to_owned()];
        let root = ["--root".to_owned(), text(call.state)];
        [cgroups.to_owned()].into_iter().chain(log).chain(root).collect()
    }
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// Why a container did not start: from the log of its runtime, in which warnings stand as well.
pub fn complaint(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    let mut errors = lines.filter(|line| line.level == "error" || line.level == "fatal");
    errors.next_back().map(|line| line.msg.trim().to_owned())
}

/// What a person is told, and whether it is that something is not there.
pub fn explained(complaint: &str, program: &str, search: &str) -> (String, bool) {
    let absent = complaint.contains("no such file or directory");
    if complaint.contains("executable file not found")
        || absent && complaint.contains("executable file `")
        || absent && complaint.contains("open executable")
    {
        return (format!("program {program} was not found in the image (PATH {search})"), true);
    }
    let of_exec = complaint.contains("exec");
    match (of_exec && absent, of_exec && complaint.contains("permission denied")) {
        (true, _) => (
            format!(
                "program {program}, or the interpreter named in its first line, is not in the image"
            ),
            true,
        ),
        (false, true) => (format!("program {program} may not be executed in the image"), false),
        (false, false) => (format!("the container was not made: {complaint}"), false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_runtime_is_told_by_its_version() {
        let runc = "runc version 1.1.5+ds1\ncommit: 1.1.5\nspec: 1.0.2-dev\n";
        let (runtime, words) = Runtime::of_version(Path::new("/usr/sbin/runc"), runc).unwrap();
        assert_eq!((runtime.kind, words.as_str()), (RuntimeKind::Runc, "runc 1.1.5+ds1"));
        let (runtime, _) = Runtime::of_version(Path::new("/x"), "crun version 1.8.1\n").unwrap();
        assert_eq!(runtime.kind, RuntimeKind::Crun);
        let error = Runtime::of_version(Path::new("/bin/kata"), "kata 3").unwrap_err();
        assert!(error.contains("neither runc nor crun"));
    }

    #[test]
    fn both_kinds_are_told_to_leave_cgroups_alone() {
        let call = Call {
            id: "7.1-0.0",
            bundle: Path::new("/b"),
            state: Path::new("/s"),
            log: Path::new("/l"),
            pid_file: Path::new("/p"),
        };
        let of = |kind| Runtime { program: "/r".into(), kind }.start(&call).join(" ");
        let rest =
            "--log /l --log-format=json --root /s run --detach --bundle /b --pid-file /p 7.1-0.0";
        assert_eq!(of(RuntimeKind::Runc), format!("--rootless=true {rest}"));
        assert_eq!(of(RuntimeKind::Crun), format!("--cgroup-manager=disabled {rest}"));
    }

    #[test]
    fn of_what_a_runtime_logs_the_last_error_counts() {
        let log = "{\"level\":\"warning\",\"msg\":\"cannot toggle freezer\"}\nnoise\n\
                   {\"level\":\"error\",\"msg\":\"runc run failed: x\"}\n";
        assert_eq!(complaint(log).unwrap(), "runc run failed: x");
        assert_eq!(complaint("{\"level\":\"warning\",\"msg\":\"x\"}"), None);
    }

    #[test]
    fn what_is_not_in_the_image_is_said_in_words() {
        let runc = "runc run failed: unable to start container process: exec: \"nope\": executable file not found in $PATH";
        let (words, absent) = explained(runc, "nope", "/bin");
        assert_eq!(
            (words.as_str(), absent),
            ("program nope was not found in the image (PATH /bin)", true)
        );
        let crun = "executable file `nope` not found in $PATH: No such file or directory";
        assert!(explained(&crun.to_lowercase(), "nope", "/bin").1);
        let script = "runc run failed: exec /s/script: no such file or directory";
        assert!(explained(script, "/s/script", "/bin").0.contains("interpreter"));
        let denied = "runc run failed: exec: \"/etc/motd\": permission denied";
        assert_eq!(
            explained(denied, "/etc/motd", "").0,
            "program /etc/motd may not be executed in the image"
        );
        let other = explained("error mounting \"proc\"", "x", "");
        assert_eq!(other, ("the container was not made: error mounting \"proc\"".into(), false));
    }
}
