//! Tests that go through the whole of Workflows, against the public API alone.

mod crashes;
mod fire;
mod one_ledger;
mod private_scm;
mod private_scm_engine;
mod replicas;
mod told_once;
