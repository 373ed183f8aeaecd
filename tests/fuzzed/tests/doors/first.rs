//! The first seeds: files of this checkout, and messages in which everything is as it should be. What fuzzers make of them is
//! kept beside them.

use std::fs;
use std::path::{Path, PathBuf};

use gotgan_proto::v1;
use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::worker_message::Message as Said;
use prost::Message;

/// A target, the seed's name, and the seed.
pub type Seed = (&'static str, String, Vec<u8>);

/// All of them.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = files();
    seeds.extend(words());
    let calls = calls();
    seeds.extend(calls.iter().map(|(call, message)| {
        let place = gotgan_fuzzed::CALLS.iter().position(|known| known == call).unwrap();
        let bytes = [&[u8::try_from(place).unwrap(), 0][..], message].concat();
        ("request", call.replace('/', "-").to_lowercase(), bytes)
    }));
    seeds.extend(sessions());
    seeds.push(("journal", "batch".to_owned(), journal()));
    seeds
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files() -> Vec<Seed> {
    let read = |path: &str| fs::read(checkout().join(path)).unwrap();
    let file = |target, name: &str, kind: &[u8], path: &str| {
        (target, name.to_owned(), [kind, &read(path)].concat())
    };
    let journal = read("worker/tests/it/fixtures/0.1.0/journal");
    let journal = journal.get(..1_500).unwrap_or(&journal).to_vec();
    vec![
        file("script", "train", b"", "examples/train/job.sh"),
        file("script", "allreduce", b"", "examples/allreduce/job.sh"),
        file("quota", "small", b"", "examples/quota/small/nup.toml"),
        file("quota", "public", b"", "examples/quota/public-50k/public.toml"),
        file("quota", "edu", b"", "examples/quota/public-50k/edu.toml"),
        file("config", "scheduler", b"\0", "docs/operations/scheduler.toml"),
        file("config", "worker", b"\x01", "docs/operations/worker.toml"),
        file("config", "rules", b"\x02", "scheduler/core/src/health/rules.toml"),
        file("config", "scenario", b"\x03", "examples/scenarios/recall.toml"),
        ("journal", "0.1.0".to_owned(), journal),
    ]
}

fn words() -> Vec<Seed> {
    let units = [
        "1-02:03:04",
        "90s",
        "8G",
        "0.5",
        "b200:8",
        "node[01-12,20],login1",
        "0-98:2,7%10",
        "12_[5-9,12]",
        "afterok:1:2,afterany:3_7",
        "B:USR1@90",
        "public/nup/startup-042",
        "2027-03-02T10:00:00+09:00",
        "3g.40gb",
        "42d",
        "SEED=42",
    ];
    let units = units
        .iter()
        .enumerate()
        .map(|(at, text)| ("units", format!("word-{at}"), text.as_bytes().to_vec()));
    let sbatch = "#!/bin/bash\n#SBATCH -N2 -t 10 -J=name --mem 8G --gres=gpu:b200:8\n#GOTGAN --project 'public/nup' --array 0-9%2\n\
                  #SBATCH --dependency=afterok:7 --signal=B:USR1@90 --nodelist=n[1-3]\necho\n";
    let log = "6,339,5140900,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.\n\
               4,340,5140901,-;NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.\n12,341,1,-;NVRM: Xid (PCI:0000:3b:00): 13\n";
    let dump = "# c\nCluster - 'c1':Fairshare=1\nParent - 'root'\nAccount - 'lab':Description='x':GrpTRES=gres/gpu:h200=4\n\
                Parent - 'lab'\nUser - 'lee':DefaultAccount='lab':MaxJobs=4\n";
    let csv = "id,submit_s,duration_s,gpus,vc,asked_s\n1,0,10,8,a,20\n2,5,1,1,b,\n";
    let swf = "; Version: 2.2\n1 0 5 100 8 -1 -1 16 3600 -1 1 3 4 -1 1 -1 -1 -1\n";
    let jobs = r#"{"schema":"gotgan.jobs/1","jobs":[{"job_id":7,"project":"p","resources":{"nodes":2,"gpus_per_node":8,"gpus_total":0},"time_limit_s":600,"submitted_us":1000000,"started_us":5900000,"ended_us":65500000}]}"#;
    let cdi = r#"{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/nvidia0","major":195,"minor":0,"type":"c","fileMode":438,"uid":0,"gid":0}]}}],"containerEdits":{"env":["A=b"],"hooks":[{"hookName":"createContainer","path":"/h","args":["h"],"env":["X=1"],"timeout":3}],"mounts":[{"hostPath":"/l","containerPath":"/l","options":["ro","bind"]}],"additionalGids":[7]}}"#;
    let bundle = r#"{"ociVersion":"1.0.2","root":{"path":"tree"},"process":{"args":["sh"],"env":["PATH=/bin"],"cwd":"/w"}}"#;
    let sheet = "[class.h100]\nweight_milli = 1000\n[cluster.c1]\nclass = \"h100\"\n[lot.l1]\ncluster = \"c1\"\ndue = \"2027-01-04\"\n\
                 batch = [{ gpus = 64, spare = 4, accepted = \"2027-01-05\" }]\n[node.\"public\"]\nlimit = { h100 = 64 }\n\
                 guarantee = [{ class = \"h100\", gpus = 8, from = \"2026-12-31\", until = \"2027-06-01\" }]\n\
                 budget = { period = \"month\", ngh = 500_000, carry = { percent = 10, cap_ngh = 1000 } }\nalert = [50, 90]\n\
                 #---\n[node.\"public/lab\"]\nweight = 3\nallocator = \"kim\"\n[node.\"public/nup\"]\n\
                 [[loan]]\nname = \"l\"\nlender = \"public/lab\"\nborrower = \"public/nup\"\nclass = \"h100\"\ngpus = 2\n\
                 from = \"2027-01-04\"\nuntil = \"2027-02-01\"\ndecision = \"D-1\"\n[[reservation]]\nname = \"r\"\nnode = \"public/lab\"\n\
                 class = \"h100\"\ngpus = 4\ncluster = \"c1\"\nfrom = \"2027-01-04\"\nuntil = \"2027-02-01\"\ndecision = \"D-2\"\n\
                 [[approval]]\nabove_gpus = 100\napprovers = 2\n";
    let texts = [
        ("script", "sbatch", "", sbatch),
        ("kernel_log", "xids", "", log),
        ("import", "dump", "", dump),
        ("import", "usage", "", "Cluster|Account|Login|Used\nc1|lab|lee|100\n"),
        ("trace", "csv", "\0", csv),
        ("trace", "swf", "\u{1}", swf),
        ("trace", "jobs", "\u{2}", jobs),
        ("container", "cdi", "", cdi),
        ("container", "bundle", "", bundle),
        ("quota", "sheet", "", sheet),
    ];
    let texts = texts.map(|(target, name, kind, text)| {
        (target, name.to_owned(), format!("{kind}{text}").into_bytes())
    });
    units.chain(texts).collect()
}

/// One good request of each call that takes anything.
fn calls() -> Vec<(&'static str, Vec<u8>)> {
    calls_of_people().into_iter().chain(calls_of_workers()).collect()
}

fn calls_of_workers() -> [(&'static str, Vec<u8>); 2] {
    let request = "-----BEGIN".to_owned();
    [
        (
            "Workers/Join",
            v1::JoinRequest {
                join_token: "x".to_owned(),
                node: "n1".to_owned(),
                certificate_request_pem: request.clone(),
            }
            .encode_to_vec(),
        ),
        ("Workers/Renew", v1::RenewRequest { certificate_request_pem: request }.encode_to_vec()),
    ]
}

fn calls_of_people() -> Vec<(&'static str, Vec<u8>)> {
    let text = str::to_owned;
    let (key, name, reason) = (text("k1"), text("n1"), text("why not"));
    let spec = v1::JobSpec {
        name: text("job"),
        project: text("public/lab"),
        work: Some(v1::job_spec::Work::Command(v1::Command {
            argv: vec![text("true")],
            layout: 1,
        })),
        resources: Some(v1::Resources {
            nodes: 1,
            gpus_per_node: 1,
            gpu_class: text("h100"),
            gpu_cap_watts: 400,
            ..v1::Resources::default()
        }),
        constraints: Some(v1::Constraints {
            labels: [(text("rack"), text("r1"))].into(),
            exclude_nodes: vec![text("n2")],
            prefer: text("rack"),
            ..v1::Constraints::default()
        }),
        time_limit_s: 600,
        dependencies: vec![v1::Dependency { kind: 1, job_id: 1, task_index: None }],
        warning_signal: Some(v1::WarningSignal { signal: 10, ahead_s: 60, batch_only: false }),
        environment: [(text("A"), text("b"))].into(),
        array: text("0-9%2"),
        grace_s: Some(30),
        ..v1::JobSpec::default()
    };
    let submit = v1::SubmitRequest {
        idempotency_key: key.clone(),
        spec: Some(spec),
        ..v1::SubmitRequest::default()
    };
    let other = v1::SubmitRequest { idempotency_key: text("k2"), ..submit.clone() };
    let act = v1::JobActionRequest {
        idempotency_key: key.clone(),
        job_id: 1,
        reason: reason.clone(),
        ..Default::default()
    };
    let act_on_tasks = v1::JobActionRequest { job_id: 5, tasks: text("0-1"), ..act.clone() };
    let page = Some(v1::PageRequest { size: 10, token: text("3") });
    let file = v1::QuotaFile {
        name: text("a.toml"),
        text: text("[node.\"public\"]\nlimit = { h100 = 32 }\n"),
    };
    let proposal =
        Some(v1::QuotaProposal { files: vec![file], reason: reason.clone(), ..Default::default() });
    let (decision, path) = (text("D-1"), text("public/lab"));
    vec![
        ("Cluster/Status", Vec::new()),
        (
            "Cluster/CreateToken",
            v1::CreateTokenRequest {
                idempotency_key: key.clone(),
                subject: text("lee"),
                role: 4,
                projects: vec![path.clone()],
                lifetime_s: 60,
            }
            .encode_to_vec(),
        ),
        (
            "Cluster/CreateJoinToken",
            v1::CreateJoinTokenRequest {
                idempotency_key: key.clone(),
                node: name.clone(),
                lifetime_s: 60,
            }
            .encode_to_vec(),
        ),
        ("Jobs/Submit", submit.encode_to_vec()),
        ("Jobs/SubmitMany", v1::SubmitManyRequest { jobs: vec![submit, other] }.encode_to_vec()),
        ("Jobs/Get", v1::GetJobRequest { job_id: 1 }.encode_to_vec()),
        (
            "Jobs/List",
            v1::ListJobsRequest {
                states: vec![2, 4],
                project: path.clone(),
                owner: text("lee"),
                page: page.clone(),
                starts: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "Jobs/Watch",
            v1::WatchJobsRequest { job_ids: vec![1, 2], ..Default::default() }.encode_to_vec(),
        ),
        ("Jobs/Logs", v1::LogsRequest { job_id: 1, ..Default::default() }.encode_to_vec()),
        ("Jobs/Cancel", act.encode_to_vec()),
        ("Jobs/Hold", act_on_tasks.encode_to_vec()),
        ("Jobs/Release", v1::JobActionRequest { job_id: 4, ..act.clone() }.encode_to_vec()),
        ("Jobs/Requeue", act.encode_to_vec()),
        ("Jobs/Explain", v1::ExplainRequest { job_id: 3 }.encode_to_vec()),
        (
            "Jobs/ExplainOrder",
            v1::ExplainOrderRequest { job_id: 3, before_job_id: 1 }.encode_to_vec(),
        ),
        (
            "Jobs/StartStep",
            v1::StartStepRequest {
                idempotency_key: key.clone(),
                job_id: 1,
                attempt: 1,
                argv: vec![text("true")],
                nodes: 1,
                tasks: 1,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "Nodes/List",
            v1::ListNodesRequest {
                gpu_class: text("h100"),
                page: Some(v1::PageRequest { size: 1, token: name.clone() }),
            }
            .encode_to_vec(),
        ),
        ("Nodes/Get", v1::GetNodeRequest { name: name.clone() }.encode_to_vec()),
        (
            "Nodes/Drain",
            v1::DrainRequest {
                idempotency_key: key.clone(),
                name: name.clone(),
                reason: reason.clone(),
            }
            .encode_to_vec(),
        ),
        (
            "Nodes/Resume",
            v1::ResumeRequest { idempotency_key: key.clone(), name: name.clone() }.encode_to_vec(),
        ),
        (
            "Nodes/Verify",
            v1::VerifyRequest {
                idempotency_key: key.clone(),
                name: name.clone(),
                gpu_uuid: text("GPU-n1-0"),
            }
            .encode_to_vec(),
        ),
        (
            "Nodes/CutGpu",
            v1::CutGpuRequest {
                idempotency_key: key.clone(),
                name: name.clone(),
                gpu_uuid: text("GPU-n1-0"),
                profiles: vec![text("3g.40gb"), text("3g.40gb")],
                whole: false,
            }
            .encode_to_vec(),
        ),
        ("Nodes/History", v1::NodeHistoryRequest { name: name.clone(), size: 5 }.encode_to_vec()),
        (
            "Nodes/PlanMaintenance",
            v1::PlanMaintenanceRequest {
                idempotency_key: key.clone(),
                nodes: vec![name.clone()],
                duration_s: 3600,
                reason: reason.clone(),
                stop_running: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "Nodes/CancelMaintenance",
            v1::CancelMaintenanceRequest { idempotency_key: key.clone(), id: 1 }.encode_to_vec(),
        ),
        (
            "Nodes/Derate",
            v1::DerateRequest {
                idempotency_key: key.clone(),
                labels: [(text("rack"), text("r1"))].into(),
                to_percent: 50,
                duration_s: 3600,
                reason: reason.clone(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "Nodes/CreateReservation",
            v1::CreateReservationRequest {
                idempotency_key: key.clone(),
                name: text("r"),
                holders: vec![path.clone()],
                count: 1,
                gpu_class: text("h100"),
                block: text("rack=r1"),
                duration_s: 3600,
                reason: reason.clone(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "Nodes/ExtendReservation",
            v1::ExtendReservationRequest {
                idempotency_key: key.clone(),
                name: text("r"),
                duration_s: 60,
                until_us: 0,
            }
            .encode_to_vec(),
        ),
        (
            "Quota/Apply",
            v1::ApplyQuotaRequest {
                idempotency_key: key.clone(),
                proposal: proposal.clone(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        ("Quota/Plan", v1::PlanQuotaRequest { proposal: proposal.clone() }.encode_to_vec()),
        (
            "Quota/Approve",
            v1::ApproveQuotaRequest {
                idempotency_key: key.clone(),
                proposal,
                plan_digest: text("x"),
                document: decision.clone(),
            }
            .encode_to_vec(),
        ),
        (
            "Quota/AcceptBatch",
            v1::AcceptBatchRequest {
                idempotency_key: key.clone(),
                lot: text("l1"),
                batch: 1,
                reason: reason.clone(),
            }
            .encode_to_vec(),
        ),
        (
            "Quota/Get",
            v1::GetQuotaRequest { path: path.clone(), at_us: 1_800_000_000_000_000 }
                .encode_to_vec(),
        ),
        ("Quota/Explain", v1::ExplainQuotaRequest { path: path.clone() }.encode_to_vec()),
        (
            "Quota/Ledger",
            v1::LedgerRequest { project: path.clone(), job_id: 1, page }.encode_to_vec(),
        ),
        (
            "Quota/Statement",
            v1::StatementRequest { path: path.clone(), at_us: 1_800_000_000_000_000, page: None }
                .encode_to_vec(),
        ),
        (
            "Quota/Transfer",
            v1::TransferBudgetRequest {
                idempotency_key: key.clone(),
                from: path.clone(),
                to: text("public/other"),
                ngh_milli: 1000,
                decision: decision.clone(),
                reason: reason.clone(),
                overdraw: false,
            }
            .encode_to_vec(),
        ),
        (
            "Quota/Adjust",
            v1::AdjustBudgetRequest {
                idempotency_key: key.clone(),
                path,
                ngh_milli: -5,
                decision: decision.clone(),
                reason: reason.clone(),
            }
            .encode_to_vec(),
        ),
        (
            "Quota/Void",
            v1::VoidMovementRequest { idempotency_key: key, movement: 1, decision, reason }
                .encode_to_vec(),
        ),
    ]
}

/// As the door of sessions has them.
#[derive(Clone, PartialEq, prost::Message)]
struct Sent {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<v1::WorkerMessage>,
}

fn session(name: &str, said: Vec<Said>) -> Seed {
    let messages = said.into_iter().map(|said| v1::WorkerMessage { message: Some(said) }).collect();
    let bytes = [&[0][..], &Sent { messages }.encode_to_vec()].concat();
    ("session", name.to_owned(), bytes)
}

fn sessions() -> Vec<Seed> {
    let report = |job_id, seq, event| {
        Said::Report(v1::Report { job_id, attempt: 1, seq, at_us: 5, event: Some(event) })
    };
    let exit = Some(v1::ExitStatus { code: 3, signal: 0 });
    let life = vec![
        report(1, 1, Event::Accepted(v1::AttemptAccepted {})),
        report(1, 2, Event::Started(v1::AttemptStarted {})),
        report(1, 3, Event::TaskStarted(v1::TaskStarted { step: 0, rank: 0 })),
        report(
            1,
            4,
            Event::TaskEnded(v1::TaskEnded { step: 0, rank: 0, exit, detail: "x".to_owned() }),
        ),
        report(
            1,
            5,
            Event::Ended(v1::AttemptEnded {
                cause: 1,
                reason: "r".to_owned(),
                exit,
                measured: Some(v1::MeasuredUse::default()),
            }),
        ),
    ];
    let refused = vec![
        report(2, 1, Event::Refused(v1::AttemptRefused { cause: 3, reason: "no".to_owned() })),
        report(1, 1, Event::Unfit(v1::NodeUnfit { reason: "hook".to_owned() })),
    ];
    let reading = v1::GpuReading {
        uuid: "GPU-n1-0".to_owned(),
        clock_reasons: Some(0x48),
        nvlinks: Some(18),
        nvlinks_up: Some(17),
        recovery_action: 1,
        remapped_rows: Some(v1::GpuRemappedRows { pending: true, ..Default::default() }),
        fabric: Some(v1::GpuFabric { state: 3, ..Default::default() }),
        fault: 1,
        leftover_processes: true,
        ..Default::default()
    };
    let held = v1::HeldAttempt { job_id: 1, attempt: 1, ended: false };
    let beat = v1::Heartbeat {
        seq: 1,
        at_us: 5,
        gpus: vec![reading],
        running: vec![held],
        uses: vec![v1::AttemptUse {
            job_id: 1,
            attempt: 1,
            measured: Some(v1::MeasuredUse::default()),
            idle_ms: 9,
        }],
        cut_failures: vec![v1::CutFailure {
            gpu_uuid: "GPU-n1-0".to_owned(),
            planned_us: 1,
            reason: "r".to_owned(),
        }],
        check_outcomes: vec![v1::CheckOutcome {
            gpu_uuid: "GPU-n1-0".to_owned(),
            since_us: 1,
            failed: "f".to_owned(),
        }],
    };
    let finding = |seq, what| {
        Said::Finding(v1::Finding {
            journal_id: "j".to_owned(),
            seq,
            gpu_uuid: "GPU-n1-0".to_owned(),
            attempts: vec![held],
            what: Some(what),
            detail: "d".to_owned(),
            ..Default::default()
        })
    };
    let findings = vec![
        finding(1, v1::finding::What::Xid(v1::Xid { number: 79, pid: 7 })),
        finding(2, v1::finding::What::UncorrectedErrors(v1::CounterRose { before: 1, after: 2 })),
    ];
    let log =
        Said::LogData(v1::LogData { request: 1, offset: 2, data: vec![3], ..Default::default() });
    vec![
        session("life", life),
        session("refused", refused),
        session("beat", vec![Said::Heartbeat(beat)]),
        session("findings", findings),
        session("log", vec![log]),
    ]
}

/// A batch of a journal: an order, a report and what acknowledges it, by their fields' numbers.
fn journal() -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Record {
        #[prost(message, optional, tag = "2")]
        ordered: Option<v1::RunAttempt>,
        #[prost(message, optional, tag = "7")]
        acked: Option<v1::ReportAck>,
        #[prost(uint64, optional, tag = "9")]
        epoch: Option<u64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Frame {
        #[prost(message, repeated, tag = "1")]
        records: Vec<Record>,
    }
    let order = v1::RunAttempt {
        job_id: 7,
        attempt: 1,
        spec: Some(v1::JobSpec::default()),
        ..Default::default()
    };
    let ack = v1::ReportAck { job_id: 7, attempt: 1, seq: 1 };
    let records = vec![
        Record { epoch: Some(3), ..Record::default() },
        Record { ordered: Some(order), ..Record::default() },
        Record { acked: Some(ack), ..Record::default() },
    ];
    Frame { records }.encode_to_vec()
}
