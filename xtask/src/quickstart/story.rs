//! What the quickstart does, in order, and what it insists on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::Client;
use super::cluster::Cluster;
use super::directory::Directory;
use super::follow::{Event, Follower};
use super::screen::Screen;
use super::verdict::Verdict;
use crate::workspace::Workspace;

/// Who submits: a member of the programme, not an administrator.
const MEMBER: &str = "researcher";
const PROGRAMME: &str = "public/nup";
/// The class that the example files name.
const EXAMPLE_CLASS: &str = "b200";
/// GPUs that `examples/train` asks for, which is also all that its project may hold.
const TRAIN_GPUS: u64 = 4;

/// Long enough that the training still runs when it is requeued, on a slow machine too.
const TRAIN_EPOCH_SECONDS: &str = "0.25";

struct Story<'a> {
    cluster: &'a Cluster,
    member: Client,
    examples: PathBuf,
    directory: &'a Directory,
    screen: Screen,
}

pub fn tell(
    cluster: &Cluster,
    workspace: &Workspace,
    directory: &Directory,
    screen: Screen,
) -> Result<Verdict> {
    let examples = workspace.root.join("examples");
    apply_quota(cluster, directory, &examples, screen)?;
    let member = create_member(&cluster.admin, directory, screen)?;
    let story = Story { cluster, member, examples, directory, screen };
    story.a_gang_on_two_nodes()?;
    story.a_job_that_waits_and_one_that_resumes()?;
    story.the_books()
}

fn apply_quota(
    cluster: &Cluster,
    directory: &Directory,
    examples: &Path,
    screen: Screen,
) -> Result<()> {
    screen.title("2. Who may hold how many GPUs");
    let tree = quota_for(cluster, directory, &examples.join("quota/small"))?;
    let output = cluster.admin.text(&["quota".as_ref(), "apply".as_ref(), tree.as_os_str()])?;
    screen.transcript(&format!("gotgan quota apply {}", tree.display()), &output);
    let output = cluster.admin.text(&["quota", "show"])?;
    screen.transcript("gotgan quota show", &output);
    Ok(())
}

/// The example tree; on a machine with GPUs a copy that names their class and fits their number.
fn quota_for(cluster: &Cluster, directory: &Directory, tree: &Path) -> Result<PathBuf> {
    let gpus = &cluster.gpus;
    if gpus.class == EXAMPLE_CLASS && gpus.per_node >= TRAIN_GPUS {
        return Ok(tree.to_path_buf());
    }
    let copy = directory.create("quota")?;
    let fitting = format!("{EXAMPLE_CLASS} = {}", TRAIN_GPUS.min(gpus.per_node));
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        let text =
            text.replace(&format!("{EXAMPLE_CLASS} = {TRAIN_GPUS} "), &format!("{fitting} "));
        fs::write(copy.join(entry.file_name()), text.replace(EXAMPLE_CLASS, &gpus.class))?;
    }
    Ok(copy)
}

fn create_member(admin: &Client, directory: &Directory, screen: Screen) -> Result<Client> {
    let words = ["admin", "token", "create", MEMBER, "--role", "member", "--project", PROGRAMME];
    let answer = admin.json(&words)?;
    let token = answer["token"].as_str().context("no token in the answer")?;
    let file = directory.path.join(format!("{MEMBER}.token"));
    write_secret(&file, token)?;
    screen.step("token", &format!("for {MEMBER}, a member of {PROGRAMME}"));
    Ok(admin.with_token(&file))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{text}")?)
}

