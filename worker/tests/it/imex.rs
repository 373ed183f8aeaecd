//! IMEX channels of attempts, on a machine that only seems to have the driver of them.

use std::fs::File;
use std::path::{Path, PathBuf};

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{Cause, ReadLog};
use gotgan_worker::imex::DIRECTORY;
use nix::fcntl::{Flock, FlockArg};

use crate::cluster::{Cluster, end_of, script};

/// A number that the kernel has given to no driver here.
const DRIVER: u32 = 511;

/// The directory of channels, which must be there for another to be put in its place; gone again if it was not. One test at a time
/// has it: who removes it would take it from others.
struct Place {
    made: bool,
    _alone: Flock<File>,
}

impl Place {
    fn make() -> Self {
        let file = File::create(std::env::temp_dir().join("gotgan-test-imex.lock")).unwrap();
        let alone = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        Self { made: std::fs::create_dir(DIRECTORY).is_ok(), _alone: alone }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.made {
            // Where that fails an empty directory is left until the machine is started anew.
            let _ = std::fs::remove_dir(DIRECTORY);
        }
    }
}

/// Why this machine cannot be made to look as if it had that driver.
fn why_not() -> Option<&'static str> {
    let drivers = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    if !nix::unistd::geteuid().is_root() {
        return Some("a mount needs root");
    }
    drivers.contains(&format!("{DRIVER} ")).then_some("a driver of this machine has that number")
}

/// The kernel lists the driver, its node for everybody is there, and whatever is made besides is seen by this daemon alone.
fn changed(cluster: &Cluster) -> String {
    let table = cluster.output("devices");
    let drivers =
        format!("Character devices:\n{DRIVER} nvidia-caps-imex-channels\n\nBlock devices:\n");
    std::fs::write(&table, drivers).unwrap();
    format!(
        "mount --bind {} /proc/devices\nmount -t tmpfs none {DIRECTORY}\nmknod -m 666 {DIRECTORY}/channel0 c {DRIVER} 0",
        table.display()
    )
}

/// As this process sees it.
fn of_daemon(pid: i32, path: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("root").join(path.trim_start_matches('/'))
}

#[tokio::test]
async fn a_job_opens_its_own_channel_and_no_other_and_it_is_gone_after_it() {
    if let Some(why) = why_not() {
        return eprintln!("skipped: {why}");
    }
    let _place = Place::make();
    let mut cluster = Cluster::start_outside_tmp().await;
    let daemon = cluster.daemon_where(&changed(&cluster));
    let mut peer = cluster.peer().await;
    let inventory = peer.register.inventory.clone().unwrap();
    assert_eq!(inventory.imex_channels.unwrap().count, 2_048);
    let confinement = inventory.confinement.unwrap();
    let is_filtered = confinement.applied.iter().any(|word| word == "device filter");
    let tries = ["channel7", "channel0"]
        .map(|name| format!("(: < {DIRECTORY}/{name}) 2>&1 | sed 's/.*: //'"));
    let body = format!(
        "echo $GOTGAN_IMEX_CHANNEL $NVIDIA_IMEX_CHANNELS\nls {DIRECTORY}\n{}\nmknod own c {DRIVER} 8 2> /dev/null || echo no node",
        tries.join("\n")
    );
    let mut order = script(7, &body);
    order.imex_channel = 7;
    peer.order(Order::RunAttempt(order)).await;
    let reports = peer.reports_until_end().await;
    assert_eq!(end_of(&reports).0, Cause::User);
    let read = ReadLog { job_id: 7, attempt: 1, ..Default::default() };
    let said = String::from_utf8(peer.read_log(read).await.data).unwrap();
    let mut expected = vec!["7 7", "channel0", "channel7", "No such device or address"];
    match is_filtered {
        true => expected.extend(["Operation not permitted", "no node"]),
        false => {
            eprintln!("skipped: the machine has no device filter");
            expected.push("No such device or address");
        }
    }
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    let left = |name: &str| of_daemon(daemon.pid(), &format!("{DIRECTORY}/{name}")).exists();
    assert!(!left("channel7") && left("channel0"));
}

#[tokio::test]
async fn a_channel_that_cannot_be_made_makes_the_node_unfit_and_nothing_of_the_job_runs() {
    if let Some(why) = why_not() {
        return eprintln!("skipped: {why}");
    }
    let _place = Place::make();
    let mut cluster = Cluster::start_outside_tmp().await;
    let read_only = format!("{}\nmount -o remount,ro {DIRECTORY}", changed(&cluster));
    let _daemon = cluster.daemon_where(&read_only);
    let mut peer = cluster.peer().await;
    let mut order = script(7, "echo ran");
    order.imex_channel = 7;
    peer.order(Order::RunAttempt(order)).await;
    let reports = peer.reports_until_end().await;
    let Some(Event::Refused(refused)) = &reports.last().unwrap().event else {
        panic!("{reports:?}")
    };
    assert_eq!(refused.cause(), Cause::Node);
    let reason = &refused.reason;
    assert!(reason.contains("channel7") && reason.contains("Read-only"), "{reason}");
}
