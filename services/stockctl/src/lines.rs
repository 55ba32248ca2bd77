//! The lines of a document from a file, or from what is piped in.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;

use crate::failure::Failure;
use crate::notation::Units;

/// As many lines as the cluster takes in one call: `stock/v1/inventory.proto`.
const LINES_MAX: usize = 10_000;

/// What is longer is no list of so many lines.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// More faults are counted and not told.
const FAULTS_TOLD_MAX: usize = 10;

/// The name of what is piped in.
const PIPED: &str = "-";

/// What a file lists, one `SKU@LOC=QTY` in a line, each with the number of its line from 1: the
/// same file again names the same lines of the document. Empty lines, and those that begin with
/// `#`, are passed over. `-` is what is piped in.
///
/// Fails with [`Failure::Usage`] where lines are wrong, which it names all together.
pub(crate) fn read(path: &Path) -> Result<Vec<(u32, Units)>, Failure> {
    let name = path.display().to_string();
    let opened: io::Result<Box<dyn Read>> = match name.as_str() {
        PIPED => Ok(Box::new(io::stdin())),
        _ => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let text = opened.and_then(|file| {
        let mut text = String::new();
        let mut bounded = BufReader::new(file.take(BYTES_MAX + 1));
        bounded.read_to_string(&mut text).map(|_| text)
    });
    let text = text.with_context(|| name.clone()).map_err(Failure::Local)?;
    if text.len() as u64 > BYTES_MAX {
        let why = format!("{name} has more than {BYTES_MAX} bytes");
        return Err(Failure::Usage(why));
    }
    parse(&name, text.as_bytes())
}

fn parse(name: &str, text: &[u8]) -> Result<Vec<(u32, Units)>, Failure> {
    let mut units = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.unwrap_or_default();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.parse() {
            Ok(one) => units.push((number, one)),
            Err(why) => faults.push(format!("{name}, line {number}: {line}: {why}")),
        }
    }
    if !faults.is_empty() {
        let more = faults.len().saturating_sub(FAULTS_TOLD_MAX);
        faults.truncate(FAULTS_TOLD_MAX);
        if more > 0 {
            faults.push(format!("and {more} more"));
        }
        return Err(Failure::Usage(faults.join("\n")));
    }
    match units.len() {
        0 => Err(Failure::Usage(format!("{name} lists nothing"))),
        count if count > LINES_MAX => Err(Failure::Usage(format!(
            "{name} lists {count} positions; at most {LINES_MAX} go into one document: divide it"
        ))),
        _ => Ok(units),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_faults_name_them() {
        let read = parse("note", b"# arrived today\n\nmilk@S7=2\r\n  bread@S7=1  \n");
        let read = read.expect("two lines");
        let numbers: Vec<u32> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4]);
        assert_eq!(read[0].1.position.sku, "milk");

        let wrong = parse("note", b"milk@S7=2\nmilk@S7\nbread=1\n").expect_err("two are wrong");
        let told = wrong.sentences();
        assert!(told.contains("note, line 2: milk@S7: "), "{told}");
        assert!(told.contains("note, line 3: bread=1: "), "{told}");
        let all_wrong = "x\n".repeat(25);
        let told = parse("note", all_wrong.as_bytes()).expect_err("all are wrong");
        assert!(told.sentences().contains("and 15 more"));

        for nothing in [&b""[..], b"# only words\n"] {
            assert!(parse("note", nothing).is_err());
        }
        let many = "milk@S7=1\n".repeat(LINES_MAX + 1);
        assert!(parse("note", many.as_bytes()).is_err());
    }
}
