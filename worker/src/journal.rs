//! The worker's journal: an append-only file that survives the daemon and the machine.
//!
//! A frame is a length, a checksum and a batch of records that count together or not at all. One thread writes;
//! batches that arrive while it syncs share the next sync. A torn tail is cut when the file is opened. When most of
//! the file is history, it is rewritten from the folded image. It decides nothing: see [`crate::attempt`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use tokio::sync::{mpsc, watch};

use crate::held::{Entry, Image};

/// First bytes of the file: name and version of the format.
const MAGIC: &[u8; 8] = b"GOTGANJ1";
/// Length and checksum before each batch.
const FRAME_HEAD_BYTES: usize = 8;
/// A frame longer than this is damage: the largest order is a stream message of 16 MiB.
const FRAME_MAX_BYTES: usize = 64 << 20;
/// Batches waiting for the writer; more than a sync can cover usefully, few enough to bound memory.
const QUEUE_BATCHES: usize = 4096;
/// Files smaller than this are not worth rewriting.
const COMPACT_MIN_BYTES: u64 = 16 << 20;

/// What may go wrong with the journal. All of it ends the daemon: going on would forget what it promised.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("journal {path}: {source}")]
    Io {
        /// File concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no journal of this version.
    #[error("journal {0}: not a journal of this version")]
    Foreign(PathBuf),
    /// A record that no reader would accept.
    #[error("a record of {bytes} bytes is too large for the journal")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Damage in the middle: what comes after it would be forgotten.
    #[error(
        "journal {path}: damaged at byte {at_byte}, with whole records after it; attempts would be \
         forgotten. Restore it, or end what runs on this node and move it away"
    )]
    Damaged {
        /// File concerned.
        path: PathBuf,
        /// Where the first record that cannot be read begins.
        at_byte: usize,
    },
    /// The writing thread is gone.
    #[error("journal writer has stopped")]
    Stopped,
}

/// Records that become durable together.
#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(message, repeated, tag = "1")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(oneof = "Entry", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    entries: Vec<Entry>,
    sync: bool,
}

/// Handle to the writing thread.
#[derive(Debug)]
pub struct Journal {
    queue: mpsc::Sender<Batch>,
    written: watch::Receiver<u64>,
    durable: watch::Receiver<u64>,
    next: u64,
}

impl Journal {
    /// Opens or creates the journal and returns what it remembers.
    pub fn open(path: &Path) -> Result<(Self, Image), JournalError> {
        let writer = Writer::open(path, COMPACT_MIN_BYTES)?;
        let image = writer.image.clone();
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let (writing, written) = watch::channel(0);
        let (syncing, durable) = watch::channel(0);
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_batches(writer, batches, &writing, &syncing))
            .map_err(|source| JournalError::Io { path: path.into(), source })?;
        Ok((Self { queue, written, durable, next: 0 }, image))
    }

    /// What a journal remembers, without opening it for writing; nothing if there is none that can be read.
    pub fn peek(path: &Path) -> Option<Image> {
        let bytes = std::fs::read(path).ok()?;
        let (image, good_bytes) = read_frames(&bytes)?;
        (!has_frame(&bytes[good_bytes..])).then_some(image)
    }

    /// Queues a batch and returns its number; it is durable once [`Self::durable`] has reached it. A batch that
    /// needs no `sync` counts as done as soon as everything before it is durable and it is written.
    pub async fn append(&mut self, entries: Vec<Entry>, sync: bool) -> Result<u64, JournalError> {
        let bytes: usize = entries.iter().map(Entry::encoded_len).sum();
        // Length and tag of each record in its frame are small beside what is left below the limit.
        if bytes.saturating_add(entries.len() * 16) > FRAME_MAX_BYTES {
            return Err(JournalError::TooLarge { bytes });
        }
        self.next += 1;
        let batch = Batch { number: self.next, entries, sync };
        self.queue.send(batch).await.map_err(|_| JournalError::Stopped)?;
        Ok(self.next)
    }

    /// Number of the last batch that a daemon after this one would find, if the machine stays up. Its sender is dropped
    /// when writing has failed.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// Number of the last durable batch. Its sender is dropped when writing has failed.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }
}

