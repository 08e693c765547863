//! The composition of all of it: the engine, and what a program does with it while it runs.
//!
//! An event flows one way: intake, gate, definitions, matcher, planner, scheduler, dispatcher, sink;
//! and back by observer and reporter. Each stage is one module; it takes a stored thing, leaves a
//! stored thing, and can be stepped alone.

mod backoff;
mod builder;
mod command;
mod composition;
mod connections;
mod core;
mod dispatcher;
mod handle;
mod health;
pub mod metrics;
mod mutator;
mod observer;
mod options;
mod outbox;
mod presentation;
mod reporter;
mod retention;
mod run_loop;
pub(crate) mod schedule;
pub(crate) mod scheduler;
mod stage;
mod transition;

pub use self::{
    builder::{BuildError, EngineBuilder},
    command::{Command, RerunOf},
    composition::Engine,
    connections::ConnectionOptions,
    handle::{EngineHandle, Submission},
    health::{ConnectionHealth, Failure, Health, Progress, SinkHealth, SourceHealth, StageHealth},
    mutator::{Mutation, PlannedPipelineRun, RunMutator},
    options::EngineOptions,
    scheduler::Hold,
};
