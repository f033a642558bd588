//! The bytes of every message, written down: a change of the wire shows up as a changed file.
//!
//! `tests/golden/*.hex` holds one example per message type, as hex with a comment per field; `link/` there holds
//! those of the links between services. Clients in other
//! languages test against the same files. `TALLY_WRITE_GOLDEN=1 cargo test -p tally-protocol --test golden`
//! writes them anew; a change of an existing file breaks every client there is.

#![allow(clippy::disallowed_methods, reason = "the crate does no IO, its tests do")]

mod examples;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use examples::{Example, Frame, all};
use tally_protocol::message::FieldLayout;
use tally_protocol::{FrameHeader, LinkType, MessageType, link, reply, request, split_frame};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bytes of a hex file: everything behind `#` is a comment.
fn parse_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or("").chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("{c:?} is no hex digit")))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// `frame` as hex: the header's fields, then those of each part of the body.
fn format_hex(example: &Example, frame: &[u8]) -> String {
    let mut out = format!("# {}\n", example.what);
    let mut rest = frame;
    let mut section = |out: &mut String, title: &str, fields: &[FieldLayout]| {
        writeln!(out, "\n# {title}").expect("a string takes all");
        for field in fields {
            let (bytes, behind) = rest.split_at(field.len_bytes);
            rest = behind;
            for (index, line) in bytes.chunks(16).enumerate() {
                let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                let name = if index == 0 { field.name } else { "  ..." };
                writeln!(out, "{:<48}# {name}", hex.join(" ")).expect("a string takes all");
            }
        }
    };
    section(&mut out, "FrameHeader", FrameHeader::FIELDS);
    for (title, fields) in &example.body {
        section(&mut out, title, fields);
    }
    assert!(rest.is_empty(), "{}: {} bytes are not described", example.file, rest.len());
    out
}

#[test]
fn every_message_has_the_bytes_that_are_written_down() {
    for example in all() {
        let path = folder().join(format!("{}.hex", example.file));
        let mut frame = Vec::new();
        example.append_to(&mut frame);
        let text = format_hex(&example, &frame);
        assert_eq!(parse_hex(&text), frame);
        if std::env::var_os("TALLY_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let written = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(parse_hex(&written), frame, "{}: the bytes have changed", example.file);
        assert_eq!(written, text, "{}: a comment has changed", example.file);
    }
}

#[test]
fn the_bytes_that_are_written_down_are_read_as_the_example() {
    for example in all() {
        let path = folder().join(format!("{}.hex", example.file));
        let written = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let frame = parse_hex(&written);
        let (header, body) = split_frame(&frame).expect("a valid header").expect("a whole frame");
        match example.frame {
            Frame::Request(expected) => assert_eq!(request::decode(header, body), Ok(expected), "{}", example.file),
            Frame::Reply(expected) => assert_eq!(reply::decode(header, body), Ok(expected), "{}", example.file),
            Frame::Link(expected) => assert_eq!(link::decode(header, body), Ok(expected), "{}", example.file),
        }
        assert_eq!(header.len_bytes.get() as usize, frame.len());
    }
}

#[test]
fn every_message_type_has_a_golden_file_and_every_file_an_example() {
    let types: BTreeSet<u16> = all().iter().map(Example::code).collect();
    let missing: Vec<_> = MessageType::ALL.iter().filter(|&&kind| !types.contains(&(kind as u16))).collect();
    assert!(missing.is_empty(), "no golden file for {missing:?}");
    let missing: Vec<_> = LinkType::ALL.iter().filter(|&&kind| !types.contains(&(kind as u16))).collect();
    assert!(missing.is_empty(), "no golden file for {missing:?}");

    let expected: BTreeSet<PathBuf> =
        all().iter().map(|example| folder().join(example.file).with_extension("hex")).collect();
    let found: BTreeSet<PathBuf> = [folder(), folder().join("link")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("the folder is there"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file())
        .collect();
    assert_eq!(found, expected);
}
