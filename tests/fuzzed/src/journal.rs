//! A worker's journal, as a file that somebody or something wrote.

use gotgan_worker::held::Image;
use gotgan_worker::journal::{read_frames, rewritten};

/// First bytes of a journal.
const MAGIC: &[u8] = b"GOTGANJ1";

/// What a file remembers is what its whole batches say; written anew it remembers the same; cut anywhere it remembers what
/// the batches before the cut say.
pub(crate) fn take(bytes: &[u8]) {
    read(bytes);
    // The checksum lets little of what is made by chance through: the same bytes as a batch that was written so.
    let file = [MAGIC, &u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()].concat();
    let file = [&file[..], &checksum(bytes).to_le_bytes(), bytes].concat();
    read(&file);
}

fn read(file: &[u8]) {
    let Some((image, good_bytes)) = read_frames(file) else {
        assert!(!file.starts_with(MAGIC));
        return;
    };
    assert!(good_bytes <= file.len());
    assert_eq!(read_frames(&file[..good_bytes]), Some((image.clone(), good_bytes)));
    if let Some(last) = good_bytes.checked_sub(1) {
        let (_, cut_bytes) = read_frames(&file[..last]).expect("a journal that was cut");
        assert!(cut_bytes < good_bytes);
    }
    compacted(&image);
}

/// Compaction forgets nothing. It may drop what says nothing, so that what it wrote is what it writes again.
fn compacted(image: &Image) {
    let bytes = rewritten(image);
    let (again, all_bytes) = read_frames(&bytes).expect("a journal");
    assert_eq!(all_bytes, bytes.len());
    assert_eq!(again, *image);
}

/// CRC-32, by its definition.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 }
        })
    })
}
