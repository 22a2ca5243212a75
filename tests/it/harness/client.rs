//! A gRPC client that speaks JSON, in the names of the documents, through the program's own descriptors.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use http::uri::PathAndQuery;
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::{Value as Json, json};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::StatusExt as _;

/// The descriptors that build.rs has written.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("descriptors"));

/// The answer, as JSON, or why there is none.
pub type Outcome = Result<Json, Failure>;

/// An error, as a caller reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// The reason of the ErrorInfo; empty where there is none.
    pub reason: String,
    pub message: String,
    pub domain: String,
    pub metadata: HashMap<String, String>,
    /// The fields of a BadRequest or PreconditionFailure, each with its description.
    pub fields: Vec<(String, String)>,
    /// The reasons of a BadRequest's fields, in the same order.
    pub field_reasons: Vec<String>,
    pub retry_after: Option<Duration>,
    /// In how many milliseconds a client library may repeat the call; -1 is never.
    pub pushback: Option<i64>,
    /// The name of the missing resource.
    pub resource: Option<String>,
}

impl Failure {
    /// The paths of the fields that are wrong.
    pub fn paths(&self) -> Vec<&str> {
        self.fields.iter().map(|(path, _)| path.as_str()).collect()
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let invalid: Vec<_> = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations).collect();
        let locked = details.precondition_failure().into_iter().flat_map(|failure| &failure.violations);
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            domain: info.map(|info| info.domain.clone()).unwrap_or_default(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            field_reasons: invalid.iter().map(|violation| violation.reason.clone()).collect(),
            fields: invalid
                .iter()
                .map(|violation| (violation.field.clone(), violation.description.clone()))
                .chain(locked.map(|violation| (violation.subject.clone(), violation.description.clone())))
                .collect(),
            pushback: status
                .metadata()
                .get("grpc-retry-pushback-ms")
                .map(|value| value.to_str().expect("text").parse().expect("a number")),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            resource: details.resource_info().map(|resource| resource.resource_name.clone()),
        }
    }
}

/// A client with a key, or without one.
#[derive(Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
    metadata: Vec<(&'static str, String)>,
}

impl Client {
    pub fn new(channel: Channel, key: &str) -> Self {
        Self::with_metadata(channel, vec![("cv-api-key", key.to_owned())])
    }

