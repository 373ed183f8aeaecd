//! Requests: every fault at once, each with its field, its reason and its fix; defaults filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::admit::{
    AdmitContext, Admitted, CommandRequest, DependencyRequest, Fault, Fleet, JobRequest,
    ScriptRequest, WarningSignalRequest, WorkRequest, admit, arrays_named, name_tasks,
};
use gotgan_core::amount::{CpuMilli, MemoryMib};
use gotgan_core::array::ArraySpec;
use gotgan_core::ids::{GpuClass, JobId};
use gotgan_core::policy::Policy;
use gotgan_core::power::PowerTerms;
use gotgan_core::quota::bounds::Bounds;
use gotgan_core::spec::{DependencyKind, GpuRequest, JobSpec, TaskLayout, Work};
use gotgan_core::topology::{BlockTerms, Level, Segment};
use insta::assert_snapshot;
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// Three nodes of 8 b200 in hall a, one of 4 h200, one without GPUs.
fn context() -> AdmitContext {
    let mut cluster = TestCluster::new();
    cluster.limit("public/nup", &[("b200", 16)]);
    cluster.limit("public/nup/startup-042", &[]);
    for name in ["n1", "n2", "n3"] {
        cluster.node(name).gpus(8, "b200").label("hall", "a").add();
    }
    cluster.node("h1").gpus(4, "h200").cpus(8).add();
    cluster.node("c1").cpus(32).add();
    context_of(&mut cluster)
}

fn context_of(cluster: &mut TestCluster) -> AdmitContext {
    cluster.check();
    AdmitContext {
        quota: Arc::clone(&cluster.world.quota),
        fleet: Arc::new(Fleet::of(&cluster.world)),
        policy: Arc::new(Policy::default()),
    }
}

fn request() -> JobRequest {
    JobRequest {
        project: "public/lab".to_owned(),
        work: Some(command(&["/usr/bin/python3", "train.py"], TaskLayout::PerNode)),
        ..JobRequest::default()
    }
}

fn command(argv: &[&str], layout: TaskLayout) -> WorkRequest {
    let argv = argv.iter().map(ToString::to_string).collect();
    WorkRequest::Command(CommandRequest { argv, layout: Some(layout) })
}

fn script(text: &str) -> WorkRequest {
    WorkRequest::Script(ScriptRequest { text: text.to_owned(), arguments: Vec::new() })
}

fn admitted(change: impl FnOnce(&mut JobRequest)) -> Admitted {
    let mut request = request();
    change(&mut request);
    admit(request, &context()).unwrap()
}

