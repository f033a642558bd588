//! Files as bytes, and what a fuzzed change does to them.

use std::path::PathBuf;

use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// Changes are aimed at pieces of this size that hold something: the files are mostly zeros, which nobody reads.
/// A group's header is one such piece, a record about three.
const PIECE_LEN_BYTES: usize = 64;

/// A file of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, with the folder's.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// One change to one file.
#[derive(Clone, Debug, Arbitrary)]
pub struct Change {
    file: u8,
    /// Which of the pieces that hold something, and which byte of it.
    place: (u16, u8),
    what: What,
}

/// What is changed there.
#[derive(Clone, Debug, Arbitrary)]
enum What {
    Flip {
        bit: u8,
    },
    Byte(u8),
    /// A number of eight bytes, on a boundary of as many: nearly every field is one, or a part of one.
    Number(u64),
    /// A number a little above or below: positions, lengths and counts that almost fit.
    Add(i16),
    Zeros {
        len: u8,
    },
    /// The bytes of another place of the file.
    Copy {
        from: (u16, u8),
        len: u8,
    },
    /// The file ends here.
    Cut,
    /// The file is gone.
    Remove,
    /// The file has the number of another.
    Renumber(u64),
}

impl Change {
    /// Does it to one of `files`, which are in order of their paths and stay so. The path of a file that is given
    /// another number is up to `renumbered`.
    pub fn apply(&self, files: &mut Vec<File>, renumbered: impl Fn(&File, u64) -> Option<PathBuf>) {
        let Some(index) = usize::from(self.file).checked_rem(files.len()) else { return };
        let file = &mut files[index];
        let at = place(&file.bytes, self.place);
        let rest = &mut file.bytes[at..];
        match self.what {
            What::Flip { bit } => rest.iter_mut().take(1).for_each(|byte| *byte ^= 1 << (bit % 8)),
            What::Byte(value) => rest.iter_mut().take(1).for_each(|byte| *byte = value),
            What::Number(value) => number_at(&mut file.bytes, at, |_| value),
            What::Add(by) => number_at(&mut file.bytes, at, |value| value.wrapping_add_signed(by.into())),
            What::Zeros { len } => rest.iter_mut().take(len.into()).for_each(|byte| *byte = 0),
            What::Copy { from, len } => {
                let from = place(&file.bytes, from);
                let len = usize::from(len).min(file.bytes.len() - from.max(at));
                file.bytes.copy_within(from..from + len, at);
            }
            What::Cut => file.bytes.truncate(at),
            What::Remove => drop(files.remove(index)),
            What::Renumber(number) => {
                if let Some(path) = renumbered(file, number) {
                    let bytes = files.remove(index).bytes;
                    files.retain(|other| other.path != path);
                    files.push(File { path, bytes });
                    files.sort_by(|one, other| one.path.cmp(&other.path));
                }
            }
        }
    }
}

fn number_at(bytes: &mut [u8], at: usize, change: impl Fn(u64) -> u64) {
    if let Some(number) = bytes[at / 8 * 8..].first_chunk_mut() {
        *number = change(u64::from_le_bytes(*number)).to_le_bytes();
    }
}

/// A byte that holds something, or one just behind. 0 where the file is empty.
fn place(bytes: &[u8], (piece, byte): (u16, u8)) -> usize {
    let is_used = |piece: &[u8]| *piece != [0; PIECE_LEN_BYTES][..piece.len()];
    let used: Vec<usize> =
        bytes.chunks(PIECE_LEN_BYTES).enumerate().filter(|(_, p)| is_used(p)).map(|(i, _)| i).collect();
    let piece = usize::from(piece).checked_rem(used.len() + 1).and_then(|index| used.get(index));
    let behind = used.last().map_or(0, |last| last + 1);
    let at = piece.unwrap_or(&behind) * PIECE_LEN_BYTES + usize::from(byte) % PIECE_LEN_BYTES;
    at.min(bytes.len().saturating_sub(1))
}
