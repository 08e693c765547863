//! What the tests that go through the whole of Workflows share.

pub mod private_scm;
