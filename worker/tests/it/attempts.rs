//! Attempts from their order to their end.

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{
    Cause, ForgetAttempt, GpuAllocation, StartAttempt, WarningSignal, worker_message::Message,
};

use crate::cluster::{
    Cluster, EPOCH, command, end_of, eventually, has_line, lives, script, step, task_end,
};

#[tokio::test]
async fn a_worker_registers_with_its_inventory_and_sends_heartbeats() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let inventory = peer.register.inventory.clone().unwrap();
    assert_eq!((peer.node.as_str(), inventory.node.as_str()), ("n1", "n1"));
    assert!(inventory.simulated);
    assert_eq!(inventory.gpus.len(), 2);
    assert_eq!(inventory.address, "127.0.0.1");
    for seq in 1..3 {
        let Message::Heartbeat(heartbeat) = peer.message().await else { panic!("no heartbeat") };
        assert_eq!(heartbeat.seq, seq);
        assert_eq!(heartbeat.gpus.len(), 2);
    }
}

#[tokio::test]
async fn a_command_of_one_node_goes_through_all_reports_to_its_end() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(command(7, &["sh", "-c", "exit 3"], 1))).await;
    let reports = peer.reports_until_end().await;
    let seqs: Vec<u64> = reports.iter().map(|report| report.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert!(matches!(reports[0].event, Some(Event::Accepted(_))));
    assert!(matches!(reports[1].event, Some(Event::Started(_))));
    assert!(matches!(reports[2].event, Some(Event::TaskStarted(_))));
    assert_eq!(task_end(&reports, 0, 0).exit.unwrap().code, 3);
    let (cause, reason, exit) = end_of(&reports);
    assert_eq!((cause, exit.code), (Cause::User, 3));
    assert_eq!(reason, "rank 0 exited with code 3");
}

#[tokio::test]
async fn a_gang_waits_for_its_start_and_a_repeated_start_starts_once() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mark = cluster.output("mark");
    let mut order = script(7, &format!("echo x >> {}", mark.display()));
    order.start_now = false;
    peer.order(Order::RunAttempt(order.clone())).await;
    peer.reports_until(|event| matches!(event, Event::Accepted(_))).await;
    assert!(!mark.exists());
    let start = StartAttempt { epoch: EPOCH, job_id: 7, attempt: 1 };
    for _ in 0..3 {
        peer.order(Order::StartAttempt(start)).await;
        peer.order(Order::RunAttempt(order.clone())).await;
    }
    peer.reports_until_end().await;
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "x\n");
}

#[tokio::test]
async fn an_order_of_an_older_leader_is_refused() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mut old = script(7, "true");
    old.epoch = EPOCH - 1;
    peer.order(Order::RunAttempt(old)).await;
    peer.order(Order::RunAttempt(script(8, "true"))).await;
    let reports = peer.reports_until_end().await;
    assert!(reports.iter().all(|report| report.job_id == 8));
}

#[tokio::test]
async fn a_signal_that_ends_a_task_is_told_apart_from_a_code() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "kill -SEGV $$"))).await;
    let (_, reason, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((exit.code, exit.signal), (0, 11));
    assert_eq!(reason, "the script was ended by signal 11");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_in_the_detail_and_on_standard_error() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(command(7, &["no-such-program"], 1))).await;
    let reports = peer.reports_until_end().await;
    let ended = task_end(&reports, 0, 0);
    assert_eq!(ended.exit.unwrap().code, 127);
    assert!(ended.detail.contains("no-such-program"), "{}", ended.detail);
    let stderr = cluster.state().join("attempts/7.1/step-0/rank-0.stderr");
    assert!(std::fs::read_to_string(stderr).unwrap().contains("no-such-program"));
    assert_eq!(end_of(&reports).2.code, 127);
}

#[tokio::test]
async fn a_working_directory_that_is_not_there_is_named() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mut order = command(7, &["true"], 1);
    order.spec.as_mut().unwrap().working_directory = "/no/such/place".into();
    peer.order(Order::RunAttempt(order)).await;
    let ended = task_end(&peer.reports_until_end().await, 0, 0);
    assert_eq!(ended.exit.unwrap().code, 127);
    assert!(ended.detail.contains("/no/such/place"), "{}", ended.detail);
}

