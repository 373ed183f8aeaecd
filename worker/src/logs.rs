//! Output of tasks by offset, for whoever follows it.
//!
//! Pull, not push: a slow reader holds up nobody. The end of a stream is said only when the task has ended and
//! everything before the end was read.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{LogData, LogStream, ReadLog};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::exec::NodeContext;
use crate::handle::{Handle, Input};
use crate::held::AttemptKey;
use crate::shim::task::{exit_path, output_path};

/// Most bytes in one answer.
const READ_MAX_BYTES: u32 = 256 << 10;
/// Longest a read waits for more.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a waiting read looks, at first and after a while.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(40);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(250);
/// Answers with data at once: they bound memory to 16 MiB until they are on the wire.
const READS_MAX: usize = 64;
/// Reads waiting for output; one more is answered at once, and its reader asks again.
const WAITING_MAX: usize = 4096;

/// Answers reads of output.
#[derive(Debug)]
pub struct Logs {
    /// Where the attempts' directories are.
    context: Arc<NodeContext>,
    /// Knows which attempts are alive.
    handle: Handle,
    reads: Arc<Semaphore>,
    waiting: Semaphore,
}

/// An answer, and the room it takes until it is dropped.
#[derive(Debug)]
pub struct Answer {
    /// For the reader.
    pub data: LogData,
    _room: Option<OwnedSemaphorePermit>,
}

/// One look at a stream.
enum Look {
    Data(Vec<u8>),
    Nothing,
    Missing,
    Failed(io::Error),
}

impl Logs {
    /// Of the attempts in the context's directory.
    pub fn new(context: NodeContext, handle: Handle) -> Self {
        let (reads, waiting) = (Semaphore::new(READS_MAX), Semaphore::new(WAITING_MAX));
        Self { context: Arc::new(context), handle, reads: Arc::new(reads), waiting }
    }

    /// Reads once, or waits for more as long as the reader wants and the task lives. Waiting takes no room from
    /// those who have something to read.
    pub async fn read(&self, read: ReadLog) -> Answer {
        let key = AttemptKey::new(read.job_id, read.attempt);
        let waiting = self.waiting.try_acquire();
        let wait_ms = if waiting.is_ok() { read.wait_ms } else { 0 };
        let deadline = Instant::now() + WAIT_MAX.min(Duration::from_millis(wait_ms.into()));
        let mut pause = LOOK_EVERY_MIN;
        loop {
            // Whether the task had ended is asked before the look: what it wrote last is then in the file.
            let ended = self.has_ended(key, &read).await;
            let idle = !self.may_have_more(key, read).await;
            if !idle || ended || Instant::now() >= deadline {
                return self.answer(key, &read, ended).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_EVERY_MAX);
        }
    }

    /// Whether opening the file is worth it: there is something after the offset, or an error to tell.
    async fn may_have_more(&self, key: AttemptKey, read: ReadLog) -> bool {
        match tokio::fs::metadata(stream_path(&self.context.directory(key), &read)).await {
            Ok(meta) => meta.len() > read.offset || !meta.is_file(),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    async fn answer(&self, key: AttemptKey, read: &ReadLog, ended: bool) -> Answer {
        // The semaphore is never closed.
        let room = self.reads.clone().acquire_owned().await.ok();
        let look = self.look(key, *read).await;
        Answer { data: answer(read, look, ended), _room: room }
    }

    async fn has_ended(&self, key: AttemptKey, read: &ReadLog) -> bool {
        let directory = self.context.directory(key);
        if exit_path(&directory, read.step, read.rank).exists() {
            return true;
        }
        !self.handle.ask(|answer| Input::IsLive(key, answer)).await.unwrap_or(false)
    }

    async fn look(&self, key: AttemptKey, read: ReadLog) -> Look {
        let directory = self.context.directory(key);
        let looking = tokio::task::spawn_blocking(move || look(&directory, &read)).await;
        looking.unwrap_or_else(|error| Look::Failed(io::Error::other(error)))
    }
}

fn look(directory: &Path, read: &ReadLog) -> Look {
    let path = stream_path(directory, read);
    let mut data = vec![0; max_bytes(read)];
    match open(&path).and_then(|file| read_at_most(&file, &mut data, read.offset)) {
        Ok(0) => Look::Nothing,
        Ok(count) => {
            data.truncate(count);
            Look::Data(data)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Look::Missing,
        Err(error) => Look::Failed(error),
    }
}

/// A pipe would wait for a writer, and what it gives to one reader is gone for the next.
fn open(path: &Path) -> io::Result<File> {
    let link = std::fs::symlink_metadata(path)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    // A link that the shim has given to the job's user leads where they said, and the worker may read more than they.
    let of_another_user = link.is_symlink() && link.uid() != geteuid().as_raw();
    if of_another_user && found.uid() != link.uid() {
        return Err(io::Error::other("it does not belong to the user that the job runs as"));
    }
    Ok(file)
}

fn stream_path(directory: &Path, read: &ReadLog) -> PathBuf {
    let stream = match read.stream() {
        LogStream::Unspecified | LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    output_path(directory, read.step, read.rank, stream)
}

fn read_at_most(file: &File, data: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < data.len() {
        match file.read_at(&mut data[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn max_bytes(read: &ReadLog) -> usize {
    match read.max_bytes {
        0 => READ_MAX_BYTES as usize,
        wanted => wanted.min(READ_MAX_BYTES) as usize,
    }
}

/// A read that got less than it could have has reached the end of the file.
fn with_data(mut answer: LogData, data: Vec<u8>, ended: bool, max_bytes: usize) -> LogData {
    answer.end = ended && data.len() < max_bytes;
    answer.data = data;
    answer
}

fn answer(read: &ReadLog, look: Look, ended: bool) -> LogData {
    let mut answer = LogData { request: read.request, offset: read.offset, ..Default::default() };
    match look {
        Look::Data(data) => answer = with_data(answer, data, ended, max_bytes(read)),
        Look::Nothing => answer.end = ended,
        Look::Missing if ended => {
            answer.end = true;
            answer.error = "this node has no output of that task: it never started, or its \
                            output is no longer kept"
                .into();
        }
        Look::Missing => {}
        Look::Failed(error) => answer.error = format!("cannot read the output: {error}"),
    }
    answer
}
