//! The composition of all of it: the engine, and what a program does with it while it runs.
//!
//! An event flows one way: intake, gate, definitions, matcher, planner, scheduler, dispatcher, sink;
//! and back by observer and reporter. Each stage is one module; it takes a stored thing, leaves a
//! stored thing, and can be stepped alone.

mod command;
mod connections;
mod core;
mod duration;
mod mutator;
mod options;
pub(crate) mod schedule;
pub(crate) mod scheduler;

pub use self::{
    command::{Command, RerunOf},
    connections::ConnectionOptions,
    mutator::{Mutation, PlannedPipelineRun, RunMutator},
    options::EngineOptions,
    scheduler::Hold,
};
