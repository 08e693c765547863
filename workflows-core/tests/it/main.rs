//! Tests of the crate as its users see it.

mod deciding;
mod documents;
mod groups;
mod hostile_documents;
#[cfg(all(feature = "local", unix))]
mod local;
mod runs;
#[cfg(feature = "conformance")]
mod sinks;
#[cfg(feature = "conformance")]
mod store;
