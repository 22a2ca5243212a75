//! The messages of the contract as JSON, by the descriptors.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::pb;
use crate::error::{Error, Result};

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(pb::DESCRIPTORS).ok());

/// The message of this name in the package that a JSON text says. A member that the message does not have is an error,
/// whose text may hold what was sent.
pub fn parse<M: Message + Default>(name: &str, text: &[u8]) -> Result<M, String> {
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&format!("profiles.v1.{name}")));
    let descriptor = descriptor.ok_or_else(|| format!("there is no message {name}"))?;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize(descriptor, &mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// A message of this name in the package, as one line.
pub fn line(name: &str, message: &impl Message) -> Result<String> {
    let bytes = message.encode_to_vec();
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&format!("profiles.v1.{name}")));
    let message = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, bytes.as_slice()).ok());
    let line = message.and_then(|message| serde_json::to_string(&message).ok());
    line.ok_or_else(|| Error::Internal(format!("{name} has no JSON")))
}
