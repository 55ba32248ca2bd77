//! An API in lines, each of which stands for itself: what a caller's code, or its generator, was
//! built on.

use std::collections::BTreeSet;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor,
};

use crate::http;

/// The lines of every package but those that Google publishes.
pub(crate) fn describe(pool: &DescriptorPool) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let is_ours = |package: &str| !package.starts_with("google.");
    for file in pool.files().filter(|file| is_ours(file.package_name())) {
        let options = file.file_descriptor_proto().options.clone();
        let options = options.unwrap_or_default();
        for (name, value) in [
            ("go_package", options.go_package),
            ("java_package", options.java_package),
            ("csharp_namespace", options.csharp_namespace),
            ("php_namespace", options.php_namespace),
            ("ruby_package", options.ruby_package),
        ] {
            let value = value.unwrap_or_default();
            lines.insert(format!("file {} {name} = {value:?}", file.name()));
        }
    }
    for message in pool.all_messages() {
        if is_ours(message.package_name()) && !message.is_map_entry() {
            lines.insert(format!("message {}", message.full_name()));
            lines.extend(message.fields().map(|field| of_field(&message, &field)));
        }
    }
    for of in pool.all_enums().filter(|of| is_ours(of.package_name())) {
        lines.extend(values(&of));
    }
    for service in pool.services().filter(|it| is_ours(it.package_name())) {
        lines.extend(service.methods().map(|method| of_call(&method)));
    }
    lines
}

fn of_field(message: &MessageDescriptor, field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof();
    let is_optional = field.field_descriptor_proto().proto3_optional();
    let oneof = match oneof {
        Some(oneof) if !is_optional => format!(", one of {}", oneof.name()),
        _ => String::new(),
    };
    let kind = match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => format!(
            "map of {} to {}",
            of_kind(entry.map_entry_key_field().kind()),
            of_kind(entry.map_entry_value_field().kind())
        ),
        kind => match field.cardinality() {
            Cardinality::Repeated => format!("repeated {}", of_kind(kind)),
            _ if is_optional => format!("optional {}", of_kind(kind)),
            _ => of_kind(kind),
        },
    };
    let (message, number, name) = (message.full_name(), field.number(), field.name());
    format!("field {message}.{name} = {number}: {kind}{oneof}")
}

fn of_kind(kind: Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(of) => of.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn values(of: &EnumDescriptor) -> Vec<String> {
    let name = of.full_name();
    of.values()
        .map(|value| format!("value {name}.{} = {}", value.name(), value.number()))
        .collect()
}

fn of_call(call: &MethodDescriptor) -> String {
    let streamed = |is_stream: bool| if is_stream { "stream of " } else { "" };
    let path = http::rule(call).map(|rule| format!(", {rule}"));
    format!(
        "call {}: {}{} to {}{}{}",
        call.full_name(),
        streamed(call.is_client_streaming()),
        call.input().full_name(),
        streamed(call.is_server_streaming()),
        call.output().full_name(),
        path.unwrap_or_default()
    )
}
