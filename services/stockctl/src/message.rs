//! Messages of the public API for programs.

use anyhow::Context;
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use stock_proto::PUBLIC_DESCRIPTORS;
use stock_proto::stock::v1::ResponseHeader;

/// What every answer begins with.
const HEADER: &str = "header";

/// A message of the public API as JSON: its header as one text, as `--at-least` takes it.
pub(crate) fn message(message: &impl Name) -> anyhow::Result<Value> {
    let name = named(message);
    let pool = DescriptorPool::decode(PUBLIC_DESCRIPTORS).context("the schema does not decode")?;
    let descriptor = pool
        .get_message_by_name(&name)
        .with_context(|| format!("the schema has no {name}"))?;
    let mut dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .with_context(|| format!("this is no {name}"))?;
    let header = dynamic.get_field_by_name(HEADER);
    let header = header.and_then(|it| {
        it.as_message()
            .map(|it| it.transcode_to::<ResponseHeader>())
    });
    dynamic.clear_field_by_name(HEADER);
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut value = dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .with_context(|| format!("{name} has no JSON form"))?;
    if let (Value::Object(fields), Some(header)) = (&mut value, header) {
        let header = header.context("the header is none")?;
        fields.insert(HEADER.into(), header.to_text().into());
    }
    Ok(value)
}

fn named<M: Name>(_: &M) -> String {
    M::full_name()
}
