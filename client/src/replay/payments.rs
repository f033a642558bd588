//! The payments of a file: rows of a CSV or parquet file, by the names of their columns.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

/// One payment, as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    /// The file's own number of the payment.
    pub(crate) tx_id: u64,
    /// Seconds since the file's own beginning.
    pub(crate) t: u64,
    pub(crate) customer_id: u64,
    /// A terminal or a merchant: whoever is paid.
    pub(crate) payee_id: u64,
    /// In the currency's minor unit.
    pub(crate) amount: u64,
}

/// The columns that a payment is made of; for each the names that it may have.
const COLUMNS: [&[&str]; 5] =
    [&["tx_id"], &["t"], &["customer_id"], &["terminal_id", "merchant_id"], &["amount_cents"]];

/// Where in a row each of [`COLUMNS`] is.
type Places = [usize; COLUMNS.len()];

/// Reads the first `rows_max` payments of `path`: `.csv`, `.csv.zst` or `.parquet`.
pub(crate) fn read(path: &Path, rows_max: usize) -> anyhow::Result<Vec<Payment>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let payments = if name.ends_with(".parquet") {
        read_parquet(file, rows_max)
    } else if name.ends_with(".zst") {
        read_csv(zstd::stream::read::Decoder::new(file)?, rows_max)
    } else {
        read_csv(BufReader::new(file), rows_max)
    };
    payments.with_context(|| path.display().to_string())
}

fn places<'a>(header: impl Iterator<Item = &'a str>) -> anyhow::Result<Places> {
    let header: Vec<&str> = header.map(str::trim).collect();
    let mut places = [0; COLUMNS.len()];
    for (place, names) in places.iter_mut().zip(COLUMNS) {
        *place = header
            .iter()
            .position(|column| names.contains(column))
            .with_context(|| format!("no column {} in {header:?}", names.join(" or ")))?;
    }
    Ok(places)
}

fn payment([tx_id, t, customer_id, payee_id, amount]: [u64; COLUMNS.len()]) -> Payment {
    Payment { tx_id, t, customer_id, payee_id, amount }
}

fn read_csv(input: impl Read, rows_max: usize) -> anyhow::Result<Vec<Payment>> {
    let mut reader = csv::Reader::from_reader(input);
    let places = places(reader.headers()?.iter())?;
    let mut payments = Vec::new();
    let mut record = csv::ByteRecord::new();
    while payments.len() < rows_max && reader.read_byte_record(&mut record)? {
        let mut values = [0; COLUMNS.len()];
        for ((value, &place), names) in values.iter_mut().zip(&places).zip(COLUMNS) {
            let text = record.get(place).unwrap_or_default();
            *value = whole_number(text).with_context(|| {
                let line = record.position().map_or(0, csv::Position::line);
                format!("line {line}: {} is {:?}", names[0], String::from_utf8_lossy(text))
            })?;
        }
        payments.push(payment(values));
    }
    Ok(payments)
}

fn whole_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

fn read_parquet(file: File, rows_max: usize) -> anyhow::Result<Vec<Payment>> {
    let reader = SerializedFileReader::new(file)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let places = places(schema.get_fields().iter().map(|field| field.name()))?;
    let mut payments = Vec::new();
    for (row_index, row) in reader.get_row_iter(None)?.take(rows_max).enumerate() {
        let row = row?;
        let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
        let mut values = [0; COLUMNS.len()];
        for ((value, &place), names) in values.iter_mut().zip(&places).zip(COLUMNS) {
            *value = whole_field(fields[place])
                .with_context(|| format!("row {row_index}: {} is {:?}", names[0], fields[place]))?;
        }
        payments.push(payment(values));
    }
    Ok(payments)
}

