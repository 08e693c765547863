//! Tests that go through the whole of Workflows, against the public API alone.

mod private_scm;
