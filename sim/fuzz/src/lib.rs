//! Folders that the branch wrote itself, then damaged: what the fuzz targets beside it start from.
//!
//! ```text
//!  fuzzed shape --real code--> files --fuzzed changes--> files --checksums refitted, or not--> recovery
//! ```
//!
//! Random bytes would end at the first checksum. A folder of the branch's own, with a few bytes changed and
//! every checksum over them made to fit again, reaches what lies behind; with the checksums left alone, it must
//! be seen through.

pub mod change;
pub mod ids;
pub mod journal;
pub mod scratch;