fn whole_field(field: &Field) -> Option<u64> {
    match field {
        Field::Byte(value) => u64::try_from(*value).ok(),
        Field::Short(value) => u64::try_from(*value).ok(),
        Field::Int(value) => u64::try_from(*value).ok(),
        Field::Long(value) => u64::try_from(*value).ok(),
        Field::UByte(value) => Some((*value).into()),
        Field::UShort(value) => Some((*value).into()),
        Field::UInt(value) => Some((*value).into()),
        Field::ULong(value) => Some(*value),
        // Tools without integers write whole numbers as doubles; 2^53 is as far as those are exact.
        Field::Double(value) if value.fract() == 0.0 && (0.0..9.0e15).contains(value) => Some(*value as u64),
        Field::Str(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The name by which payments of this file are known: its own, without folder and endings.
pub(crate) fn file_tag(path: &Path) -> anyhow::Result<String> {
    let Some(name) = path.file_name() else { bail!("{} is not a file", path.display()) };
    let name = name.to_string_lossy();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    Ok(name.strip_suffix(".csv").or_else(|| name.strip_suffix(".parquet")).unwrap_or(name).to_owned())
}

/// A file that cannot be replayed, before anything is sent.
pub(crate) fn check(payments: &[Payment]) -> anyhow::Result<()> {
    if payments.is_empty() {
        bail!(io::Error::new(io::ErrorKind::InvalidData, "the file has no payments"));
    }
    if !payments.is_sorted_by_key(|payment| payment.t) {
        bail!("column t goes back: the payments must be in order of time");
    }
    let mut tx_ids: Vec<u64> = payments.iter().map(|payment| payment.tx_id).collect();
    tx_ids.sort_unstable();
    match tx_ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => bail!("tx_id {} is there twice", pair[0]),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    const HANDBOOK: &str = "tx_id,t,customer_id,terminal_id,amount_cents,fraud,fraud_scenario\n\
                            0,31,596,3156,5716,0,0\n1,130,4961,3412,8151,1,2\n";
    const SPARKOV: &str = "tx_id,t,customer_id,merchant_id,category_id,amount_cents,merch_lat_e4,merch_lon_e4,fraud\n\
                           0,31,596,3156,9,5716,346712,-774049,0\n1,130,4961,3412,9,8151,395600,-904370,0\n";

    fn expected() -> Vec<Payment> {
        vec![
            Payment { tx_id: 0, t: 31, customer_id: 596, payee_id: 3156, amount: 5716 },
            Payment { tx_id: 1, t: 130, customer_id: 4961, payee_id: 3412, amount: 8151 },
        ]
    }

    #[test]
    fn both_kinds_of_file_are_read_plain_packed_and_as_parquet() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.csv"), HANDBOOK).expect("a file");
        std::fs::write(path("b.csv"), SPARKOV).expect("a file");
        let packed = zstd::encode_all(SPARKOV.as_bytes(), 1).expect("memory does not fail");
        std::fs::write(path("c.csv.zst"), packed).expect("a file");
        write_parquet(&path("d.parquet"), Compression::UNCOMPRESSED);
        for name in ["a.csv", "b.csv", "c.csv.zst", "d.parquet"] {
            assert_eq!(read(&path(name), usize::MAX).expect("valid"), expected(), "{name}");
            assert_eq!(read(&path(name), 1).expect("valid"), expected()[..1], "{name}");
            assert_eq!(file_tag(&path(name)).expect("a file").len(), 1, "{name}");
        }
    }

    #[test]
    fn parquet_is_read_however_it_is_packed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for compression in [
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::BROTLI(Default::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::ZSTD(Default::default()),
        ] {
            let path = folder.path().join("x.parquet");
            write_parquet(&path, compression);
            let packed = SerializedFileReader::new(File::open(&path).expect("just written")).expect("parquet");
            assert_eq!(packed.metadata().row_group(0).column(0).compression(), compression);
            assert_eq!(read(&path, usize::MAX).expect("valid"), expected(), "{compression}");
        }
    }

    fn write_parquet(path: &Path, compression: Compression) {
        let schema = "message payments { required int64 tx_id; required int64 t; required int64 customer_id; \
                      required int64 terminal_id; required double amount_cents; }";
        let schema = Arc::new(parse_message_type(schema).expect("a schema"));
        let file = File::create(path).expect("a file");
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(file, schema, properties).expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let rows = expected();
        let columns: [Vec<i64>; 4] = [
            rows.iter().map(|row| row.tx_id as i64).collect(),
            rows.iter().map(|row| row.t as i64).collect(),
            rows.iter().map(|row| row.customer_id as i64).collect(),
            rows.iter().map(|row| row.payee_id as i64).collect(),
        ];
        for values in columns {
            let mut column = group.next_column().expect("no error").expect("a column");
            column.typed::<Int64Type>().write_batch(&values, None, None).expect("written");
            column.close().expect("closed");
        }
        let mut column = group.next_column().expect("no error").expect("a column");
        let amounts: Vec<f64> = rows.iter().map(|row| row.amount as f64).collect();
        column.typed::<DoubleType>().write_batch(&amounts, None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.csv");
        let cases = [
            ("tx_id,t,customer_id,amount_cents\n", "no column terminal_id or merchant_id"),
            ("tx_id,t,customer_id,terminal_id,amount_cents\n0,1,2,3,-4\n", "line 2: amount_cents is \"-4\""),
            ("tx_id,t,customer_id,terminal_id,amount_cents\n0,1,2,3,4.5\n", "line 2: amount_cents is \"4.5\""),
            ("tx_id,t,customer_id,terminal_id,amount_cents\n", "no payments"),
            ("tx_id,t,customer_id,terminal_id,amount_cents\n0,9,2,3,4\n1,8,2,3,4\n", "goes back"),
            ("tx_id,t,customer_id,terminal_id,amount_cents\n0,1,2,3,4\n0,8,2,3,4\n", "tx_id 0 is there twice"),
        ];
        for (text, problem) in cases {
            File::create(&path).expect("a file").write_all(text.as_bytes()).expect("written");
            let result = read(&path, usize::MAX).and_then(|payments| check(&payments));
            let error = format!("{:#}", result.expect_err("something is wrong"));
            assert!(error.contains(problem), "{error:?} does not say {problem:?}");
        }
    }
}