#[tokio::test]
async fn one_failing_rank_ends_the_others_and_is_named() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let body = "[ $RANK = 1 ] && exit 9; sleep 1000";
    peer.order(Order::RunAttempt(command(7, &["sh", "-c", body], 2))).await;
    let reports = peer.reports_until_end().await;
    let (cause, reason, exit) = end_of(&reports);
    assert_eq!((cause, exit.code), (Cause::User, 9));
    assert_eq!(reason, "rank 1 exited with code 9");
    let other = task_end(&reports, 0, 0);
    assert_eq!(other.exit.unwrap().signal, 15);
    assert!(other.detail.contains("rank 1"), "{}", other.detail);
}

#[tokio::test]
async fn the_time_limit_ends_an_attempt_and_says_so() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mut order = script(7, "sleep 1000");
    order.time_limit_s = 1;
    peer.order(Order::RunAttempt(order)).await;
    let (cause, reason, _) = end_of(&peer.reports_until_end().await);
    assert_eq!(cause, Cause::Limit);
    assert!(reason.contains("1 s"), "{reason}");
}

#[tokio::test]
async fn a_task_that_ignores_term_is_killed_after_the_grace() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let ready = cluster.output("ready");
    let body = format!("trap '' TERM; echo x > {}; while :; do sleep 0.1; done", ready.display());
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("ready", || has_line(&ready)).await;
    peer.stop(7, Cause::Preempted, 1).await;
    let (cause, reason, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.signal), (Cause::Preempted, 9));
    assert_eq!(reason, "told to");
}

#[tokio::test]
async fn a_descendant_in_a_session_of_its_own_does_not_survive() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let (hidden, orphan) = (cluster.output("hidden"), cluster.output("orphan"));
    let body = format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.1; done' &\n\
         (sh -c 'echo $$ > {}; exec sleep 1000' &)\n\
         while ! [ -s {} -a -s {} ]; do sleep 0.01; done; exit 4",
        hidden.display(),
        orphan.display(),
        hidden.display(),
        orphan.display(),
    );
    let mut order = script(7, &body);
    order.grace_s = 1;
    peer.order(Order::RunAttempt(order)).await;
    let (cause, _, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.code), (Cause::User, 4));
    assert!(!lives(&hidden));
    assert!(!lives(&orphan));
}

#[tokio::test]
async fn the_warning_signal_comes_before_the_limit() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mut order = script(7, "trap 'exit 5' USR1; while :; do sleep 0.05; done");
    order.time_limit_s = 60;
    let warning = WarningSignal { signal: 10, ahead_s: 59, batch_only: true };
    order.spec.as_mut().unwrap().warning_signal = Some(warning);
    peer.order(Order::RunAttempt(order)).await;
    let (cause, _, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.code), (Cause::User, 5));
}

#[tokio::test]
async fn a_script_without_a_handler_survives_the_warning_that_its_program_gets() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let ready = cluster.output("ready");
    let body = format!(
        "sh -c 'trap \"exit 5\" USR1; echo x > {}; while :; do sleep 0.05; done'; exit $?",
        ready.display()
    );
    let mut order = script(7, &body);
    let warning = WarningSignal { signal: 10, ahead_s: 30, batch_only: false };
    order.spec.as_mut().unwrap().warning_signal = Some(warning);
    peer.order(Order::RunAttempt(order)).await;
    eventually("ready", || has_line(&ready)).await;
    peer.stop(7, Cause::Preempted, 60).await;
    let (cause, _, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.code), (Cause::Preempted, 5));
}

#[tokio::test]
async fn a_script_starts_further_steps_that_end_with_it() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let go = cluster.output("go");
    let body = format!("while ! [ -e {} ]; do sleep 0.02; done", go.display());
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.order(step(7, 1, &["sh", "-c", "echo one-$GOTGAN_STEP-$RANK; exit 6"])).await;
    peer.order(step(7, 1, &["sh", "-c", "echo one-$GOTGAN_STEP-$RANK; exit 6"])).await;
    let one = |event: &Event| matches!(event, Event::TaskEnded(ended) if ended.step == 1);
    let reports = peer.reports_until(one).await;
    assert_eq!(task_end(&reports, 1, 0).exit.unwrap().code, 6);
    let output = cluster.state().join("attempts/7.1/step-1/rank-0.stdout");
    assert_eq!(std::fs::read_to_string(output).unwrap(), "one-1-0\n");
    peer.order(step(7, 2, &["sleep", "1000"])).await;
    peer.reports_until(|event| matches!(event, Event::TaskStarted(s) if s.step == 2)).await;
    std::fs::write(&go, "").unwrap();
    let reports = peer.reports_until_end().await;
    assert_eq!(task_end(&reports, 2, 0).exit.unwrap().signal, 15);
    let (cause, _, exit) = end_of(&reports);
    assert_eq!((cause, exit.code, exit.signal), (Cause::User, 0, 0));
}

