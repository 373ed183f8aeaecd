//! Output of tasks as it comes: every rank and stream at once, each from its byte offset on, across reconnects.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use futures::future::{join, join_all};
use gotgan_proto::v1::{self, LogStream};
use serde::Serialize;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::{
    client::{Client, Patience, passes},
    error::Error,
    output::{Output, progress::Progress},
};

/// Streams on one connection; servers allow 100 and more, and requests need some of them too.
const STREAMS_PER_CONNECTION: usize = 64;

/// Chunks between readers and writer, so that a slow terminal slows the readers and nothing piles up.
const CHUNKS_WAITING: usize = 32;

/// Longest line kept back for its end, in bytes.
const LINE_MAX_BYTES: usize = 64 << 10;

/// A task that was just started may not be known to its node yet for this long.
const APPEAR_FOR: Duration = Duration::from_secs(15);

/// Ends without an end mark and without a byte that are believed.
const SILENT_ENDS_MAX: u32 = 3;

/// One stream of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub job_id: u64,
    pub attempt: u32,
    pub step: u32,
    pub rank: u32,
    pub stream: LogStream,
}

/// How to show output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    pub offset: u64,
    pub follow: bool,
    /// Each line begins with the rank.
    pub label: bool,
}

/// Both streams of these ranks.
#[must_use]
pub fn both_streams(job_id: u64, attempt: u32, step: u32, ranks: &[u32]) -> Vec<Source> {
    let streams = [LogStream::Stdout, LogStream::Stderr];
    let of_rank =
        |rank: &u32| streams.map(|stream| Source { job_id, attempt, step, rank: *rank, stream });
    ranks.iter().flat_map(of_rank).collect()
}

/// Prints the output of all sources until each has ended (with `follow`) or all that is there has been printed.
///
/// # Errors
/// The first failure of a source, after the others have ended; at once when output cannot be written.
pub async fn print(
    client: &Client,
    sources: &[Source],
    show: Show,
    output: &Output,
) -> Result<(), Error> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let siblings: Vec<Client> =
        sources.chunks(STREAMS_PER_CONNECTION).skip(1).map(|_| client.sibling()).collect();
    let connection = |index: usize| match index / STREAMS_PER_CONNECTION {
        0 => client,
        further => &siblings[further - 1],
    };
    let readers = join_all(sources.iter().enumerate().map(|(index, source)| {
        let reader = Reader {
            client: connection(index),
            source: *source,
            offset: show.offset,
            follow: show.follow,
        };
        reader.read(sender.clone())
    }));
    drop(sender);
    let printer = Printer { label: show.label, json: output.json, lines: BTreeMap::new() };
    let (read, written) = join(readers, printer.print(receiver)).await;
    written?;
    read.into_iter().find(Result::is_err).unwrap_or(Ok(()))
}

struct Chunk {
    source: Source,
    offset: u64,
    data: Vec<u8>,
}

struct Reader<'a> {
    client: &'a Client,
    source: Source,
    offset: u64,
    follow: bool,
}

/// How one stream ended.
enum End {
    Complete,
    Broken,
}

