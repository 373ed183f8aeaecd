//! What really ran: told by the jobs themselves, and by virtual workers, never by a scheduler.
//!
//! A job of a torment leaves a file that says when and where it began and with which GPUs, and every moment since at which
//! it still was. One that was killed has a last moment and no end.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::virtual_worker::Run;
use crate::virtual_worker::session::now_us;

/// Between two signs of life of a job.
const BEAT: Duration = Duration::from_millis(50);

/// What a job of a torment does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it leaves its file.
    pub directory: PathBuf,
    /// How long it runs.
    pub lasts: Duration,
    /// How it exits.
    pub code: u8,
    /// Thousandths that it has of each of its GPUs.
    pub milli: u32,
}

impl Part {
    /// First argument of the program that plays a part.
    pub const WORD: &str = "play";

    /// The command of such a job.
    #[must_use]
    pub fn command(&self, program: &Path) -> Vec<String> {
        let words = [
            program.display().to_string(),
            Self::WORD.to_owned(),
            self.directory.display().to_string(),
            self.lasts.as_millis().to_string(),
            self.code.to_string(),
            self.milli.to_string(),
        ];
        words.into()
    }

    /// From such a command; none if it is not one.
    #[must_use]
    pub fn read(argv: &[String]) -> Option<Self> {
        let [_, word, directory, lasts_ms, code, milli] = argv else { return None };
        (word == Self::WORD).then_some(())?;
        Some(Self {
            directory: directory.into(),
            lasts: Duration::from_millis(lasts_ms.parse().ok()?),
            code: code.parse().ok()?,
            milli: milli.parse().ok()?,
        })
    }

    /// Plays it, in a job.
    #[must_use]
    pub fn play(&self) -> ExitCode {
        match self.leave_traces() {
            Ok(()) => ExitCode::from(self.code),
            Err(error) => {
                eprintln!("{}: {error}", self.directory.display());
                ExitCode::from(99)
            }
        }
    }

    fn leave_traces(&self) -> io::Result<()> {
        let of = |name| env::var(name).unwrap_or_default();
        let begun = Instant::now();
        let name = [of("GOTGAN_JOB_ID"), of("GOTGAN_ATTEMPT"), of("GOTGAN_NODE"), of("RANK")];
        let name = format!("{}.{}", name.join("."), now_us());
        let mut file = File::create_new(self.directory.join(name))?;
        writeln!(file, "{} {}", self.milli, of("NVIDIA_VISIBLE_DEVICES"))?;
        loop {
            writeln!(file, "{}", now_us())?;
            let left = self.lasts.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return writeln!(file, "end");
            }
            std::thread::sleep(left.min(BEAT));
        }
    }
}

/// What all jobs have left in a directory.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn left_in(directory: &Path) -> Vec<Run> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    let files = entries.map(|entry| entry.expect("an entry can be read").path());
    files.filter_map(|file| read(&file)).collect()
}

/// None of a job that was killed before it had left anything.
fn read(file: &Path) -> Option<Run> {
    let text = fs::read_to_string(file).ok()?;
    let (place, moments) = text.split_once('\n')?;
    let name = file.file_name()?.to_str()?;
    let [job_id, attempt, rest] = name.splitn(3, '.').collect::<Vec<_>>().try_into().ok()?;
    let (node, _) = rest.split_once('.')?;
    let (milli, gpus) = place.split_once(' ')?;
    let milli = milli.parse().ok()?;
    let named = gpus.split(',').filter(|uuid| !uuid.is_empty() && *uuid != "void");
    // The last line of one that was killed may be half a number.
    let whole = moments.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let mut moments = whole.filter_map(|line| line.parse().ok());
    let from_us = moments.next()?;
    Some(Run {
        node: node.to_owned(),
        job_id: job_id.parse().ok()?,
        attempt: attempt.parse().ok()?,
        gpus: named.map(|uuid| (uuid.to_owned(), milli)).collect(),
        imex_channel: 0,
        from_us,
        until_us: Some(moments.next_back().unwrap_or(from_us)),
        starts: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(directory: &Path) -> Part {
        Part { directory: directory.into(), lasts: Duration::from_millis(1), code: 3, milli: 500 }
    }

    #[test]
    fn a_part_is_what_its_command_says() {
        let part = part(Path::new("/somewhere"));
        assert_eq!(Part::read(&part.command(Path::new("/bin/program"))), Some(part));
        assert_eq!(Part::read(&["/bin/true".into()]), None);
    }

    #[test]
    fn what_a_job_leaves_says_where_and_when_it_ran_also_if_it_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text| fs::write(directory.path().join(name), text).unwrap();
        write("7.2.node-a.0.1", "500 GPU-1,GPU-2\n100\n150\n190\nend\n");
        write("8.1.node-b.0.2", "1000 \n100\n15");
        write("9.1.node-b.0.2", "1000");
        let mut found = left_in(directory.path());
        found.sort_by_key(|run| run.job_id);
        let brief: Vec<_> =
            found.iter().map(|run| (run.job_id, run.attempt, run.from_us, run.until_us)).collect();
        assert_eq!(brief, [(7, 2, 100, Some(190)), (8, 1, 100, Some(100))]);
        assert_eq!(found[0].gpus, [("GPU-1".to_owned(), 500), ("GPU-2".to_owned(), 500)]);
        assert_eq!((found[0].node.as_str(), found[1].gpus.len()), ("node-a", 0));
    }

    #[test]
    fn a_part_that_is_played_leaves_its_traces() {
        let directory = tempfile::tempdir().unwrap();
        assert!(part(&directory.path().join("nowhere")).leave_traces().is_err());
        part(directory.path()).leave_traces().unwrap();
        let file = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with("500 ") && text.ends_with("\nend\n"), "{text}");
    }
}