#[tokio::test]
async fn a_node_without_tasks_of_the_first_step_runs_until_it_is_stopped() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mut order = script(7, "true");
    order.tasks.clear();
    peer.order(Order::RunAttempt(order)).await;
    peer.order(step(7, 1, &["true"])).await;
    peer.reports_until(|event| matches!(event, Event::TaskEnded(_))).await;
    // Where nothing runs any more there is nobody to wait for.
    peer.stop(7, Cause::User, 3600).await;
    let (cause, ..) = end_of(&peer.reports_until_end().await);
    assert_eq!(cause, Cause::User);
}

#[tokio::test]
async fn a_gpu_that_is_in_use_or_not_here_is_refused() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let with_gpu = |job_id, uuid: &str| {
        let mut order = script(job_id, "sleep 1000");
        order.gpus = vec![GpuAllocation { uuid: uuid.into(), milli: 1000 }];
        Order::RunAttempt(order)
    };
    peer.order(with_gpu(7, "GPU-SIM-n1-0")).await;
    peer.until_started().await;
    for (job_id, uuid, cause) in
        [(8, "GPU-SIM-n1-0", Cause::Node), (9, "GPU-elsewhere", Cause::Hardware)]
    {
        peer.order(with_gpu(job_id, uuid)).await;
        let reports = peer.reports_until_end().await;
        let Some(Event::Refused(refused)) = &reports[0].event else { panic!("{reports:?}") };
        assert_eq!(refused.cause(), cause);
        assert!(refused.reason.contains(uuid));
    }
    peer.stop(7, Cause::User, 5).await;
    peer.reports_until_end().await;
    peer.order(with_gpu(10, "GPU-SIM-n1-0")).await;
    peer.until_started().await;
    peer.stop(10, Cause::User, 5).await;
    peer.reports_until_end().await;
}

#[tokio::test]
async fn a_forgotten_attempt_is_held_no_longer_but_its_output_is_kept() {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    for job_id in [7, 8] {
        peer.order(Order::RunAttempt(script(job_id, "echo hello"))).await;
        peer.reports_until_end().await;
    }
    let forget = ForgetAttempt { epoch: EPOCH, job_id: 7, attempt: 1 };
    peer.order(Order::ForgetAttempt(forget)).await;
    // Once a later attempt has ended, the order before it was carried out.
    peer.order(Order::RunAttempt(script(9, "true"))).await;
    peer.reports_until_end().await;
    daemon.kill();
    let _daemon = cluster.daemon();
    let peer = cluster.peer().await;
    let held: Vec<u64> = peer.register.held.iter().map(|held| held.job_id).collect();
    assert_eq!(held, [8, 9]);
    assert!(peer.register.held.iter().all(|held| held.ended));
    assert!(cluster.state().join("attempts/7.1/step-0/rank-0.stdout").exists());
}

#[tokio::test]
async fn many_short_attempts_at_once_all_end_with_gapless_reports() {
    const JOBS: u64 = 200;
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let orders = peer.sender();
    let sending = tokio::spawn(async move {
        for job_id in 1..=JOBS {
            orders.order(Order::RunAttempt(command(job_id, &["true"], 1))).await;
        }
    });
    let mut seqs = std::collections::BTreeMap::<u64, Vec<u64>>::new();
    let mut ended = 0;
    while ended < JOBS {
        let report = peer.report().await;
        let known = seqs.entry(report.job_id).or_default();
        if !known.contains(&report.seq) {
            known.push(report.seq);
            ended += u64::from(matches!(report.event, Some(Event::Ended(_))));
        }
    }
    sending.await.unwrap();
    assert!(seqs.values().all(|seqs| *seqs == [1, 2, 3, 4, 5]));
}
