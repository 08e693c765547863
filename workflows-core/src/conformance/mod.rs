//! For authors of stores, drivers, sources, sinks and notifiers: suites that every implementation
//! passes, and doubles with which a test drives the rest.

mod scripted_scm;
mod scripted_sink;

pub use self::{
    scripted_scm::{ScmCall, ScriptedRepo, ScriptedScm},
    scripted_sink::{Hold, ScriptedSink},
};
