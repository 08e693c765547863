//! What the tests that go through the whole of Workflows share.

pub mod executor;
pub mod private_scm;
