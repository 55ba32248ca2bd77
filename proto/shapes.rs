//! Writes down what each request may hold, for `src/whole.rs`: made from the schemas, so that there
//! is nothing to keep up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// The fields that came later, by their full names, and the version of the cluster that each came
/// with. Those of the first version need not be told.
const LATER: &[(&str, u32)] = &[];

/// Field numbers from here on are not told apart from each other where one is set twice.
const TRACKED: i32 = 64;

/// The code: a shape for each message of a request, and for each message of a call whether it is to
/// be whole. What is in `unread` is looked at by whoever reads it, a part at a time.
pub fn shapes(set: &FileDescriptorSet, unread: &str) -> String {
    let mut messages = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(&format!(".{}", file.package()), message, &mut messages);
        }
    }
    let services = set.file.iter().flat_map(|file| &file.service);
    let calls = services.flat_map(|service| &service.method);
    let (mut requests, mut responses) = (BTreeSet::new(), BTreeSet::new());
    for call in calls {
        requests.insert(call.input_type());
        responses.insert(call.output_type());
    }
    let mut code = String::new();
    let mut known = BTreeSet::new();
    let mut open: Vec<&str> = requests.iter().copied().collect();
    while let Some(name) = open.pop() {
        if known.insert(name) {
            open.extend(shape(name, messages[name], unread, &mut code));
        }
    }
    for name in requests {
        let shape = format!("Some(&{})", constant(name));
        implement(name, &shape, &mut code);
    }
    for name in responses {
        implement(name, "None", &mut code);
    }
    code
}

fn collect<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    messages: &mut BTreeMap<String, &'a DescriptorProto>,
) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, messages);
    }
    messages.insert(name, message);
}

/// Says which messages are in it.
fn shape<'a>(
    name: &str,
    message: &'a DescriptorProto,
    unread: &str,
    code: &mut String,
) -> Vec<&'a str> {
    let last = message.field.iter().map(FieldDescriptorProto::number).max();
    let mut fields = vec!["None".to_owned(); last.map_or(0, |last| last as usize + 1)];
    let mut parts = Vec::new();
    for field in &message.field {
        let is_repeated = field.label() == Label::Repeated;
        let inside = match field.r#type() {
            Type::Message if name != unread => {
                parts.push(field.type_name());
                format!("Some(&{})", constant(field.type_name()))
            }
            _ => "None".to_owned(),
        };
        // Beside itself, if there is one, and the others of its oneof.
        let excluded = message.field.iter().filter(|other| {
            let is_same = other.number() == field.number() && !is_repeated;
            let is_sibling = field.oneof_index.is_some() && other.oneof_index == field.oneof_index;
            is_same || is_sibling
        });
        let excluded = excluded.map(FieldDescriptorProto::number);
        let excluded = excluded.filter(|number| *number < TRACKED);
        let excluded = excluded.fold(0_u64, |mask, number| mask | 1 << number);
        fields[field.number() as usize] = format!(
            "Some(Field {{ name: {:?}, since: {}, is_repeated: {is_repeated}, excludes: \
             {excluded:#x}, inside: {inside} }})",
            field.name(),
            since(&format!("{}.{}", &name[1..], field.name()))
        );
    }
    let constant = constant(name);
    let _ = writeln!(
        code,
        "static {constant}: Shape = Shape {{ fields: &[{}] }};",
        fields.join(", ")
    );
    parts
}

/// The version of the cluster that a field came with.
fn since(field: &str) -> u32 {
    let mut later = LATER.iter();
    later.find(|(name, _)| *name == field).map_or(1, |it| it.1)
}

fn implement(name: &str, shape: &str, code: &mut String) {
    let path = name[1..].replace('.', "::");
    let _ = writeln!(
        code,
        "impl Whole for crate::{path} {{ const SHAPE: Option<&'static Shape> = {shape}; }}"
    );
}

fn constant(name: &str) -> String {
    name[1..].replace('.', "_").to_uppercase()
}
