//! A file for results: opened before the work begins, so that hours of it are not done for a path that cannot be
//! written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

/// See the module. What was in the file stays until something is written.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: File,
}

impl OutputFile {
    /// Opens `path`, making the file if it is not there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        Ok(Self { file: file.with_context(|| path.display().to_string())?, path: path.to_owned() })
    }

    /// Replaces what is in it by `value` as JSON.
    pub fn write_json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.write(|out| Ok(serde_json::to_writer_pretty(out, value)?))
    }

    /// Replaces what is in it by what `write` writes.
    pub fn write(&mut self, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> anyhow::Result<()> {
        self.replace(write).with_context(|| self.path.display().to_string())
    }

    fn replace(&mut self, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
        // Pipes and devices have neither a length nor a position.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
            self.file.rewind()?;
        }
        let mut out = BufWriter::new(&self.file);
        write(&mut out)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_is_the_whole_file_and_a_bad_path_is_named_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("result.json");
        let mut file = OutputFile::open(&path).expect("a folder of ours");
        file.write_json(&[1_000_000, 2]).expect("room");
        file.write_json(&[3]).expect("room");
        drop(OutputFile::open(&path).expect("there"));
        let read: Vec<u32> = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
        assert_eq!(read, [3], "opening it again changes nothing");
        let error = OutputFile::open(&folder.path().join("none/x.json")).expect_err("no folder");
        assert!(format!("{error:#}").contains("none/x.json: No such file"), "{error:#}");
    }
}