impl Reader<'_> {
    async fn read(mut self, sender: mpsc::Sender<Chunk>) -> Result<(), Error> {
        let mut patience = Patience::new(self.client.retry_for().max(APPEAR_FOR));
        let (silent, mut silent_ends) = (Progress::new(false), 0);
        loop {
            let before = self.offset;
            let problem = match self.open().await {
                Ok(stream) => match self.drain(stream, &sender).await {
                    Ok(End::Complete) => return Ok(()),
                    Ok(End::Broken) => Error::Unexpected("the output broke off".to_owned()),
                    Err(problem) => problem,
                },
                Err(problem) => problem,
            };
            if !self.may_come(&problem) || sender.is_closed() {
                return Err(problem);
            }
            if self.offset > before {
                (patience, silent_ends) =
                    (Patience::new(self.client.retry_for().max(APPEAR_FOR)), 0);
            } else if matches!(problem, Error::Unexpected(_)) {
                silent_ends += 1;
            }
            if silent_ends >= SILENT_ENDS_MAX {
                return Ok(());
            }
            patience.pause(problem, &silent).await?;
        }
    }

    async fn open(&self) -> Result<Streaming<v1::LogChunk>, Error> {
        let request = v1::LogsRequest {
            job_id: self.source.job_id,
            attempt: self.source.attempt,
            step: self.source.step,
            rank: self.source.rank,
            stream: self.source.stream.into(),
            offset: self.offset,
            follow: self.follow,
        };
        self.client.open(async |api| api.jobs().logs(request).await).await
    }

    async fn drain(
        &mut self,
        mut stream: Streaming<v1::LogChunk>,
        sender: &mpsc::Sender<Chunk>,
    ) -> Result<End, Error> {
        loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    let end = chunk.end;
                    if !self.forward(chunk, sender).await || end {
                        return Ok(End::Complete);
                    }
                }
                Ok(None) if self.follow => return Ok(End::Broken),
                Ok(None) => return Ok(End::Complete),
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// Passes on what was not seen yet; false when nobody prints any more.
    async fn forward(&mut self, chunk: v1::LogChunk, sender: &mpsc::Sender<Chunk>) -> bool {
        let seen = usize::try_from(self.offset.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
        let new = chunk.data.get(seen..).unwrap_or_default();
        if new.is_empty() {
            return !sender.is_closed();
        }
        let offset = self.offset.max(chunk.offset);
        self.offset = offset + new.len() as u64;
        sender.send(Chunk { source: self.source, offset, data: new.to_vec() }).await.is_ok()
    }

    /// Whether the output may still come: a broken connection, or a task not yet known.
    fn may_come(&self, problem: &Error) -> bool {
        match problem {
            Error::Unexpected(_) => self.follow,
            Error::Refused(status) => passes(status) || (self.follow && not_there_yet(status)),
            _ => false,
        }
    }
}

fn not_there_yet(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
}

/// A line of output as JSON.
#[derive(Serialize)]
struct LogLine<'a> {
    job_id: u64,
    attempt: u32,
    step: u32,
    rank: u32,
    stream: &'static str,
    offset: u64,
    text: &'a str,
}

/// A line whose end has not come yet, and the offset of its first byte.
#[derive(Default)]
struct Partial {
    offset: u64,
    bytes: Vec<u8>,
}

struct Printer {
    label: bool,
    json: bool,
    lines: BTreeMap<Source, Partial>,
}

impl Printer {
    async fn print(mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<(), Error> {
        while let Some(chunk) = chunks.recv().await {
            if self.label || self.json {
                self.add(chunk)?;
            } else {
                write_to(chunk.source.stream, &chunk.data)?;
            }
        }
        for (source, partial) in std::mem::take(&mut self.lines) {
            if !partial.bytes.is_empty() {
                self.write_line(&source, partial.offset, &partial.bytes)?;
            }
        }
        Ok(())
    }

    /// Prints the whole lines there are now and keeps the rest.
    fn add(&mut self, chunk: Chunk) -> Result<(), Error> {
        let mut partial = self.lines.remove(&chunk.source).unwrap_or_default();
        if partial.bytes.is_empty() {
            partial.offset = chunk.offset;
        }
        partial.bytes.extend_from_slice(&chunk.data);
        let mut start = 0;
        while let Some(length) = line_length(&partial.bytes[start..]) {
            let line = &partial.bytes[start..start + length];
            self.write_line(&chunk.source, partial.offset, line)?;
            start += length;
            partial.offset += length as u64;
        }
        partial.bytes.drain(..start);
        self.lines.insert(chunk.source, partial);
        Ok(())
    }

    fn write_line(&self, source: &Source, offset: u64, line: &[u8]) -> Result<(), Error> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if !self.json {
            let labelled = [format!("{}: ", source.rank).as_bytes(), line, b"\n"].concat();
            return write_to(source.stream, &labelled);
        }
        let text = String::from_utf8_lossy(line);
        let stream = if source.stream == LogStream::Stderr { "stderr" } else { "stdout" };
        let &Source { job_id, attempt, step, rank, .. } = source;
        let view = LogLine { job_id, attempt, step, rank, stream, offset, text: &text };
        let json = crate::output::json::line("gotgan.log/1", &view)?;
        // Both streams go where the program that asked for JSON reads.
        write_to(LogStream::Stdout, json.as_bytes())
    }
}

/// Length of the first line with its end, or of what is too long to wait for one.
fn line_length(bytes: &[u8]) -> Option<usize> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(position) => Some(position + 1),
        None => (bytes.len() >= LINE_MAX_BYTES).then_some(bytes.len()),
    }
}

fn write_to(stream: LogStream, bytes: &[u8]) -> Result<(), Error> {
    if stream == LogStream::Stderr {
        io::stderr().lock().write_all(bytes)?;
    } else {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
    }
    Ok(())
}
