//! The composition of all of it: the engine, and what a program does with it while it runs.
//!
//! An event flows one way: intake, gate, definitions, matcher, planner, scheduler, dispatcher, sink;
//! and back by observer and reporter. Each stage is one module; it takes a stored thing, leaves a
//! stored thing, and can be stepped alone.

mod backoff;
mod builder;
mod command;
mod commands;
mod composition;
mod connections;
mod core;
mod definitions;
mod directory;
mod dispatcher;
mod event_details;
mod explain;
mod gate;
mod handle;
mod handle_insight;
mod health;
mod matcher;
pub mod metrics;
mod mutator;
mod observer;
mod options;
mod outbox;
mod planner;
mod presentation;
mod reporter;
mod retention;
mod run_loop;
pub(crate) mod schedule;
pub(crate) mod scheduler;
mod simulate;
mod stage;
mod transition;

pub use self::{
    builder::{BuildError, EngineBuilder},
    command::{Command, RerunOf},
    composition::Engine,
    connections::ConnectionOptions,
    explain::{Decided, ExplainedEvent, ExplainedRun, Explanation},
    handle::{EngineHandle, Submission},
    health::{ConnectionHealth, Failure, Health, Progress, SinkHealth, SourceHealth, StageHealth},
    mutator::{Mutation, PlannedPipelineRun, RunMutator},
    options::EngineOptions,
    scheduler::Hold,
    simulate::{Replayed, SimulatedRun, Simulation, SimulationRequest, simulate},
};
