//! NVLink domains that GPUs name, and what the configuration makes of them.

use gotgan_core::ids::NodeName;
use gotgan_core::node::Inventory;
use gotgan_core::nvlink::{self, Disagreement};
use gotgan_core::topology::Level;
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// A node whose GPUs name these domains; `configured` is empty where nothing is.
fn node(cluster: &mut TestCluster, name: &str, configured: &str, domains: &[&str]) -> Inventory {
    let mut builder = cluster.node(name).gpus(domains.len().try_into().unwrap(), "gb200");
    if !configured.is_empty() {
        builder = builder.label("nvlink", configured);
    }
    builder.nvlink_domains(domains).add();
    let name = NodeName::new(name).unwrap();
    cluster.world.nodes[&name].inventory.as_ref().clone()
}

fn block(cluster: &mut TestCluster, configured: &str, domains: &[&str]) -> Option<String> {
    let mut inventory = node(cluster, "n1", configured, domains);
    nvlink::take_domain_of_gpus(&mut inventory);
    inventory.block(Level::Nvlink).map(str::to_owned)
}

fn doubt(cluster: &TestCluster, inventory: &Inventory) -> Option<String> {
    nvlink::disagreement(&cluster.world, inventory).map(|it| it.to_string())
}

#[test]
fn a_node_is_of_the_domain_that_its_gpus_agree_on() {
    let cluster = &mut TestCluster::new();
    assert_eq!(block(cluster, "", &["x.1", "x.1"]).as_deref(), Some("x.1"));
    // One that has not joined does not keep the others from being where they are.
    assert_eq!(block(cluster, "", &["x.1", ""]).as_deref(), Some("x.1"));
    assert_eq!(block(cluster, "", &["", ""]), None);
    cluster.check();
}

#[test]
fn what_the_configuration_says_wins() {
    let cluster = &mut TestCluster::new();
    assert_eq!(block(cluster, "rack-07", &["x.1", "x.1"]).as_deref(), Some("rack-07"));
    assert_eq!(block(cluster, "rack-07", &["x.1", "x.2"]).as_deref(), Some("rack-07"));
    cluster.check();
}

#[test]
fn gpus_that_disagree_leave_their_node_without_a_domain_and_are_named() {
    let cluster = &mut TestCluster::new();
    assert_eq!(block(cluster, "", &["x.2", "x.1"]), None);
    let inventory = node(cluster, "n1", "", &["x.2", "x.1"]);
    let text = "its GPUs are of different NVLink domains: x.1, x.2";
    assert_eq!(doubt(cluster, &inventory).as_deref(), Some(text));
    cluster.check();
}

#[test]
fn one_name_for_two_domains_and_two_names_for_one_are_found() {
    let cluster = &mut TestCluster::new();
    let first = node(cluster, "n1", "rack-07", &["x.1"]);
    assert_eq!(doubt(cluster, &first), None);
    let same = node(cluster, "n2", "rack-07", &["x.1"]);
    assert_eq!(doubt(cluster, &same), None);
    let (name, other) = ("rack-07".to_owned(), NodeName::new("n1").unwrap());
    let alike = node(cluster, "n3", "rack-07", &["x.2"]);
    let expected = Disagreement::NamedAlike { name: name.clone(), other: other.clone() };
    assert_eq!(nvlink::disagreement(&cluster.world, &alike), Some(expected));
    let mut apart = node(cluster, "n4", "", &["x.1"]);
    nvlink::take_domain_of_gpus(&mut apart);
    let expected = Disagreement::NamedApart { domain: "x.1".to_owned(), other, name };
    assert_eq!(nvlink::disagreement(&cluster.world, &apart), Some(expected));
    cluster.check();
}

proptest! {
    #[test]
    fn where_nothing_is_configured_nodes_never_disagree_with_each_other(
        domains in proptest::collection::vec(0..4u32, 1..12)
    ) {
        let mut cluster = TestCluster::new();
        let names: Vec<String> = domains.iter().map(|domain| format!("x.{domain}")).collect();
        let mut all = Vec::new();
        for (index, domain) in names.iter().enumerate() {
            // As the scheduler has them: each under the domain of its GPUs.
            all.push(node(&mut cluster, &format!("n{index}"), domain, &[domain]));
        }
        for inventory in &all {
            prop_assert_eq!(nvlink::disagreement(&cluster.world, inventory), None);
        }
        cluster.check();
    }
}
