//! What may happen to a profile, as pure functions: no connection, no tonic, no clock.

pub mod change;
pub mod decide;
pub mod erase;
pub mod fields;
pub mod group;
pub mod history;
pub mod identifiers;
pub mod policy;

#[cfg(test)]
mod tests;
