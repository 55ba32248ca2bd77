//! What callers have been told of the API is kept: `recorded.txt` says it, a line for each thing a
//! caller can depend on, and every line must still be true. What is new is recorded by
//! `STOCKD_RECORD_API=1 cargo test -p stock-proto --test kept`, which adds lines and takes none
//! away: who must break a promise does it by hand, and says so in CHANGELOG.md.

mod describe;
mod http;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::describe::describe;

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded.txt")
}

fn public() -> DescriptorPool {
    DescriptorPool::decode(stock_proto::PUBLIC_DESCRIPTORS).expect("descriptors")
}

/// Lines that are no longer true, and lines that are not recorded.
fn compare(recorded: &BTreeSet<String>, now: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let broken = recorded.difference(now).cloned().collect();
    let added = now.difference(recorded).cloned().collect();
    (broken, added)
}

#[test]
fn what_is_recorded_is_kept() {
    let text = std::fs::read_to_string(record()).unwrap_or_default();
    let recorded: BTreeSet<String> = text.lines().map(ToOwned::to_owned).collect();
    let now = describe(&public());
    let (broken, added) = compare(&recorded, &now);
    assert!(
        broken.is_empty(),
        "the API no longer is what proto/recorded.txt says:\n{}\nnow there is:\n{}",
        broken.join("\n"),
        added.join("\n")
    );
    if std::env::var_os("STOCKD_RECORD_API").is_some() {
        let lines: Vec<&str> = now.iter().map(String::as_str).collect();
        std::fs::write(record(), lines.join("\n") + "\n").unwrap();
        return;
    }
    assert!(
        added.is_empty(),
        "new in the API; record it: STOCKD_RECORD_API=1 cargo test -p stock-proto --test kept\n{}",
        added.join("\n")
    );
}

const SHOP: &str = r#"
syntax = "proto3";
package shop;
option go_package = "shop;shop";
service Till { rpc Sell(Sale) returns (Sold); }
enum Kind { KIND_UNSPECIFIED = 0; KIND_CASH = 1; }
message Sale {
  string sku = 1;
  optional int64 quantity = 2;
  repeated string notes = 3;
  oneof where { string till = 4; string web = 5; }
  Kind kind = 6;
  map<string, int32> tags = 7;
  message Part { int32 number = 1; }
  Part part = 8;
}
message Sold { string sku = 1; }
"#;

/// One file, and what the compiler itself brings.
struct Source(String);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "shop.proto" => File::from_source(name, &self.0),
            _ => GoogleFileResolver::new().open_file(name),
        }
    }
}

fn shop(source: &str) -> BTreeSet<String> {
    let mut compiler = protox::Compiler::with_file_resolver(Source(source.to_owned()));
    compiler.open_file("shop.proto").expect("compiles");
    describe(&compiler.descriptor_pool())
}

#[test]
fn every_change_that_breaks_a_caller_is_seen() {
    let before = shop(SHOP);
    let changes = [
        ("a number", "string sku = 1;", "string sku = 9;"),
        ("a name", "int64 quantity = 2", "int64 units = 2"),
        (
            "a type",
            "optional int64 quantity",
            "optional int32 quantity",
        ),
        ("a label", "repeated string notes", "string notes"),
        ("optional", "optional int64", "int64"),
        ("a oneof's field", "string web = 5; }", "} string web = 5;"),
        ("a oneof's name", "oneof where", "oneof place"),
        ("an enum's value", "KIND_CASH = 1", "KIND_CASH = 2"),
        ("an enum's name", "KIND_CASH", "KIND_CARD"),
        ("a map's values", "map<string, int32>", "map<string, int64>"),
        ("a message's name", "Part", "Piece"),
        ("a call's name", "rpc Sell", "rpc Vend"),
        ("a call's answer", "returns (Sold)", "returns (Sale)"),
        ("a stream", "returns (Sold)", "returns (stream Sold)"),
        ("a service", "service Till", "service Kiosk"),
        ("the package", "package shop", "package store"),
        ("an option", "shop;shop", "shop;till"),
        ("a field that goes", "Part part = 8;", ""),
    ];
    for (what, from, to) in changes {
        assert!(SHOP.contains(from), "{what}: {from:?} is not there");
        let (broken, _) = compare(&before, &shop(&SHOP.replace(from, to)));
        assert!(!broken.is_empty(), "{what} can change unseen");
    }
    let grown = SHOP
        .replace("KIND_CASH = 1;", "KIND_CASH = 1; KIND_CARD = 2;")
        .replace("Part part = 8;", "Part part = 8; string new = 9;")
        .replace("string till = 4;", "string till = 4; string kiosk = 10;")
        .replace("rpc Sell", "rpc Return(Sold) returns (Sold); rpc Sell");
    let (broken, added) = compare(&before, &shop(&grown));
    assert_eq!((broken, added.len()), (Vec::new(), 4));
}
