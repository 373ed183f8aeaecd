//! A PostgreSQL server of our own for tests and benchmarks: found or installed, started on a free port
//! with durable writes, and gone afterwards.

mod install;
mod locate;

use std::env;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::child::Daemon;
use crate::interrupt;

/// Where tests look for the server; a person may set it to use an own one.
pub const URL_VARIABLE: &str = "GOTGAN_TEST_POSTGRES";
const DIRECTORY_PREFIX: &str = "gotgan-postgres-";
const SUPERUSER: &str = "postgres";
/// A first start on a slow disk takes a few seconds; a minute means it hangs.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Tests run side by side, each with a pool of its own.
const MAX_CONNECTIONS: u32 = 400;

#[derive(Debug)]
pub struct Postgres {
    pub url: String,
    /// What says how slow its syncs are, where it was started so that they can be.
    pub faults: Option<PathBuf>,
    // Dropped in this order: the server first, then its files.
    server: Option<Daemon>,
    directory: Option<Directory>,
}

impl Postgres {
    /// The server named by the environment, or one started here.
    pub fn obtain() -> Result<Self> {
        Self::obtain_with(None)
    }

    /// The same; one that is started here is loaded with a library of faults, if there is one.
    pub fn obtain_with(library: Option<&Path>) -> Result<Self> {
        if let Ok(url) = env::var(URL_VARIABLE) {
            eprintln!("xtask: using the PostgreSQL of {URL_VARIABLE}");
            return Ok(Self { url, faults: None, server: None, directory: None });
        }
        remove_abandoned();
        Self::start(library)
    }

    fn start(library: Option<&Path>) -> Result<Self> {
        let programs = locate::or_install()?;
        let account = Account::choose()?;
        let directory = Directory::create(&account)?;
        initialise(&programs, &account, &directory)?;
        let port = free_port()?;
        let faults = library.map(|library| Faults::place(library, &directory)).transpose()?;
        let mut server = launch(&programs, &account, &directory, port, faults.as_ref())?;
        interrupt::wait_for("PostgreSQL to start", START_LIMIT, || {
            is_ready(&mut server, &directory)
        })?;
        let url = format!("postgres://{SUPERUSER}@127.0.0.1:{port}/postgres");
        eprintln!("xtask: PostgreSQL from {} serves on port {port}", programs.display());
        let faults = faults.map(|faults| faults.file);
        Ok(Self { url, faults, server: Some(server), directory: Some(directory) })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // SIGINT disconnects clients and stops; SIGTERM, sent next, would wait for them.
            server.signal(Signal::SIGINT);
        }
        self.directory.take();
    }
}

/// As whom the server runs: it refuses to run as root.
#[derive(Debug)]
struct Account {
    other: Option<(u32, u32)>,
}

impl Account {
    fn choose() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Self { other: Some((user.uid.as_raw(), user.gid.as_raw())) });
            }
        }
        bail!("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.other {
            // Dropping the user also drops root's supplementary groups.
            command.uid(user).gid(group);
        }
        command
    }
}

/// The server's files, removed when dropped. Its name carries our process id.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create(account: &Account) -> Result<Self> {
        let path = temporary_root().join(format!("{DIRECTORY_PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let directory = Self { path };
        fs::set_permissions(&directory.path, Permissions::from_mode(0o700))?;
        if let Some((user, group)) = account.other {
            chown(&directory.path, Some(user), Some(group))?;
        }
        Ok(directory)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("xtask: {} could not be removed: {error}", self.path.display());
        }
    }
}

/// On disk rather than in memory, because benchmarks measure durable writes; and where another user
/// can reach, because of [`Account`].
fn temporary_root() -> PathBuf {
    let on_disk = Path::new("/var/tmp");
    if on_disk.is_dir() { on_disk.to_path_buf() } else { env::temp_dir() }
}

/// A library that stands before the C library, and the file that says what it is to do: nothing at first.
#[derive(Debug)]
struct Faults {
    library: PathBuf,
    file: PathBuf,
}

impl Faults {
    /// Where the server's user can read them.
    fn place(library: &Path, directory: &Directory) -> Result<Self> {
        let placed = directory.path.join("libc_faults.so");
        let file = directory.path.join("faults");
        fs::copy(library, &placed)
            .with_context(|| format!("{} cannot be copied", library.display()))?;
        fs::write(&file, [0; 16])?;
        for path in [&placed, &file] {
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
        }
        Ok(Self { library: placed, file })
    }
}

fn initialise(programs: &Path, account: &Account, directory: &Directory) -> Result<()> {
    let output = account
        .command(&programs.join("initdb"))
        .args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--username", SUPERUSER])
        .arg("--pgdata")
        .arg(directory.data())
        .current_dir(&directory.path)
        .output()
        .context("initdb cannot be started")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn launch(
    programs: &Path,
    account: &Account,
    directory: &Directory,
    port: u16,
    faults: Option<&Faults>,
) -> Result<Daemon> {
    let log = File::create(directory.log())?;
    let mut command = account.command(&programs.join("postgres"));
    command.arg("-D").arg(directory.data()).arg("-k").arg(&directory.path);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    command.args(["-c", &format!("max_connections={MAX_CONNECTIONS}")]);
    // Written out though they are the defaults: a benchmark without them would lie.
    command.args(["-c", "fsync=on", "-c", "synchronous_commit=on"]);
    if let Some(Faults { library, file }) = faults {
        command.env("LD_PRELOAD", library).env("GOTGAN_TEST_LIBC_FAULTS", file);
    }
    command.current_dir(&directory.path).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Daemon::spawn("postgres", &mut command)
}

/// The server writes its state into the last line of its pid file.
fn is_ready(server: &mut Daemon, directory: &Directory) -> Result<Option<()>> {
    if let Some(status) = server.ended()? {
        let log = fs::read_to_string(directory.log()).unwrap_or_default();
        return Err(anyhow!("PostgreSQL ended with {status}: {}", log.trim()));
    }
    let state = fs::read_to_string(directory.data().join("postmaster.pid")).unwrap_or_default();
    Ok(state.lines().nth(7).is_some_and(|line| line.trim() == "ready").then_some(()))
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let probe = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(probe.local_addr()?.port())
}

/// Servers whose xtask was killed so hard that it could not clean up.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(temporary_root()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY_PREFIX));
        let Some(owner) = owner.and_then(|id| id.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            stop_abandoned(&entry.path());
            // Another user's is not ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn stop_abandoned(directory: &Path) {
    let state = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap_or_default();
    let Some(id) = state.lines().next().and_then(|line| line.parse::<i32>().ok()) else {
        return;
    };
    // The id may have passed on to a stranger: its command line must name this directory.
    let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    if String::from_utf8_lossy(&command).contains(&*directory.to_string_lossy()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGQUIT);
    }
}
