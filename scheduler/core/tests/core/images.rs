//! Jobs with an image: on which nodes they start, and what they are told where none can run them.

use gotgan_core::image::Images;
use gotgan_core::plan::BlockerKind;
use insta::assert_snapshot;

use crate::cluster::TestCluster;

fn able() -> Images {
    Images::Able("runc 1.1.5".to_owned())
}

#[test]
fn a_job_with_an_image_starts_only_where_images_run() {
    let mut cluster = TestCluster::new();
    cluster.node("old").gpus(4, "b200").add();
    cluster.node("off").gpus(4, "b200").images(Images::Off).add();
    let unable = Images::Unable("runc: not found".to_owned());
    cluster.node("lame").gpus(4, "b200").images(unable).add();
    cluster.node("able").gpus(4, "b200").images(able()).add();
    let job = cluster.job().gpus(4, "b200").image("/images/torch").submit();
    let more = cluster.job().gpus(4, "b200").image("/images/torch").submit();
    cluster.expect_on(job, &["able"]);
    cluster.expect_waiting(more);
    cluster.check();
}

#[test]
fn where_no_node_runs_images_a_job_is_told_so() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").images(Images::Off).add();
    let job = cluster.job().gpus(4, "b200").image("/images/torch").submit();
    cluster.expect_waiting(job);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(job)[0].kind, BlockerKind::Constraints);
    assert_snapshot!(outcome.sentences(job), @"no node has 4 b200 GPUs, 1 CPU and 1 GiB memory and a runtime for images, in use or not");
}

#[test]
fn a_gang_with_an_image_is_told_how_many_nodes_run_images() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").images(able()).add();
    cluster.node("n2").gpus(4, "b200").add();
    let job = cluster.job().gpus(4, "b200").nodes(2).image("/images/torch").submit();
    cluster.expect_waiting(job);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(job), @"needs 2 nodes with 4 b200 GPUs, 1 CPU and 1 GiB memory and a runtime for images; there are only 1");
}
