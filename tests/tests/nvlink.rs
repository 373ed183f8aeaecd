//! NVLink domains as the driver names them: from its library through a worker into the topology, and to people.

use std::collections::BTreeSet;

use gotgan_proto::v1::{self, JobState};
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::{Script, VirtualWorker, inventory};
use gotgan_tests::{Cluster, Database, nvml_double};
use serde_json::json;

on_each_database! {
    a_gang_over_trays_has_one_channel_and_keeps_it_over_a_restart_and_others_have_other_ones,
    a_node_is_in_the_nvlink_domain_that_its_driver_names_unless_the_configuration_does,
}

const CLUSTER: &str = "a1b2c3d4000000000000000000000001";
const DOMAIN: &str = "a1b2c3d4-0000-0000-0000-000000000001.7";

async fn a_node_is_in_the_nvlink_domain_that_its_driver_names_unless_the_configuration_does(
    database: Database,
) {
    let mut cluster = Cluster::start(database).await;
    let gpu = |number: u32| {
        json!({
            "uuid": format!("GPU-00000000-0000-4000-8000-{number:012}"),
            "fabric": { "cluster": CLUSTER, "clique": 7 }, "recovery_action": 1,
        })
    };
    let state = json!({ "gpus": [gpu(0), gpu(1)] });
    let library = nvml_double::place(&cluster.directory().join("driver"), &state);
    cluster.add_worker("tray-1", library.to_str().unwrap()).await;
    let tray = cluster.api.try_node("tray-1").await.unwrap();
    let found = tray.inventory.unwrap();
    assert_eq!(found.labels["nvlink"], DOMAIN);
    assert!(found.simulated, "GPUs of a double are never shown as real ones");
    assert_eq!(tray.nvlink_disagreement, "");
    let shown = cluster.gotgan().run(&["node", "tray-1"]).ok();
    assert!(shown.contains(&format!("nvlink {DOMAIN}")) && shown.contains("simulated"), "{shown}");
    // A tray of the same clique that somebody has put elsewhere stays where it was put, and both say so.
    let mut other = inventory("tray-2", "h100", 1);
    other.gpus[0].nvlink_domain = DOMAIN.to_owned();
    other.labels.insert("nvlink".to_owned(), "hall-1/rack-07".to_owned());
    let _other = cluster.add_virtual_with(other, Script::forever()).await;
    let placed: v1::Node = cluster.api.try_node("tray-2").await.unwrap();
    assert_eq!(placed.inventory.unwrap().labels["nvlink"], "hall-1/rack-07");
    assert!(
        placed.nvlink_disagreement.contains("like those of tray-1"),
        "{}",
        placed.nvlink_disagreement
    );
    let shown = cluster.gotgan().run(&["node", "tray-1"]).ok();
    assert!(shown.contains("which is in hall-1/rack-07"), "{shown}");
}

async fn a_gang_over_trays_has_one_channel_and_keeps_it_over_a_restart_and_others_have_other_ones(
    database: Database,
) {
    let mut cluster = Cluster::start(database).await;
    let mut trays = Vec::new();
    for name in ["tray-1", "tray-2"] {
        let mut tray = inventory(name, "gb200", 2);
        tray.gpus.iter_mut().for_each(|gpu| gpu.nvlink_domain = DOMAIN.to_owned());
        tray.imex_channels = Some(v1::ImexChannels { count: 2_048, ..Default::default() });
        trays.push(cluster.add_virtual_with(tray, Script::forever()).await);
    }
    let gang = cluster.api.submit(command(&["/bin/true"]).gpus(1).nodes(2)).await;
    let lone = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    let gang = cluster.api.wait_for_state(gang, JobState::Running).await;
    let lone = cluster.api.wait_for_state(lone, JobState::Running).await;
    let [first, second] = channels(&gang)[..] else { panic!("{gang:?}") };
    assert!(first == second && first > 0 && channels(&lone) != [first], "{gang:?} {lone:?}");
    assert_eq!(gang.attempts[0].allocation[0].imex_domain, DOMAIN);
    let told = |tray: &VirtualWorker| {
        let runs = tray.runs();
        runs.iter().find(|run| run.job_id == gang.job_id).map(|run| run.imex_channel)
    };
    assert!(trays.iter().all(|tray| told(tray) == Some(first)));
    let shown = cluster.gotgan().run(&["job", &gang.job_id.to_string()]).ok();
    assert!(shown.contains(&format!("IMEX channel {first} of {DOMAIN}")), "{shown}");
    let shown = cluster.gotgan().run(&["node", "tray-1"]).ok();
    assert!(shown.contains("IMEX channels are given out, of 2048"), "{shown}");
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let next = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    let next = cluster.api.wait_for_state(next, JobState::Running).await;
    assert_eq!(channels(&cluster.api.job(gang.job_id).await), [first, first]);
    let held = [channels(&gang), channels(&lone), channels(&next)].concat();
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), 3, "{held:?}");
}

/// On each of its nodes.
fn channels(job: &v1::Job) -> Vec<u32> {
    job.attempts[0].allocation.iter().map(|held| held.imex_channel).collect()
}
