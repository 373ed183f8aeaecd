//! NVLink domains as the driver names them: from its library through a worker into the topology, and to people.

use gotgan_proto::v1;
use gotgan_tests::virtual_worker::{Script, inventory};
use gotgan_tests::{Cluster, Database, nvml_double};
use serde_json::json;

on_each_database! {
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
