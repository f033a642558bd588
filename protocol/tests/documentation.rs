//! docs/PROTOCOL.md says what the code does: every struct with its offsets, every message, every refusal.

use tally_protocol::link::LINK_STRUCTS;
use tally_protocol::message::STRUCTS;
use tally_protocol::{LinkType, MessageType, Refusal};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of each row of the tables in `text`, without the back-quotes.
fn rows(text: &str) -> Vec<Vec<String>> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("|---");
    let cells = |line: &str| {
        let inner = line.trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    text.lines().filter(is_row).map(cells).collect()
}

/// The part of the document under the heading `### heading`, up to the next heading.
fn section<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let (_, behind) = document.split_once(&format!("\n### {heading}\n"))?;
    Some(behind.split("\n#").next().unwrap_or(behind))
}

#[test]
fn every_struct_has_its_size_and_every_field_its_offset() {
    let document = document();
    for (name, len_bytes, fields) in STRUCTS.iter().chain(LINK_STRUCTS) {
        let heading = format!("{name} ({len_bytes} bytes)");
        let section = section(&document, &heading).unwrap_or_else(|| panic!("no section `### {heading}`"));
        let documented: Vec<_> = rows(section).into_iter().filter(|row| row[0] != "offset").collect();
        let expected: Vec<_> = fields
            .iter()
            .map(|field| [field.offset_bytes.to_string(), field.len_bytes.to_string(), field.name.to_owned()])
            .collect();
        let documented: Vec<_> =
            documented.iter().map(|row| [row[0].clone(), row[1].clone(), row[2].clone()]).collect();
        assert_eq!(documented, expected, "the table of {name}");
        let total: usize = fields.iter().map(|field| field.len_bytes).sum();
        assert_eq!(total, *len_bytes, "the fields of {name} fill it");
    }
}

#[test]
fn every_message_type_is_in_the_table_and_no_other() {
    let document = document();
    let table = document.split("\n## Messages\n").nth(1).and_then(|rest| rest.split("\n#").next()).expect("a section");
    let documented: Vec<_> = rows(table)
        .into_iter()
        .filter(|row| row[0].starts_with("0x"))
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected: Vec<_> =
        MessageType::ALL.iter().map(|&kind| (format!("0x{:04X}", kind as u16), format!("{kind:?}"))).collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_message_of_a_link_is_in_the_table_and_no_other() {
    let document = document();
    let table = section(&document, "Messages of the links").expect("a section");
    let documented: Vec<_> = rows(table)
        .into_iter()
        .filter(|row| row[0].starts_with("0x"))
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected: Vec<_> =
        LinkType::ALL.iter().map(|&kind| (format!("0x{:04X}", kind as u16), format!("{kind:?}"))).collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_refusal_is_in_its_table_in_the_order_of_the_checks() {
    let document = document();
    let tables =
        document.split("\n## Refusals\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let documented: Vec<_> = rows(tables)
        .into_iter()
        .filter(|row| row[0].parse::<u16>().is_ok())
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected: Vec<_> =
        Refusal::ALL.iter().map(|refusal| (refusal.code().to_string(), refusal.name().to_owned())).collect();
    assert_eq!(documented, expected);
}

#[test]
fn what_closes_the_connection_is_said_to() {
    let document = document();
    for refusal in Refusal::ALL {
        let row =
            rows(&document).into_iter().find(|row| row[0] == refusal.code().to_string() && row[1] == refusal.name());
        let row = row.unwrap_or_else(|| panic!("{refusal} is not documented"));
        assert_eq!(row[2].contains("the connection closes"), refusal.closes_connection(), "{refusal}: {}", row[2]);
    }
}

#[test]
fn the_python_client_names_every_refusal_alike() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/python/tallystick.py");
    let source = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let table = source.split("\nREFUSALS = {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the table");
    let named: Vec<_> = table
        .split(',')
        .filter_map(|entry| entry.split_once(':'))
        .map(|(code, name)| (code.trim().to_owned(), name.trim().trim_matches('"').to_owned()))
        .collect();
    let expected: Vec<_> =
        Refusal::ALL.iter().map(|refusal| (refusal.code().to_string(), refusal.name().to_owned())).collect();
    assert_eq!(named, expected);
}
