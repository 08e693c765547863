//! Tests of the crate as its users see it.

mod groups;
#[cfg(all(feature = "local", unix))]
mod local;
#[cfg(feature = "conformance")]
mod store;
