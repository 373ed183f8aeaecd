//! Output of tasks by offset, for whoever follows it.
//!
//! Pull, not push: a slow reader holds up nobody. The end of a stream is said only when the task has ended and
//! everything before the end was read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{LogData, LogStream, ReadLog};

use crate::exec::NodeContext;
use crate::handle::{Handle, Input};
use crate::held::AttemptKey;
use crate::shim::task::{exit_path, output_path};

/// Most bytes in one answer.
const READ_MAX_BYTES: u32 = 256 << 10;
/// Longest a read waits for more.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a waiting read looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Answers reads of output.
#[derive(Debug)]
pub struct Logs {
    /// Where the attempts' directories are.
    pub context: Arc<NodeContext>,
    /// Knows which attempts are alive.
    pub handle: Handle,
}

/// One look at a stream.
enum Look {
    Data(Vec<u8>),
    Nothing,
    Missing,
    Failed(io::Error),
}

impl Logs {
    /// Reads once, or waits for more as long as the reader wants and the task lives.
    pub async fn read(&self, read: ReadLog) -> LogData {
        let key = AttemptKey::new(read.job_id, read.attempt);
        let deadline = Instant::now() + WAIT_MAX.min(Duration::from_millis(read.wait_ms.into()));
        loop {
            // Whether the task had ended is asked before the look: what it wrote last is then in the file.
            let ended = self.has_ended(key, &read).await;
            let look = self.look(key, read).await;
            let idle = matches!(look, Look::Nothing | Look::Missing);
            if !idle || ended || Instant::now() >= deadline {
                return answer(&read, look, ended);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
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
    match File::open(path).and_then(|file| read_at_most(&file, &mut data, read.offset)) {
        Ok(0) => Look::Nothing,
        Ok(count) => {
            data.truncate(count);
            Look::Data(data)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Look::Missing,
        Err(error) => Look::Failed(error),
    }
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