fn write_batches(
    mut writer: Writer,
    mut batches: mpsc::Receiver<Batch>,
    written: &watch::Sender<u64>,
    durable: &watch::Sender<u64>,
) {
    let mut group = Vec::with_capacity(QUEUE_BATCHES);
    while batches.blocking_recv_many(&mut group, QUEUE_BATCHES) > 0 {
        let last = group.last().map_or(0, |batch| batch.number);
        let done = writer.write(&group).and_then(|()| {
            written.send_replace(last);
            writer.make_durable(&group)
        });
        if let Err(error) = done {
            tracing::error!(%error, "cannot write the journal");
            return;
        }
        group.clear();
        durable.send_replace(last);
    }
}

/// The file, and the image of what is in it.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: File,
    image: Image,
    size_bytes: u64,
    /// Size right after the last compaction.
    base_bytes: u64,
    compact_min_bytes: u64,
}

impl Writer {
    fn open(path: &Path, compact_min_bytes: u64) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut file = open_file(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (image, good_bytes) = match read_frames(&bytes) {
            Some(read) => read,
            None => return Err(JournalError::Foreign(path.into())),
        };
        if good_bytes > 0 && has_frame(&bytes[good_bytes..]) {
            return Err(JournalError::Damaged { path: path.into(), at_byte: good_bytes });
        }
        if good_bytes < bytes.len() {
            let cut_bytes = bytes.len() - good_bytes;
            tracing::warn!(path = %path.display(), cut_bytes, "cut a torn tail off the journal");
        }
        let size_bytes = good_bytes as u64;
        let mut writer = Self {
            path: path.into(),
            file,
            image,
            size_bytes,
            base_bytes: size_bytes,
            compact_min_bytes,
        };
        writer.settle(bytes.len()).map_err(io)?;
        Ok(writer)
    }

    /// Brings the file to exactly its good part, with the magic in front, durably.
    fn settle(&mut self, found_bytes: usize) -> io::Result<()> {
        if self.size_bytes == 0 {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(MAGIC)?;
            self.size_bytes = MAGIC.len() as u64;
        } else if self.size_bytes < found_bytes as u64 {
            self.file.set_len(self.size_bytes)?;
        }
        self.file.seek(SeekFrom::Start(self.size_bytes))?;
        self.file.sync_all()?;
        sync_parent(&self.path)
    }

    /// Gives a group to the system.
    fn write(&mut self, group: &[Batch]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for batch in group.iter().filter(|batch| !batch.entries.is_empty()) {
            append_frame(&mut bytes, &batch.entries);
            batch.entries.iter().for_each(|entry| self.image.apply(entry));
        }
        self.size_bytes += bytes.len() as u64;
        self.file.write_all(&bytes).map_err(|source| self.failed(source))
    }

    /// Makes what was written of a group durable, if one of its batches asks for it.
    fn make_durable(&mut self, group: &[Batch]) -> Result<(), JournalError> {
        let sync = group.iter().any(|batch| batch.sync && !batch.entries.is_empty());
        let synced = if sync { self.file.sync_data() } else { Ok(()) };
        synced.and_then(|()| self.compact_if_worthwhile()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }

    /// Rewrites the file from the image once it has grown to many times what it held after the last time.
    fn compact_if_worthwhile(&mut self) -> io::Result<()> {
        if self.size_bytes < self.compact_min_bytes.max(self.base_bytes.saturating_mul(4)) {
            return Ok(());
        }
        let bytes = rewritten(&self.image);
        let fresh = self.path.with_extension("new");
        let mut file = open_file(&fresh)?;
        file.set_len(0)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        sync_parent(&self.path)?;
        self.file = file;
        self.size_bytes = bytes.len() as u64;
        self.base_bytes = self.size_bytes;
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // Orders carry the jobs' tokens and environments.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn append_frame(bytes: &mut Vec<u8>, entries: &[Entry]) {
    let records = entries.iter().cloned().map(|entry| Record { entry: Some(entry) }).collect();
    let body = Frame { records }.encode_to_vec();
    // A frame is at most a few stream messages; the reader's limit is far below 4 GiB.
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&checksum(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
}

/// The bytes of a file that remembers this and nothing of how it came to be.
pub fn rewritten(image: &Image) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for entry in image.entries() {
        append_frame(&mut bytes, std::slice::from_ref(&entry));
    }
    bytes
}

/// Folds all whole frames; also how many bytes they take. `None` if this is not a journal.
pub fn read_frames(bytes: &[u8]) -> Option<(Image, usize)> {
    let mut image = Image::default();
    if bytes.len() < MAGIC.len() {
        return MAGIC.starts_with(bytes).then_some((image, 0));
    }
    let mut rest = bytes.strip_prefix(MAGIC)?;
    while let Some((frame, after)) = next_frame(rest) {
        frame
            .records
            .iter()
            .filter_map(|record| record.entry.as_ref())
            .for_each(|e| image.apply(e));
        rest = after;
    }
    Some((image, bytes.len() - rest.len()))
}

fn next_frame(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD_BYTES)?;
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(sum.try_into().ok()?);
    // No frame is empty: zeros are what a file system leaves where data was never written.
    if length == 0 || length > FRAME_MAX_BYTES {
        return None;
    }
    let (body, after) = rest.split_at_checked(length)?;
    (checksum(body) == sum).then(|| Frame::decode(body).ok()).flatten().map(|frame| (frame, after))
}

/// Whether a whole frame begins anywhere in what follows the last good one. A write that was cut short leaves none.
fn has_frame(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|start| next_frame(&bytes[start..]).is_some())
}

