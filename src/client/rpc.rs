//! The RPCs of all services, each known by its request: build.rs makes the list from the contract.

use prost::Message;

use crate::pb;

/// An RPC, known by its request.
pub trait Rpc: Message + Clone + 'static {
    /// What it answers; of a stream each message.
    type Response: Message + Default + 'static;

    #[doc(hidden)]
    const PATH: &'static str;

    /// Whether it is harmless to repeat where nobody knows what became of it.
    #[doc(hidden)]
    const REPEATABLE: bool;

    /// The request id, of an RPC that has one.
    #[doc(hidden)]
    fn request_id(&mut self) -> Option<&mut String> {
        None
    }
}

/// An RPC with one answer.
pub trait Unary: Rpc {}

/// An RPC that answers a stream.
pub trait ServerStreaming: Rpc {}

/// An RPC that lists, a page at a time (AIP-158).
pub trait Paged: Unary {
    /// Turns to the page after this one, if there is one.
    #[doc(hidden)]
    fn turn(&mut self, page: &Self::Response) -> bool;
}

include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));
