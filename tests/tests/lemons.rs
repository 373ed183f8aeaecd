//! A node on which jobs fail and nowhere else: seen, told, remembered by a scheduler that is started again.

use gotgan_proto::v1::{HealthState, JobState};
use gotgan_tests::jobs::{ALPHA, Shape, shell};
use gotgan_tests::{Cluster, Database};

on_each_database! {
    a_node_on_which_jobs_of_three_people_fail_is_told_as_a_lemon_also_after_a_restart,
}

async fn a_node_on_which_jobs_of_three_people_fail_is_told_as_a_lemon_also_after_a_restart(
    database: Database,
) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "2xB200").await;
    for person in ["kim", "lee", "park"] {
        let api = cluster.api.as_member(person, &[ALPHA]).await;
        let job = api.submit(shell("exit 3").gpus(1)).await;
        assert_eq!(api.wait_for_end(job).await.state(), JobState::Failed);
    }
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let node = cluster.api.try_node("node-a").await.unwrap();
    let health = node.health.unwrap();
    assert_eq!((health.state(), health.signal.as_str()), (HealthState::Suspect, "lemon"));
    assert_eq!(node.score.unwrap().users, 3);
    let shown = cluster.gotgan().run(&["node", "node-a"]).ok();
    assert!(shown.contains("a lemon from 3: jobs of 3 users"), "{shown}");
    let history = cluster.gotgan().run(&["node", "history", "node-a"]).ok();
    assert!(history.contains("hardware suspect: the node: jobs fail here"), "{history}");
    cluster.gotgan().run(&["node", "verify", "node-a"]).ok();
    let node = cluster.api.try_node("node-a").await.unwrap();
    assert_eq!((node.health.unwrap().state(), node.score), (HealthState::Ok, None));
}