/// CRC-32 (the polynomial of Ethernet and zip).
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        CHECKSUM_TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8)
    })
}

const CHECKSUM_TABLE: [u32; 256] = checksum_table();

const fn checksum_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_proto::v1;

    use super::*;
    use crate::health::remembered::FindingsBegun;
    use crate::held::{AttemptKey, Reported};

    fn order(job_id: u64) -> Entry {
        Entry::Ordered(Box::new(v1::RunAttempt { job_id, attempt: 1, ..Default::default() }))
    }

    fn reported(job_id: u64, seq: u64) -> Entry {
        let report = v1::Report { job_id, attempt: 1, seq, ..Default::default() };
        Entry::Reported(Reported { report, shim_seen: seq })
    }

    fn acked(job_id: u64, seq: u64) -> Entry {
        Entry::Acked(v1::ReportAck { job_id, attempt: 1, seq })
    }

    fn write(path: &Path, entries: Vec<Entry>) {
        let mut writer = Writer::open(path, COMPACT_MIN_BYTES).unwrap();
        put(&mut writer, &[Batch { number: 1, entries, sync: true }]);
    }

    fn put(writer: &mut Writer, group: &[Batch]) {
        writer.write(group).and_then(|()| writer.make_durable(group)).unwrap();
    }

    fn image_of(path: &Path) -> Image {
        Writer::open(path, COMPACT_MIN_BYTES).unwrap().image
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, vec![Entry::Epoch(3), order(7), reported(7, 1), reported(7, 2)]);
        write(&path, vec![acked(7, 1), order(8)]);
        let image = image_of(&path);
        assert_eq!(image.epoch, 3);
        assert_eq!(image.attempts.len(), 2);
        let held = &image.attempts[&AttemptKey::new(7, 1)];
        assert_eq!(held.reports.iter().map(|report| report.seq).collect::<Vec<_>>(), [2]);
        assert_eq!((held.last_seq, held.shim_seen), (2, 2));
    }

    #[test]
    fn a_tail_torn_at_any_byte_costs_only_its_own_batch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, vec![order(7)]);
        let whole_bytes = std::fs::metadata(&path).unwrap().len();
        write(&path, vec![order(8), reported(8, 1)]);
        let bytes = std::fs::read(&path).unwrap();
        for cut in usize::try_from(whole_bytes).unwrap()..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(image_of(&path).attempts.len(), 1, "cut at {cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole_bytes);
        }
        write(&path, vec![order(9)]);
        assert_eq!(image_of(&path).attempts.len(), 2);
    }

    #[test]
    fn a_flipped_bit_ends_the_readable_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, vec![order(7)]);
        write(&path, vec![order(8)]);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(image_of(&path).attempts.len(), 1);
    }

    #[test]
    fn damage_before_whole_records_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        for job_id in [7, 8, 9] {
            write(&path, vec![order(job_id)]);
        }
        let whole = std::fs::read(&path).unwrap();
        let frame_bytes = (whole.len() - MAGIC.len()) / 3;
        for at in MAGIC.len()..whole.len() - frame_bytes {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            let opened = Writer::open(&path, COMPACT_MIN_BYTES);
            assert!(matches!(opened, Err(JournalError::Damaged { .. })), "damaged at {at}");
            assert!(std::fs::read(&path).unwrap() == bytes);
            assert!(Journal::peek(&path).is_none());
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, vec![order(7)]);
        let mut bytes = std::fs::read(&path).unwrap();
        let whole_bytes = bytes.len();
        bytes.resize(whole_bytes + 4096, 0);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(image_of(&path).attempts.len(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole_bytes as u64);
    }

    #[test]
    fn compaction_writes_an_attempt_in_pieces_however_many_steps_it_has() {
        let mut image = Image::default();
        for step in 1..=50 {
            image.apply(&Entry::TasksOrdered(v1::StartTasks {
                job_id: 7,
                attempt: 1,
                step,
                argv: vec!["x".repeat(1000)],
                tasks: vec![v1::TaskStart::default()],
                ..Default::default()
            }));
            image.apply(&reported(7, step.into()));
        }
        let entries = image.entries();
        assert!(entries.iter().all(|entry| entry.encoded_len() < 2000));
        let mut again = Image::default();
        entries.iter().for_each(|entry| again.apply(entry));
        assert_eq!(again, image);
    }

    #[tokio::test]
    async fn a_record_larger_than_a_frame_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(&dir.path().join("journal")).unwrap();
        let boot = Entry::Boot("x".repeat(FRAME_MAX_BYTES + 1));
        let refused = journal.append(vec![boot], true).await;
        assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
    }

    #[test]
    fn findings_survive_reopening_and_compaction_and_so_does_their_last_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let begun = FindingsBegun { journal_id: "name".into(), last_seq: 0 };
        let found = |seq| Entry::Found(v1::Finding { seq, ..Default::default() });
        let mut writer = Writer::open(&path, 2000).unwrap();
        let batch = |entries| [Batch { number: 1, entries, sync: false }];
        put(&mut writer, &batch(vec![Entry::FindingsBegun(begun)]));
        for seq in 1..500_u64 {
            let acked = Entry::FindingsAcked(seq.saturating_sub(3));
            put(&mut writer, &batch(vec![found(seq), acked]));
        }
        assert!(writer.size_bytes < 4000, "{}", writer.size_bytes);
        let findings = image_of(&path).findings;
        assert_eq!((findings.journal_id.as_str(), findings.last_seq), ("name", 499));
        assert_eq!(findings.open.iter().map(|it| it.seq).collect::<Vec<_>>(), [497, 498, 499]);
        put(&mut writer, &batch(vec![Entry::FindingsAcked(499)]));
        writer.compact_min_bytes = 0;
        writer.base_bytes = 0;
        writer.compact_if_worthwhile().unwrap();
        drop(writer);
        let findings = image_of(&path).findings;
        assert_eq!((findings.open.len(), findings.last_seq), (0, 499));
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, "something else entirely").unwrap();
        assert!(matches!(Writer::open(&path, 0), Err(JournalError::Foreign(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else entirely");
    }

    #[test]
    fn an_acknowledgement_does_not_bring_a_forgotten_attempt_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let key = AttemptKey::new(7, 1);
        write(&path, vec![order(7), reported(7, 1), Entry::Forgotten(key), acked(7, 1)]);
        assert!(image_of(&path).attempts.is_empty());
    }

    #[test]
    fn compaction_keeps_the_image_and_shrinks_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut writer = Writer::open(&path, 2000).unwrap();
        let mut largest_bytes = 0;
        for seq in 1..500 {
            let entries = vec![order(7), reported(7, seq), acked(7, seq - 1)];
            put(&mut writer, &[Batch { number: seq, entries, sync: false }]);
            largest_bytes = largest_bytes.max(writer.size_bytes);
        }
        assert!(largest_bytes < 4000, "{largest_bytes}");
        let before = writer.image.clone();
        drop(writer);
        assert_eq!(image_of(&path), before);
        assert_eq!(before.attempts[&AttemptKey::new(7, 1)].last_seq, 499);
    }

    #[tokio::test]
    async fn batches_become_durable_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let mut last = 0;
        for job_id in 1..100 {
            last = journal.append(vec![order(job_id)], true).await.unwrap();
        }
        journal.durable().wait_for(|durable| *durable >= last).await.unwrap();
        assert_eq!(*journal.written().borrow(), last, "what is durable is written");
        assert_eq!(image_of(&path).attempts.len(), 99);
    }
}