impl Story<'_> {
    fn a_gang_on_two_nodes(&self) -> Result<()> {
        self.screen.title("3. A job on two nodes: a ring all-reduce");
        let gpus = self.cluster.gpus.per_node.min(8);
        let mut follower = Follower::new(&self.member, self.screen);
        let job = self.submit("allreduce", gpus, &mut follower)?;
        follower.finish()?;
        self.account(job)
    }

    fn a_job_that_waits_and_one_that_resumes(&self) -> Result<()> {
        self.screen
            .title("4. A training that resumes, two steps in one job, and a job that must wait");
        let gpus = self.cluster.gpus.per_node;
        let mut follower = Follower::new(&self.member, self.screen);
        let train = self.submit("train", TRAIN_GPUS.min(gpus), &mut follower)?;
        let runs = |events: &[Event]| Ok(events.iter().any(Event::has_output));
        follower.until("the training to run", runs)?;
        let steps = self.submit("two-steps", 2.min(gpus), &mut follower)?;
        let waiting = self.submit_waiting(&mut follower)?;
        self.why(waiting, &mut follower)?;
        self.requeue_after_checkpoint(train, &mut follower)?;
        follower.finish()?;
        for job in [train, steps, waiting] {
            self.account(job)?;
        }
        self.insist_on_resumption(train)
    }

    /// Submits `examples/NAME/job.sh` and tells the first steps of the flow.
    fn submit(&self, name: &str, gpus_per_node: u64, follower: &mut Follower) -> Result<u64> {
        let script = self.examples.join(name).join("job.sh");
        let mut words = self.common_options(gpus_per_node);
        if name == "train" {
            let checkpoints = self.checkpoints()?;
            words.push(format!("--env=TRAIN_CHECKPOINTS={}", checkpoints.display()));
            words.push(format!("--env=TRAIN_EPOCH_SECONDS={TRAIN_EPOCH_SECONDS}"));
        }
        words.push(script.display().to_string());
        self.submit_words(name, &words, follower)
    }

    /// A small command of the same project as the training, which holds all that the project may.
    fn submit_waiting(&self, follower: &mut Follower) -> Result<u64> {
        let mut words = self.common_options(1);
        words.extend(
            ["--project=public/nup/startup-077", "--name=evaluate", "--time=5m"].map(Into::into),
        );
        words
            .extend(["--cpus-per-node=1", "--mem=256M", "--", "echo", "evaluated"].map(Into::into));
        self.submit_words("evaluate", &words, follower)
    }

    fn common_options(&self, gpus_per_node: u64) -> Vec<String> {
        let (class, examples) = (&self.cluster.gpus.class, self.examples.display());
        vec![
            format!("--gpus-per-node={class}:{gpus_per_node}"),
            format!("--env=GOTGAN_EXAMPLES={examples}"),
        ]
    }

    fn submit_words(&self, name: &str, words: &[String], follower: &mut Follower) -> Result<u64> {
        let with = |first: &[&str]| -> Vec<String> {
            first.iter().map(|word| (*word).to_owned()).chain(words.iter().cloned()).collect()
        };
        self.screen.note(&format!("$ gotgan submit {}", words.join(" ")));
        self.screen.step("submitted", &format!("{name} by {MEMBER}"));
        self.member.json(&with(&["submit", "--dry-run"]))?;
        self.screen.step("validated", &format!("{name}: a dry run found no fault"));
        let events = self.cluster.admin.json(&["cluster"])?["event_seq"].as_u64();
        let begin = Instant::now();
        let answer = self.member.json(&with(&["submit"]))?;
        let job = answer["job_id"].as_u64().context("no job in the answer")?;
        let milliseconds = begin.elapsed().as_millis();
        let text =
            format!("{name} is job {job}: committed, then acknowledged, in {milliseconds} ms");
        self.screen.step("persisted", &text);
        follower.add(job, name, events.unwrap_or_default())?;
        Ok(job)
    }

    fn checkpoints(&self) -> Result<PathBuf> {
        self.directory.create("checkpoints")
    }

    fn why(&self, job: u64, follower: &mut Follower) -> Result<()> {
        let job = job.to_string();
        follower.until("the project's limit as the reason why the job waits", |_| {
            Ok(is_limited(&self.member.json(&["why", &job])?))
        })?;
        self.screen.transcript(&format!("gotgan why {job}"), &self.member.text(&["why", &job])?);
        Ok(())
    }

    /// An operator takes the node back, as before an upgrade; the job goes on from its checkpoint.
    fn requeue_after_checkpoint(&self, job: u64, follower: &mut Follower) -> Result<()> {
        let file = self.checkpoints()?.join(format!("job-{job}/checkpoint.json"));
        follower.until("a checkpoint", |_| Ok(file.exists()))?;
        let job = job.to_string();
        let output = self.cluster.admin.text(&["requeue", &job, "--reason", "to see it resume"])?;
        self.screen.transcript(&format!("gotgan requeue {job}"), &output);
        Ok(())
    }

    fn insist_on_resumption(&self, job: u64) -> Result<()> {
        let output = self.member.text(&["logs", &job.to_string()])?;
        if !output.contains("resumed from checkpoint") || !output.contains("done: loss fell") {
            bail!("the training did not resume from its checkpoint; it wrote:\n{output}");
        }
        Ok(())
    }

    fn account(&self, job: u64) -> Result<()> {
        let answer = self.member.json(&["job", &job.to_string()])?;
        let paid = answer["paid_gpu_milli_seconds"].as_i64().unwrap_or_default();
        let project = answer["project"].as_str().unwrap_or_default();
        let text = format!("job {job}: {} GPU-seconds paid by {project}", paid / 1000);
        self.screen.step("accounted", &text);
        if answer["state"] != "completed" {
            bail!("job {job} should have completed: {}", answer["detail"]);
        }
        Ok(())
    }

    fn the_books(&self) -> Result<Verdict> {
        self.screen.title("5. The books");
        let admin = &self.cluster.admin;
        for words in [["jobs", "--all"], ["quota", "ledger"], ["quota", "balance"]] {
            self.screen.transcript(&format!("gotgan {}", words.join(" ")), &admin.text(&words)?);
        }
        let verdict =
            Verdict::of(&admin.json(&["jobs", "--all"])?, &admin.json(&["quota", "balance"])?)?;
        verdict.insist()?;
        Ok(verdict)
    }
}

fn is_limited(explanation: &Value) -> bool {
    let mut blockers = explanation["blockers"].as_array().into_iter().flatten();
    blockers.any(|blocker| blocker["kind"] == "project_limit")
}
