//! For authors of stores, drivers, sources, sinks and notifiers: suites that every implementation
//! passes, and doubles with which a test drives the rest.
//!
//! A suite is a list of [`Case`]s over a fixture that the implementation's author writes: how to make
//! the other side do things, and how to look at it. `<suite>::cases()` is for programs;
//! a macro for each suite makes one test of each case.

mod case;
pub mod groups;
pub mod repository;
mod scripted_scm;
mod scripted_sink;
pub mod sink;
pub mod store;
mod tapped_store;

pub use self::{
    case::{Case, Failure, expect, expect_eq, expect_kind, failures},
    scripted_scm::{ScmCall, ScriptedRepo, ScriptedScm},
    scripted_sink::{Hold, ScriptedSink},
    tapped_store::{StoreCall, StoreTap, TappedStore},
};
