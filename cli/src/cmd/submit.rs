//! `gotgan submit`: makes a job of a script or a command and stores it.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use clap::Args;
use gotgan_proto::v1::{self, job_spec::Work};
use serde::Serialize;

use crate::{
    cmd::wait,
    context::Context,
    directives,
    error::{Error, Exit},
    options::JobOptions,
    script::{self, Note, SCRIPT_MAX_BYTES},
};

/// Submit a job: a script, or a command after `--`
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = "gotgan submit [OPTIONS] SCRIPT [ARGUMENT]...\n       gotgan submit [OPTIONS] -- COMMAND [ARGUMENT]...")]
pub struct Submit {
    #[command(flatten)]
    options: JobOptions,
    /// Check only: nothing is stored
    #[arg(long)]
    dry_run: bool,
    /// Wait until the job has ended; exit as `gotgan wait`
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Print the id alone
    #[arg(long)]
    parsable: bool,
    /// The script (`-`: standard input) and its arguments, or the command after `--`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SCRIPT")]
    words: Vec<String>,
}

const EXAMPLES: &str = "\
Options in the script are read from its first lines, `#GOTGAN --nodes 2` or `#SBATCH --nodes=2`;
#GOTGAN wins over #SBATCH, the command line over both.

Examples:
  gotgan submit -A public/nup/startup-042 -N 2 --gpus-per-node b200:8 -t 2h train.sh --epochs 3
  gotgan submit --gpus 1 -- python train.py
  gotgan submit --array 0-999%50 --gpus 1 sweep.sh    $GOTGAN_ARRAY_TASK_ID tells the tasks apart
  gotgan submit --gpu-share 250 --dry-run notebook.sh
  id=$(gotgan submit --parsable train.sh) && gotgan wait $id";

/// What was stored.
#[derive(Debug, Serialize)]
pub struct Submitted {
    /// Absent with `--dry-run`.
    pub job_id: Option<u64>,
    pub repeated: bool,
    pub dry_run: bool,
    pub warnings: Vec<String>,
    /// Tasks of the array; absent if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

impl Submit {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let Self { options, dry_run, wait, parsable, words } = self;
        let (spec, mut warnings) = job_of(options, words, context)?;
        let submitted = send(spec, dry_run, context, &mut warnings).await?;
        show(&submitted, parsable, context)?;
        match submitted.job_id {
            Some(job_id) if wait => {
                wait::wait_for(&[job_id], None, !context.output.json, context).await
            }
            _ => Ok(Exit::Ok.code()),
        }
    }
}

/// The job that options and trailing words make, and what deserves a warning.
///
/// # Errors
/// When the script or an option cannot be used.
pub fn job_of(
    options: JobOptions,
    words: Vec<String>,
    context: &Context,
) -> Result<(v1::JobSpec, Vec<String>), Error> {
    let is_command = context.follows_dashes(&words);
    let mut words = words.into_iter();
    let Some(first) = words.next() else {
        return Err(Error::invalid("nothing to run", "name a script, or a command after `--`"));
    };
    let rest: Vec<String> = words.collect();
    if is_command {
        let name = base_name(&first);
        let argv = std::iter::once(first).chain(rest).collect();
        let work = Work::Command(v1::Command { argv, layout: 0 });
        return Ok((options.into_spec(work, &name)?, Vec::new()));
    }
    if first.len() > 1 && first.starts_with('-') {
        let message = format!("unknown option {first}");
        let hint = "see `gotgan submit --help`; options of a script come after its name".to_owned();
        return Err(Error::Usage { message, hint });
    }
    let name = if first == "-" { "stdin".to_owned() } else { base_name(&first) };
    let text = script::check(read_script(&first)?)
        .map_err(|(message, hint)| Error::invalid(format!("{first}: {message}"), hint))?;
    let at = |note: Note| format!("{first} line {}: {}", note.line, note.message);
    let refuse = |notes: Vec<Note>| Error::InvalidMany(notes.into_iter().map(at).collect());
    let header = script::read_header(&text).map_err(refuse)?;
    let (in_script, notes) = directives::options_of(header).map_err(refuse)?;
    let work = Work::Script(v1::Script { text, arguments: rest });
    let spec = in_script.overridden_by(options).into_spec(work, &name)?;
    Ok((spec, notes.into_iter().map(at).collect()))
}

/// Sends a job; the scheduler's warnings come after those already there, and all are told.
///
/// # Errors
/// The scheduler's refusal, or that it was not reached.
pub async fn send(
    spec: v1::JobSpec,
    dry_run: bool,
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<Submitted, Error> {
    let request = v1::SubmitRequest {
        idempotency_key: context.idempotency_key()?,
        spec: Some(spec),
        dry_run,
    };
    // Told before the network: a warning may explain the refusal.
    warnings.iter().for_each(|warning| context.output.warn(warning));
    let answer =
        context.client()?.call(async |api| api.jobs().submit(request.clone()).await).await?;
    answer.warnings.iter().for_each(|warning| context.output.warn(warning));
    warnings.extend(answer.warnings);
    let job_id = (answer.job_id != 0).then_some(answer.job_id);
    let warnings = std::mem::take(warnings);
    let tasks = (answer.tasks > 0).then_some(answer.tasks);
    Ok(Submitted { job_id, repeated: answer.repeated, dry_run, warnings, tasks })
}

fn show(submitted: &Submitted, parsable: bool, context: &Context) -> Result<(), Error> {
    let output = &context.output;
    if output.json {
        return output.document("gotgan.submit/1", submitted);
    }
    match submitted.job_id {
        Some(job_id) if parsable => output.line(&job_id.to_string()),
        Some(job_id) if submitted.repeated => {
            output.line(&format!("job {job_id} (was there already, under the same key)"))
        }
        Some(job_id) => output.line(&match submitted.tasks {
            Some(tasks) => format!("job {job_id}, an array of {tasks} tasks"),
            None => format!("job {job_id}"),
        }),
        None => output.line("ok: the job would be accepted; nothing was stored"),
    }
}

fn base_name(path: &str) -> String {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path).to_owned()
}

/// Reads at most one byte more than a script may have, so that a large file does no harm.
fn read_script(path: &str) -> Result<Vec<u8>, Error> {
    let failed = |source: io::Error| Error::File { path: path.to_owned(), source };
    let limit = SCRIPT_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
        return Ok(bytes);
    }
    match File::open(path) {
        Ok(file) => file.take(limit).read_to_end(&mut bytes).map_err(failed)?,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            return Err(Error::invalid(
                format!("{path}: there is no such script"),
                format!("to run a command, write -- before it: -- {path}"),
            ));
        }
        Err(problem) => return Err(failed(problem)),
    };
    Ok(bytes)
}