    pub fn with_metadata(channel: Channel, metadata: Vec<(&'static str, String)>) -> Self {
        Self { grpc: Grpc::new(channel), metadata }
    }

    /// CreateProfile with this profile.
    pub async fn create(&self, profile: Json) -> Outcome {
        self.call("ProfileService/CreateProfile", json!({ "profile": profile })).await
    }

    /// A profile with these fields besides a name.
    pub async fn person(&self, fields: Json) -> Json {
        let mut profile = json!({ "firstName": "Ada", "lastName": "Byron" });
        merge(&mut profile, &fields);
        self.create(profile).await.expect("a new profile")
    }

    /// GetProfile of this profile.
    pub async fn get(&self, profile: &Json) -> Outcome {
        self.call("ProfileService/GetProfile", json!({ "id": profile["id"] })).await
    }

    /// ReplaceProfile with this profile.
    pub async fn replace(&self, profile: Json) -> Outcome {
        self.call("ProfileService/ReplaceProfile", json!({ "profile": profile })).await
    }

    /// PatchProfile of this profile with these fields, without a mask.
    pub async fn patch(&self, profile: &Json, fields: Json) -> Outcome {
        self.call("ProfileService/PatchProfile", json!({ "profile": of(profile, &fields) })).await
    }

    /// PatchProfile of this profile with these fields and a mask of these paths.
    pub async fn patch_masked(&self, profile: &Json, fields: Json, paths: &[&str]) -> Outcome {
        let mut request = message("ProfileService/PatchProfile", json!({ "profile": of(profile, &fields) }));
        let mut mask = DynamicMessage::new(POOL.get_message_by_name("google.protobuf.FieldMask").expect("the type"));
        // Set by hand: JSON would turn `first_name` and `firstName` into the same path.
        let paths = paths.iter().map(|path| prost_reflect::Value::String((*path).to_owned()));
        mask.set_field_by_name("paths", prost_reflect::Value::List(paths.collect()));
        request.set_field_by_name("update_mask", prost_reflect::Value::Message(mask));
        self.send("ProfileService/PatchProfile", request).await
    }

    /// UpdateProfile with this data.
    pub async fn update(&self, data: Json) -> Outcome {
        self.call("ProfileService/UpdateProfile", json!({ "action": "UPDATE_PROFILE", "data": data })).await
    }

    /// ReportCaseStatus about this profile.
    pub async fn report(&self, case: &str, profile: &Json, status: &str, time: &str) -> Outcome {
        let report = json!({ "caseId": case, "profileId": profile["id"], "status": status, "statusTime": time });
        self.call("CaseService/ReportCaseStatus", report).await
    }

    /// CorrectProfile of this profile with these fields, without a mask.
    pub async fn correct(&self, profile: &Json, fields: Json, reason: &str) -> Outcome {
        let request = json!({ "profile": of(profile, &fields), "reason": reason });
        self.call("SupportService/CorrectProfile", request).await
    }

    /// SetProfileRole of this profile.
    pub async fn set_role(&self, profile: &Json, role: &str) -> Outcome {
        let request = json!({ "id": profile["id"], "role": role, "reason": "a new post" });
        self.call("SupportService/SetProfileRole", request).await
    }

    /// AddIdentifier or RemoveIdentifier of this profile, with these fields besides.
    pub async fn identify(&self, verb: &str, profile: &Json, (system, value): (&str, &str), fields: Json) -> Outcome {
        let mut request = json!({ "profileId": profile["id"], "identifier": { "system": system, "value": value } });
        merge(&mut request, &fields);
        self.call(&format!("ProfileIdentifierService/{verb}Identifier"), request).await
    }

    /// All changes of this profile, the newest first.
    pub async fn changes(&self, profile: &Json) -> Vec<Json> {
        let request = json!({ "id": profile["id"], "pageSize": 200 });
        let list = self.call("SupportService/ListProfileChanges", request).await.expect("changes");
        list["changes"].as_array().expect("a list").clone()
    }

    /// Any method with any request.
    pub async fn call(&self, path: &str, request: Json) -> Outcome {
        self.send(path, message(path, request)).await
    }

    async fn send(&self, path: &str, request: DynamicMessage) -> Outcome {
        let answer = self.raw(path, vec![request.encode_to_vec()]).await?;
        Ok(to_json(&answer, method(path).output()))
    }

    /// What an answer has in its metadata under this name.
    pub async fn metadata(&self, path: &str, request: Json, name: &str) -> Option<String> {
        let answer = self.exchange(path, vec![message(path, request).encode_to_vec()]).await.expect("an answer");
        answer.metadata().get(name).map(|value| value.to_str().expect("text").to_owned())
    }

    /// Any method with these messages as bytes.
    pub async fn raw(&self, path: &str, messages: Vec<Vec<u8>>) -> Result<Vec<u8>, Status> {
        self.exchange(path, messages).await.map(tonic::Response::into_inner)
    }

    /// The stream that a method answers.
    pub async fn stream(&self, path: &str, request: Json) -> Result<Messages, Failure> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.expect("a connection");
        let request = self.request(tokio_stream::once(message(path, request).encode_to_vec()));
        let messages = grpc.streaming(request, path_and_query(path), Bytes).await?.into_inner();
        Ok(Messages { messages, of: method(path).output() })
    }

    async fn exchange(&self, path: &str, messages: Vec<Vec<u8>>) -> Result<tonic::Response<Vec<u8>>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.expect("a connection");
        let request = self.request(tokio_stream::iter(messages));
        grpc.client_streaming(request, path_and_query(path), Bytes).await
    }

    fn request<T>(&self, messages: T) -> Request<T> {
        let mut request = Request::new(messages);
        for (name, value) in &self.metadata {
            request.metadata_mut().append(*name, value.parse().expect("metadata"));
        }
        request
    }
}

/// The messages of a stream.
pub struct Messages {
    messages: Streaming<Vec<u8>>,
    of: MessageDescriptor,
}

impl Messages {
    /// The next message; the error that ended the stream, or none where it simply ended.
    pub async fn next(&mut self) -> Result<Option<Json>, Failure> {
        let message = self.messages.message().await?;
        Ok(message.map(|message| to_json(&message, self.of.clone())))
    }
}

fn path_and_query(path: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/profiles.v1.{path}")).expect("a path")
}

/// The method at this path in the package.
pub fn method(path: &str) -> MethodDescriptor {
    let (service, name) = path.split_once('/').expect("Service/Method");
    let service = POOL.get_service_by_name(&format!("profiles.v1.{service}")).expect("a service");
    service.methods().find(|method| method.name() == name).expect("a method")
}

/// The fields with the id of this profile.
fn of(profile: &Json, fields: &Json) -> Json {
    let mut message = json!({ "id": profile["id"] });
    merge(&mut message, fields);
    message
}

/// Puts these fields into the object.
fn merge(into: &mut Json, fields: &Json) {
    let into = into.as_object_mut().expect("an object");
    into.extend(fields.as_object().expect("an object").clone());
}

/// The request of the method at this path.
pub fn message(path: &str, request: Json) -> DynamicMessage {
    DynamicMessage::deserialize(method(path).input(), request).expect("a request of the contract")
}

fn to_json(bytes: &[u8], descriptor: MessageDescriptor) -> Json {
    let message = DynamicMessage::decode(descriptor, bytes).expect("an answer of the contract");
    let serializer = serde_json::value::Serializer;
    message.serialize_with_options(serializer, &SerializeOptions::new()).expect("JSON")
}

/// Messages as bytes.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