/// Every fault as `field REASON message`.
fn refused(change: impl FnOnce(&mut JobRequest)) -> String {
    let mut request = request();
    change(&mut request);
    let faults = admit(request, &context()).unwrap_err();
    let line = |fault: &Fault| format!("{} {} {}", fault.field, fault.reason.word(), fault.message);
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bare_command_gets_every_default() {
    let Admitted { spec, warnings } = admitted(|_| {});
    assert_eq!((spec.name.as_str(), spec.nodes, spec.time_limit_s), ("python3", 1, 3600));
    assert_eq!(
        (spec.per_node.cpu_milli, spec.per_node.memory_mib),
        (CpuMilli(1000), MemoryMib(1024))
    );
    assert_eq!((spec.requeue, spec.grace_s, spec.max_retries), (true, 30, 0));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn cpus_and_memory_follow_the_gpus_but_not_past_their_part_of_a_node() {
    let whole = admitted(|r| r.resources.gpus_per_node = 2).spec.per_node;
    assert_eq!((whole.cpu_milli, whole.memory_mib), (CpuMilli(8000), MemoryMib(32 * 1024)));
    let few = admitted(|r| {
        r.resources.gpus_per_node = 1;
        r.resources.gpu_class = "h200".to_owned();
    });
    assert_eq!(few.spec.per_node.cpu_milli, CpuMilli(2000));
    let share = admitted(|r| r.resources.gpu_share_milli = 250).spec.per_node;
    assert_eq!((share.cpu_milli, share.memory_mib), (CpuMilli(1000), MemoryMib(4 * 1024)));
}

#[test]
fn a_total_of_gpus_goes_on_as_few_nodes_as_have_them() {
    let gang = |total, nodes| {
        let spec = admitted(|r| {
            r.resources.gpus_total = total;
            r.resources.nodes = nodes;
        })
        .spec;
        let GpuRequest::Whole { count, .. } = spec.per_node.gpus else { panic!("no GPUs") };
        (spec.nodes, count)
    };
    assert_eq!(
        [gang(4, 0), gang(8, 0), gang(12, 0), gang(24, 0)],
        [(1, 4), (1, 8), (2, 6), (3, 8)]
    );
    assert_eq!([gang(6, 2), gang(6, 3)], [(2, 3), (3, 2)]);
}

#[test]
fn a_total_that_does_not_spread_evenly_names_those_that_do() {
    assert_snapshot!(refused(|r| r.resources.gpus_total = 13), @"spec.resources.gpus_total CONFLICT 13 GPUs do not spread evenly over 2 nodes; ask for 12 or 14 GPUs, or give resources.nodes and resources.gpus_per_node");
    assert_snapshot!(refused(|r| { r.resources.gpus_total = 2; r.resources.nodes = 3; }), @"spec.resources.gpus_total CONFLICT 2 GPUs do not spread evenly over 3 nodes; ask for 3 GPUs, or give resources.nodes and resources.gpus_per_node");
}

#[test]
fn unknown_names_come_with_the_one_that_was_meant() {
    assert_snapshot!(refused(|r| {
        r.project = "startup-042".to_owned();
        r.resources.gpus_per_node = 1;
        r.resources.gpu_class = "B200".to_owned();
        r.constraints.nodes = vec!["n9".to_owned(), "N1".to_owned()];
        r.constraints.labels = BTreeMap::from([("hal".to_owned(), "a".to_owned())]);
    }), @r#"
    spec.project UNKNOWN_PROJECT there is no project "startup-042"; did you mean "public/nup/startup-042"?
    spec.resources.gpu_class UNKNOWN_CLASS there is no GPU class "B200"; did you mean "b200"?
    spec.constraints.nodes UNKNOWN_NODE there is no node "n9"; did you mean "n1"?
    spec.constraints.nodes UNKNOWN_NODE there is no node "N1"; did you mean "n1"?
    spec.constraints.labels.hal UNKNOWN_LABEL no node carries the label "hal"; did you mean "hall"?
    "#);
    assert_snapshot!(refused(|r| {
        r.project = "public/nup".to_owned();
        r.constraints.labels = BTreeMap::from([("hall".to_owned(), "zz".to_owned())]);
        r.resources.gpus_per_node = 1;
        r.resources.gpu_class = "quantum".to_owned();
    }), @r#"
    spec.project PROJECT_NOT_A_LEAF "public/nup" has projects below it and takes no jobs itself; use one of them, as public/nup/startup-042
    spec.resources.gpu_class UNKNOWN_CLASS there is no GPU class "quantum"; classes: b200, h200
    spec.constraints.labels.hall UNKNOWN_LABEL no node carries hall="zz"; its values: a
    "#);
}

#[test]
fn what_the_machine_never_had_is_refused_with_what_it_has() {
    assert_snapshot!(refused(|r| r.resources.gpus_per_node = 9), @"spec.resources.gpus_per_node LARGER_THAN_MACHINE asks for 9 GPUs on one node; the largest has 8: ask for more nodes with at most 8 each");
    assert_snapshot!(refused(|r| {
        r.resources.gpus_per_node = 8;
        r.resources.nodes = 4;
    }), @"spec.resources.nodes LARGER_THAN_MACHINE asks for 4 nodes with 8 GPUs, 32 CPUs and 128 GiB memory each; the machine has 3 of them: ask for fewer nodes or for less on each");
    assert_snapshot!(refused(|r| r.resources.gpus_total = 32), @"spec.resources.gpus_total LARGER_THAN_MACHINE asks for 4 nodes with 8 GPUs, 32 CPUs and 128 GiB memory each; the machine has 3 of them: ask for fewer nodes or for less on each");
    assert_snapshot!(refused(|r| r.resources.cpu_milli_per_node = 999_000), @"spec.resources.cpu_milli_per_node LARGER_THAN_MACHINE asks for 999 CPUs on one node; the largest has 128");
    assert_snapshot!(refused(|r| {
        r.resources.gpus_per_node = 1;
        r.resources.gpu_class = "h200".to_owned();
        r.resources.memory_mib_per_node = 1 << 20;
    }), @"spec.resources.memory_mib_per_node LARGER_THAN_MACHINE asks for 1024 GiB memory on one node; the largest has 256 GiB");
}

#[test]
fn an_empty_request_has_all_its_faults_at_once() {
    assert_snapshot!(refused(|r| *r = JobRequest {
        priority: 2000,
        time_limit_s: -5,
        max_retries: 11,
        grace_s: Some(4000),
        ..JobRequest::default()
    }), @r"
    spec.project MISSING no project; name the one that pays, as in public/nup/startup-042
    spec.script MISSING nothing to run; give a script or a command
    spec.time_limit_s OUT_OF_RANGE is -5; give 1 to 604800 seconds
    spec.priority OUT_OF_RANGE is 2000; give -1000 to 1000
    spec.max_retries OUT_OF_RANGE is 11; give 0 to 10 retries
    spec.grace_s OUT_OF_RANGE is 4000; give 0 to 3600 seconds
    ");
}

#[test]
fn fields_that_exclude_each_other_are_refused() {
    assert_snapshot!(refused(|r| {
        r.resources.gpus_per_node = 1;
        r.resources.gpus_total = 2;
        r.resources.gpu_share_milli = 500;
    }), @r"
    spec.resources.gpus_total CONFLICT is given beside resources.gpus_per_node; give one of the two
    spec.resources.gpu_share_milli CONFLICT is given beside whole GPUs; a job has a share of one GPU or whole GPUs
    ");
    assert_snapshot!(refused(|r| {
        r.resources.gpu_class = "b200".to_owned();
        r.work = Some(command(&["true"], TaskLayout::PerGpu));
        r.constraints.nodes = vec!["n1".to_owned()];
        r.constraints.exclude_nodes = vec!["n1".to_owned()];
        r.resources.nodes = 2;
    }), @r"
    spec.resources.gpu_class CONFLICT names a class and the job asks for no GPU; add resources.gpus_per_node or leave the class out
    spec.constraints.exclude_nodes CONFLICT n1 is also in constraints.nodes; remove it from one of the two
    spec.constraints.nodes CONFLICT names 1 of the 2 nodes the job needs; name more or ask for fewer
    spec.command.layout CONFLICT one task a GPU needs whole GPUs; add resources.gpus_per_node or use one task a node
    ");
    assert_snapshot!(refused(|r| r.resources.gpu_share_milli = 1000), @"spec.resources.gpu_share_milli OUT_OF_RANGE is 1000; a share is 1 to 999 thousandths of one GPU: for whole GPUs give resources.gpus_per_node");
}

#[test]
fn scripts_are_held_to_their_form() {
    let texts = ["", "  \n", "echo hi\n", "#!python3\n", "#!/bin/bash\r\necho\r\n"];
    let faults: Vec<_> =
        texts.iter().map(|text| refused(|r| r.work = Some(script(text)))).collect();
    assert_snapshot!(faults.join("\n"), @r"
    spec.script.text MISSING is empty; give a script that begins with #!/bin/bash
    spec.script.text MISSING is empty; give a script that begins with #!/bin/bash
    spec.script.text MALFORMED does not begin with #!; make its first line #!/bin/bash or another interpreter
    spec.script.text MALFORMED names no interpreter by absolute path after #!; write for instance #!/bin/bash
    spec.script.text MALFORMED has Windows line ends, which hide its interpreter; convert it with dos2unix
    ");
    let large = format!("#!/bin/bash\n{}", "#".repeat(1 << 20));
    assert_snapshot!(refused(|r| r.work = Some(script(&large))), @"spec.script.text TOO_LONG has 1048588 bytes; at most 1048576 (1 MiB): move data into files");
    let fits = format!("#!/bin/sh\n{}", "#".repeat((1 << 20) - 10));
    let admitted = admitted(|r| r.work = Some(script(&fits)));
    assert!(matches!(admitted.spec.work, Work::Script { text, .. } if text == fits));
}

#[test]
fn times_and_signals_are_held_to_their_limits() {
    assert_snapshot!(refused(|r| {
        r.time_limit_s = 8 * 24 * 3600;
        r.warning_signal = Some(WarningSignalRequest { signal: 9, ahead_s: 0, batch_only: true });
    }), @r"
    spec.time_limit_s OUT_OF_RANGE is 691200; give 1 to 604800 seconds
    spec.warning_signal.signal OUT_OF_RANGE is 9; give a signal number of 1 to 31, not 9 or 19, as 10 for USR1
    spec.warning_signal.ahead_s OUT_OF_RANGE is 0; give 1 to 86400 seconds
    spec.warning_signal.batch_only CONFLICT is for scripts and the job is a command; leave it out
    ");
    let late = admitted(|r| {
        r.time_limit_s = 60;
        r.warning_signal =
            Some(WarningSignalRequest { signal: 10, ahead_s: 60, batch_only: false });
    });
    assert_snapshot!(late.warnings.join("\n"), @"the warning signal comes 60 s before a time limit of 60 s: at once");
}

#[test]
fn a_task_of_an_array_is_waited_for_by_its_index() {
    let on = |job_id, task_index| {
        let kind = Some(DependencyKind::AfterOk);
        DependencyRequest { kind, job_id, task_index }
    };
    let tasks = vec![on(7, Some(4)), on(7, None), on(8, Some(2)), on(9, Some(0)), on(7, Some(5))];
    let mut spec = admitted(|r| r.dependencies = tasks).spec;
    let of = |array| Arc::new(JobSpec { array, ..spec.clone() });
    let array = ArraySpec::new((0..9).step_by(2), Some(3));
    let known = BTreeMap::from([(JobId(7), of(Some(array))), (JobId(8), of(None))]);
    let named: Vec<u64> = arrays_named(&spec).into_iter().map(|id| id.0).collect();
    assert_eq!(named, [7, 8, 9]);
    let faults = name_tasks(&mut spec, &known).unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_snapshot!(faults.join("\n"), @r"
    spec.dependencies: afterok:8_2: job 8 is no array; wait for the job itself, 8
    spec.dependencies: afterok:7_5: array 7 has the tasks 0-8:2; name one of them, or all of them by 7
    ");
    // The third task of the array has the number three behind the array's own; who is not known is left as it is.
    let jobs: Vec<u64> = spec.dependencies.iter().map(|one| one.job.0).collect();
    assert_eq!(jobs, [10, 7, 8, 9, 7]);
    assert_eq!(spec.dependencies[0].named(), "7_4");
}

#[test]
fn dependencies_are_named_by_their_place() {
    let on = |kind, job_id| DependencyRequest { kind, job_id, task_index: None };
    assert_snapshot!(refused(|r| r.dependencies = vec![
        on(None, 3),
        on(Some(DependencyKind::AfterOk), 0),
        on(Some(DependencyKind::AfterOk), 7),
        on(Some(DependencyKind::AfterNotOk), 7),
    ]), @r"
    spec.dependencies[0].kind MISSING names no kind; use after, afterok, afternotok, afterany or aftercorr
    spec.dependencies[1].job_id MISSING names no job; give the number that submit answered
    spec.dependencies CONFLICT waits for job 7 both to succeed and to fail; keep one
    ");
    let many = (1..=65).map(|job| on(Some(DependencyKind::AfterAny), job)).collect();
    assert_snapshot!(refused(|r| r.dependencies = many), @"spec.dependencies TOO_LONG has 65 jobs; give at most 64");
    let twice = vec![on(Some(DependencyKind::After), 3); 2];
    assert_eq!(admitted(|r| r.dependencies = twice).spec.dependencies.len(), 1);
}

#[test]
fn texts_and_paths_are_held_to_their_form() {
    assert_snapshot!(refused(|r| {
        r.name = "x".repeat(129);
        r.working_directory = "data".to_owned();
        r.output_path = "out-%j-%q.log".to_owned();
        r.comment = "x".repeat(1025);
        r.environment = BTreeMap::from([("A=B".to_owned(), String::new()), ("C".to_owned(), "\0".to_owned())]);
    }), @r#"
    spec.environment MALFORMED "A=B" is no name of a variable; it may not be empty nor have =
    spec.environment.C MALFORMED has a NUL character; remove it
    spec.working_directory MALFORMED "data" is not absolute; begin it with /
    spec.output_path MALFORMED has %q, which means nothing; use %j job, %a attempt, %s step, %t rank, %N node, and in arrays %A array, %i index
    spec.comment TOO_LONG has 1025 characters; give at most 1024
    spec.name TOO_LONG has 129 characters; give at most 128
    "#);
    let large = BTreeMap::from([("A".to_owned(), "x".repeat(200_000))]);
    assert_snapshot!(refused(|r| r.environment = large), @"spec.environment TOO_LONG has 200003 bytes; give at most 131072");
}

#[test]
fn an_image_is_a_path_and_binds_the_job_to_nodes_that_run_images() {
    assert_snapshot!(refused(|r| r.image = "docker://ubuntu:24.04".to_owned()), @r#"spec.image MALFORMED "docker://ubuntu:24.04" is not an absolute path; give a directory on the nodes, as /images/torch (registries are not pulled from)"#);
    assert_snapshot!(refused(|r| r.image = "/images/../etc".to_owned()), @r#"spec.image MALFORMED "/images/../etc" has ".." in it; give the path without it"#);
    let admitted = admitted(|r| r.image = "/images/torch".to_owned());
    assert_eq!(admitted.spec.image.unwrap().as_str(), "/images/torch");
    assert!(admitted.spec.constraints.images);
    assert_eq!(admitted.warnings, ["no node runs jobs with an image now: it waits until one does"]);
}

#[test]
fn a_job_above_its_limit_is_taken_with_a_warning() {
    let admitted = admitted(|r| {
        r.project = "public/nup/startup-042".to_owned();
        r.resources.gpus_total = 24;
        r.resources.gpu_class = "b200".to_owned();
    });
    assert_snapshot!(admitted.warnings.join("\n"), @"public/nup may hold 16 b200 GPUs and the job needs 24: it waits until the limit is raised");
}

#[test]
fn before_any_node_has_come_a_class_of_the_quota_tree_is_taken_with_a_warning() {
    let mut cluster = TestCluster::new();
    cluster.limit("public", &[("b200", 16)]);
    let context = context_of(&mut cluster);
    let mut known = request();
    known.resources.gpus_total = 16;
    known.resources.gpu_class = "b200".to_owned();
    known.constraints.nodes = vec!["n1".to_owned()];
    assert_snapshot!(admit(known.clone(), &context).unwrap().warnings.join("\n"), @r"
    no node with b200 GPUs has registered yet; the job waits for one
    no node has registered yet, so n1 could not be checked
    ");
    known.resources.gpu_class = "h200".to_owned();
    let faults = admit(known, &context).unwrap_err();
    assert_snapshot!(faults[0], @r#"spec.resources.gpu_class: there is no GPU class "h200"; did you mean "b200"?"#);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_numbers_come_the_answer_is_a_spec_or_faults(
        nodes in any::<u32>(), per_node in 0..20_u32, total in any::<u32>(), share in 0..2000_u32,
        cpu in any::<u64>(), memory in any::<u64>(), time in any::<i64>(), kind in 0..4_u8,
    ) {
        let mut request = request();
        let resources = &mut request.resources;
        resources.nodes = if kind == 0 { 0 } else { nodes % 5 };
        match kind {
            1 => resources.gpus_per_node = per_node,
            2 => resources.gpus_total = total % 40,
            3 => resources.gpu_share_milli = share,
            _ => {
                (resources.nodes, resources.gpus_total) = (nodes, total);
                (resources.cpu_milli_per_node, resources.memory_mib_per_node) = (cpu, memory);
            }
        }
        request.time_limit_s = time % 1_000_000;
        match admit(request, &context()) {
            Ok(Admitted { spec, .. }) => {
                prop_assert!(spec.nodes >= 1 && spec.time_limit_s >= 1);
                prop_assert!(spec.per_node.cpu_milli.0 > 0 && spec.per_node.memory_mib.0 > 0);
            }
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }
}

/// As [`context`], with terms at the project and the node above it.
fn bounded_context() -> AdmitContext {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "h200").add();
    let of_lab = Bounds {
        max_gang: crate::terms::every(6),
        max_walltime_s: Some(24 * 3600),
        ..Bounds::default()
    };
    cluster.bounds(crate::cluster::LAB, of_lab);
    let above = Bounds {
        max_gang: crate::terms::of("b200", 4),
        max_walltime_s: Some(1800),
        ..Bounds::default()
    };
    cluster.bounds("public", above);
    context_of(&mut cluster)
}

#[test]
fn a_job_longer_or_larger_than_a_node_above_allows_is_refused_with_that_node() {
    let context = bounded_context();
    let ask = |gpus: u32, class: &str, time_limit_s: i64| {
        let mut request = request();
        request.resources.gpus_per_node = gpus;
        request.resources.gpu_class = class.to_owned();
        request.time_limit_s = time_limit_s;
        admit(request, &context).map(|admitted| admitted.spec.time_limit_s)
    };
    let faults = ask(5, "b200", 1801).unwrap_err();
    let lines = faults.iter().map(|fault| format!("{} {fault}", fault.reason.word()));
    assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @"
    BEYOND_TERM spec.time_limit_s: is 1801s, and max_walltime of public is 30m; ask for less
    BEYOND_TERM spec.resources: ask for 5 b200 GPUs, and max_gang of public is 4; ask for fewer
    ");
    assert_eq!(ask(4, "b200", 1800), Ok(1800));
    // Of any class, one that allows it is enough; and the default is no longer than what is allowed.
    assert_eq!(ask(6, "", 0), Ok(1800));
    assert!(
        ask(7, "", 0).unwrap_err()[0]
            .message
            .contains("7 h200 GPUs, and max_gang of public/lab is 6")
    );
}

/// Two NVLink domains, of four nodes and of three.
fn domains(change: impl FnOnce(&mut JobRequest)) -> Result<Admitted, String> {
    let mut cluster = TestCluster::new();
    for (name, domain) in
        [("a1", "a"), ("a2", "a"), ("a3", "a"), ("a4", "a"), ("b1", "b"), ("b2", "b"), ("b3", "b")]
    {
        cluster.node(name).gpus(4, "gb200").label("nvlink", domain).add();
    }
    let mut request = request();
    request.resources.gpus_per_node = 4;
    change(&mut request);
    admit(request, &context_of(&mut cluster)).map_err(|faults| {
        let line =
            |fault: &Fault| format!("{} {} {}", fault.field, fault.reason.word(), fault.message);
        faults.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn what_is_asked_of_blocks_is_admitted() {
    let Admitted { spec, warnings } = domains(|r| {
        r.resources.nodes = 4;
        r.constraints.one = "nvlink".to_owned();
        r.constraints.prefer = "nvlink".to_owned();
        r.constraints.segment_nodes = 2;
    })
    .unwrap();
    let segment = Some(Segment { nodes: 2, level: Level::Nvlink });
    let (one, prefer) = (Some(Level::Nvlink), Some(Level::Nvlink));
    assert_eq!(spec.constraints.blocks, BlockTerms { one, prefer, segment });
    assert_snapshot!(warnings.join("\n"), @"prefers one NVLink domain and must have one: it has no choice");
}

#[test]
fn one_cluster_has_two_spellings() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "gb200").label("cluster", "a").add();
    let context = context_of(&mut cluster);
    for same_cluster in [true, false] {
        let mut request = request();
        request.constraints.same_cluster = same_cluster;
        request.constraints.one = if same_cluster { "" } else { "cluster" }.to_owned();
        let spec = admit(request, &context).unwrap().spec;
        assert_eq!(spec.constraints.blocks.one, Some(Level::Cluster));
    }
}

#[test]
fn what_no_block_could_ever_hold_is_refused_with_the_numbers() {
    let found = domains(|r| {
        r.resources.nodes = 5;
        r.constraints.one = "nvlink".to_owned();
        r.constraints.segment_nodes = 2;
    });
    assert_snapshot!(found.unwrap_err(), @"
    spec.constraints.one LARGER_THAN_MACHINE the job needs 5 nodes of one NVLink domain, and the largest, a, has 4; ask for fewer
    spec.constraints.segment_nodes CONFLICT the job needs 5 nodes, which is no multiple of its segments of 2; ask for 4 or 6 nodes, or for other segments
    ");
    let found = domains(|r| {
        r.resources.nodes = 6;
        r.constraints.segment_nodes = 3;
    });
    assert_eq!(found.unwrap().spec.nodes, 6);
    let found = domains(|r| {
        r.resources.nodes = 6;
        r.constraints.segment_nodes = 6;
    });
    assert_snapshot!(found.unwrap_err(), @"spec.constraints.segment_nodes LARGER_THAN_MACHINE the job needs 1 segment of 6 nodes of one NVLink domain each, and there is room for 0 if all is empty; ask for fewer nodes or smaller segments");
}

#[test]
fn levels_that_are_not_there_are_refused_with_what_there_is() {
    let found = domains(|r| {
        r.constraints.one = "rak".to_owned();
        r.constraints.prefer = "leaf".to_owned();
        r.constraints.segment_level = "row".to_owned();
        r.constraints.same_cluster = true;
    });
    assert_snapshot!(found.unwrap_err(), @r#"
    spec.constraints.one UNKNOWN_LEVEL there is no level "rak"; levels: cluster, hall, spine, leaf, rack, nvlink
    spec.constraints.prefer LARGER_THAN_MACHINE no node says which leaf switch it belongs to: operators name it in the worker's [topology] leaf, or by the label leaf
    spec.constraints.segment_level UNKNOWN_LEVEL there is no level "row"; levels: cluster, hall, spine, leaf, rack, nvlink
    "#);
    let found = domains(|r| {
        r.constraints.one = "nvlink".to_owned();
        r.constraints.same_cluster = true;
        r.constraints.segment_level = "rack".to_owned();
    });
    assert_snapshot!(found.unwrap_err(), @"
    spec.constraints.same_cluster CONFLICT asks for one NVLink domain beside one cluster; leave one of the two out
    spec.constraints.segment_level CONFLICT is the level of segments, and no size is given; add constraints.segment_nodes
    ");
}

#[test]
fn an_elastic_job_says_the_fewest_and_the_most_nodes() {
    let elastic = |nodes, nodes_max| {
        move |r: &mut JobRequest| {
            (r.resources.nodes, r.resources.nodes_max) = (nodes, nodes_max);
            r.resources.gpus_per_node = 8;
        }
    };
    let found = admitted(elastic(1, 3));
    assert_eq!((found.spec.nodes, found.spec.nodes_max, found.warnings), (1, Some(3), Vec::new()));
    assert_eq!(admitted(elastic(2, 2)).spec.nodes_max, None);
    let more = admitted(elastic(2, 5));
    assert_snapshot!(more.warnings.join("\n"), @"the machine has 3 such nodes, so the job never has 5");
    assert_snapshot!(refused(elastic(3, 2)), @"spec.resources.nodes_max OUT_OF_RANGE is 2, and the job has 3 at least; give 3 or more");
    assert_snapshot!(refused(elastic(2, 20_000)), @"spec.resources.nodes_max OUT_OF_RANGE is 20000; give 1 to 10000 nodes");
    assert_snapshot!(refused(|r| {
        (r.resources.nodes, r.resources.nodes_max, r.resources.gpus_total) = (2, 4, 16);
    }), @"spec.resources.gpus_total CONFLICT cannot be spread over a number of nodes that is found at the start; give resources.gpus_per_node");
    assert_snapshot!(refused(|r| {
        elastic(2, 3)(r);
        r.constraints.segment_nodes = 2;
        r.constraints.segment_level = "hall".to_owned();
    }), @"spec.resources.nodes_max CONFLICT is 3, no multiple of segments of 2; give 2 or 4");
    assert_snapshot!(refused(elastic(4, 8)), @"spec.resources.nodes LARGER_THAN_MACHINE asks for 4 nodes with 8 GPUs, 32 CPUs and 128 GiB memory each; the machine has 3 of them: ask for fewer nodes or for less on each");
}

#[test]
fn only_arrays_wait_for_others_task_by_task_and_they_have_the_same_indexes() {
    let on = |job_id, task_index| {
        let kind = Some(DependencyKind::AfterCorr);
        DependencyRequest { kind, job_id, task_index }
    };
    assert_snapshot!(refused(|r| r.dependencies = vec![on(7, Some(1)), on(8, None)]), @r"
    spec.dependencies CONFLICT has aftercorr, by which the tasks of an array wait, and the job is none; use afterok, or give spec.array
    spec.dependencies CONFLICT has aftercorr more than once; name one array
    spec.dependencies CONFLICT aftercorr:7_1 names one task; name the array, 7
    ");
    let spec = admitted(|r| {
        (r.array, r.dependencies) = ("0-9%2".to_owned(), vec![on(7, None)]);
    });
    let against = |array: Option<ArraySpec>| {
        let mut spec = spec.spec.clone();
        let other = Arc::new(JobSpec { array, ..spec.clone() });
        assert_eq!(arrays_named(&spec).into_iter().collect::<Vec<_>>(), [JobId(7)]);
        let named = name_tasks(&mut spec, &BTreeMap::from([(JobId(7), other)]));
        named.map_err(|faults| faults[0].to_string())
    };
    assert_eq!(against(Some(ArraySpec::new(0..10, None))), Ok(()));
    assert_snapshot!(against(Some(ArraySpec::new(0..9, None))).unwrap_err(), @"spec.dependencies: aftercorr:7: array 7 has the tasks 0-8 and this one 0-9; both must have the same");
    assert_snapshot!(against(None).unwrap_err(), @"spec.dependencies: aftercorr:7: job 7 is no array; use afterok");
}

/// As [`context`], with B200s that can be capped and two modes.
fn context_with_power() -> AdmitContext {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").caps(200).add();
    cluster.node("h1").gpus(4, "h200").add();
    let b200 = GpuClass::new("b200").unwrap();
    let of = |watts| BTreeMap::from([(b200.clone(), watts)]);
    let modes = [("efficient", 600), ("wild", 2_000)];
    let modes = modes.map(|(mode, watts)| (mode.to_owned(), of(watts))).into();
    let power = PowerTerms { modes, cap_watts: of(800), ..PowerTerms::default() };
    let policy = Arc::new(Policy { power, ..Policy::default() });
    AdmitContext { policy, ..context_of(&mut cluster) }
}

fn with_power(change: impl FnOnce(&mut JobRequest)) -> Result<Admitted, String> {
    let mut request = request();
    request.resources.gpus_per_node = 4;
    change(&mut request);
    let line = |fault: &Fault| format!("{} {} {}", fault.field, fault.reason.word(), fault.message);
    admit(request, &context_with_power())
        .map_err(|faults| faults.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_cap_is_watts_or_a_word_of_the_site_for_the_class() {
    let watts = with_power(|request| request.resources.gpu_cap_watts = 500).unwrap();
    assert_eq!(watts.spec.per_node.gpu_cap_watts, Some(500));
    assert_eq!(watts.warnings, Vec::<String>::new());
    let word = with_power(|request| {
        request.resources.gpu_class = "b200".to_owned();
        request.resources.gpu_power_mode = "efficient".to_owned();
    });
    assert_eq!(word.unwrap().spec.per_node.gpu_cap_watts, Some(600));
    assert_eq!(with_power(|_| {}).unwrap().spec.per_node.gpu_cap_watts, None);
}

#[test]
fn a_cap_above_what_the_site_orders_is_warned_of() {
    let found = with_power(|request| {
        request.resources.gpu_class = "b200".to_owned();
        request.resources.gpu_cap_watts = 900;
    });
    assert_snapshot!(found.unwrap().warnings.join("\n"), @"the site caps b200 GPUs at 800 W, so that is what it gets");
}

#[test]
fn a_cap_where_nothing_can_be_capped_now_is_warned_of() {
    let found = with_power(|request| {
        request.resources.gpu_class = "h200".to_owned();
        request.resources.gpu_cap_watts = 400;
    });
    assert_snapshot!(found.unwrap().warnings.join("\n"), @"no node that could serve can cap its GPUs now: it waits until one can");
}

#[test]
fn a_cap_that_cannot_be_is_refused_with_the_range_or_the_words() {
    let class = |request: &mut JobRequest| request.resources.gpu_class = "b200".to_owned();
    let mode = |mode: &str, with_class: bool| {
        with_power(|request| {
            if with_class {
                class(request);
            }
            request.resources.gpu_power_mode = mode.to_owned();
        })
        .unwrap_err()
    };
    let low = with_power(|request| {
        class(request);
        request.resources.gpu_cap_watts = 100;
    });
    assert_snapshot!(low.unwrap_err(), @"spec.resources.gpu_cap_watts OUT_OF_RANGE is 100 W; b200 GPUs here take 200 to 1000 W");
    assert_snapshot!(mode("wild", true), @"spec.resources.gpu_power_mode OUT_OF_RANGE is 2000 W; b200 GPUs here take 200 to 1000 W");
    assert_snapshot!(mode("eficient", true), @r#"spec.resources.gpu_power_mode MALFORMED the site has no power mode "eficient"; did you mean "efficient"?, or give watts"#);
    assert_snapshot!(mode("efficient", false), @r#"spec.resources.gpu_power_mode MISSING "efficient" means other watts for each class; name the class in resources.gpu_class"#);
    let other = with_power(|request| {
        request.resources.gpu_class = "h200".to_owned();
        request.resources.gpu_power_mode = "efficient".to_owned();
    });
    assert_snapshot!(other.unwrap_err(), @r#"spec.resources.gpu_power_mode OUT_OF_RANGE "efficient" is for b200, and not for h200; give watts instead"#);
    let both = with_power(|request| {
        request.resources.gpu_cap_watts = 500;
        request.resources.gpu_power_mode = "efficient".to_owned();
    });
    assert_snapshot!(both.unwrap_err(), @"spec.resources.gpu_cap_watts CONFLICT is given beside resources.gpu_power_mode; keep one");
    let share = with_power(|request| {
        (request.resources.gpus_per_node, request.resources.gpu_share_milli) = (0, 500);
        request.resources.gpu_cap_watts = 500;
    });
    assert_snapshot!(share.unwrap_err(), @"spec.resources.gpu_cap_watts CONFLICT caps a whole GPU, of which others have shares; ask for whole GPUs or leave it out");
    let none = with_power(|request| {
        request.resources.gpus_per_node = 0;
        request.resources.gpu_cap_watts = 500;
    });
    assert_snapshot!(none.unwrap_err(), @"spec.resources.gpu_cap_watts CONFLICT caps GPUs and the job asks for none; add resources.gpus_per_node or leave it out");
}
