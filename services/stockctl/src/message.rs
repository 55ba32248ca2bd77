//! Messages of the public API for programs.

use anyhow::Context;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use stock_proto::stock::v1::FILE_DESCRIPTOR_SET;

/// A message of `stock.v1` as JSON.
pub(crate) fn message(name: &str, message: &impl Message) -> anyhow::Result<Value> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).context("the schema does not decode")?;
    let descriptor = pool
        .get_message_by_name(&format!("stock.v1.{name}"))
        .with_context(|| format!("the schema has no stock.v1.{name}"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .with_context(|| format!("this is no stock.v1.{name}"))?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .with_context(|| format!("stock.v1.{name} has no JSON form"))
}
