//! How a node of the quota tree stands.

use gotgan_core::amount::GpuMilli;
use gotgan_core::ids::ProjectPath;
use gotgan_core::overview::{Standing, standings};

use crate::cluster::TestCluster;
use crate::tiers::cluster;

fn standing(cluster: &TestCluster, path: &str) -> Standing {
    let path = ProjectPath::new(path).unwrap();
    let mut found = standings(&cluster.world, &path, cluster.now).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_lender_sees_what_it_lends_and_to_whom() {
    let mut cluster = cluster();
    cluster.job().project("public/c").gpus(6, "b200").submit();
    cluster.start_all();
    let a = standing(&cluster, "public/a");
    let gpus = GpuMilli::whole;
    assert_eq!((a.guarantee, a.scaled, a.held, a.asked), (gpus(4), gpus(4), gpus(0), gpus(0)));
    assert_eq!((a.entitled, a.lent), (gpus(0), gpus(4)));
    assert_eq!(a.borrowers, [(ProjectPath::new("public/c").unwrap(), gpus(6))]);
    let c = standing(&cluster, "public/c");
    assert_eq!((c.guarantee, c.held, c.borrowed(), c.lent), (gpus(0), gpus(6), gpus(6), gpus(0)));
    assert_eq!(c.borrowers, [], "those below the node are not its borrowers");
}

#[test]
fn with_hardware_out_of_service_guarantees_are_told_scaled() {
    let mut cluster = cluster();
    cluster.node("n2").gpus(4, "b200").add();
    cluster.drain("n1", "fans");
    cluster.check();
    let top = standing(&cluster, "public");
    let gpus = GpuMilli::whole;
    assert_eq!((top.guarantee, top.scaled), (gpus(6), gpus(4)));
    let a = standing(&cluster, "public/a");
    assert_eq!((a.guarantee, a.scaled), (gpus(4), gpus(3)));
}

#[test]
fn the_limit_that_is_nearest_binds_wherever_it_stands() {
    let mut cluster = cluster();
    cluster.limit("public", &[("b200", 6)]);
    cluster.limit("public/c", &[("b200", 5)]);
    cluster.job().project("public/b").gpus(2, "b200").submit();
    cluster.job().project("public/c").gpus(1, "b200").submit();
    cluster.start_all();
    let binding = standing(&cluster, "public/c").limit.unwrap();
    assert_eq!((binding.path.as_str(), binding.limit), ("public", GpuMilli::whole(6)));
    assert_eq!(binding.held, GpuMilli::whole(3));
}

#[test]
fn a_node_that_is_not_there_has_no_standing() {
    let mut cluster = cluster();
    cluster.check();
    let nobody = ProjectPath::new("public/x").unwrap();
    assert_eq!(standings(&cluster.world, &nobody, cluster.now), None);
}
