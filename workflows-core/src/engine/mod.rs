//! The composition of all of it: the engine, and what a program does with it while it runs.
//!
//! An event flows one way: intake, gate, definitions, matcher, planner, scheduler, dispatcher, sink;
//! and back by observer and reporter. Each stage is one module; it takes a stored thing, leaves a
//! stored thing, and can be stepped alone.
//!
//! # Calls to the outside, and what a fault leaves behind
//!
//! Every call is bounded by [`EngineOptions::call_timeout`]; no answer in time counts as a fault
//! that passes. A fault that passes gives the work back to the ledger, to be done again after a
//! second, then twice as long each time up to five minutes, or when the other side said. What was
//! begun by a process that died is due again when its lease ends.
//!
//! | call | done twice | died before it | died after it | given up |
//! | --- | --- | --- | --- | --- |
//! | `Policy::decide`, `judge` | nothing changes | asked again | asked again | an error that does not pass refuses the run |
//! | `CloneCredentials::mint` | another credential, which expires | minted again | minted again | with the creation |
//! | `RunSink::ensure` | the same run, by its key | created then | found then | after [`give_up_dispatch_after`](EngineOptions::give_up_dispatch_after): told to end, in case it exists, and refused |
//! | `RunSink::cancel` | nothing changes | told then | told again | what the sink cannot cancel goes on |
//! | `RunSink::state` | nothing changes | asked then | asked again | a run that is not known for [`forgotten_after`](EngineOptions::forgotten_after) has failed |
//! | `StatusReporter::report` | nothing changes | shown then | shown again | after [`status_max_age`](EngineOptions::status_max_age), until the run changes |
//! | `Commenter::acknowledge` | nothing changes | told then | told again | after [`notification_max_age`](EngineOptions::notification_max_age) |
//! | `Commenter::upsert` | nothing changes | written then | found by its marker and written again | after `notification_max_age`, until the next command |
//! | `Notifier::deliver` | told with the same key | told then | told again, same key | after [`notification_max_age`](EngineOptions::notification_max_age): a dead letter |
//!
//! A create or a cancel is preceded by an extension of the lease, and bounded by it: who lost the
//! lease does not reach the sink.

mod annotations;
mod announce;
mod answers;
mod backoff;
mod builder;
mod candidates;
mod command;
mod commands;
mod commit_notes;
mod completion;
mod composition;
mod connections;
mod core;
mod definitions;
mod destinations;
mod directory;
mod dispatcher;
mod event_details;
mod explain;
mod failing_step;
mod gate;
mod handle;
mod handle_insight;
mod handle_notify;
mod handle_registry;
mod handle_schedule;
mod health;
mod markdown;
mod masking;
mod matcher;
pub mod metrics;
mod mutator;
mod notifiers;
mod observer;
mod options;
mod outbox;
mod planner;
mod presentation;
mod rebuild;
mod renewal;
mod reporter;
mod retention;
mod run_identity;
mod run_inputs;
mod run_loop;
pub(crate) mod schedule;
pub(crate) mod scheduler;
mod simulate;
mod stage;
mod transition;
mod usual;
mod watched;

pub use self::{
    builder::{BuildError, EngineBuilder},
    command::{Command, RerunOf},
    composition::Engine,
    connections::ConnectionOptions,
    explain::{Decided, ExplainedEvent, ExplainedRun, Explanation},
    handle::{EngineHandle, Submission},
    handle_schedule::ScheduleStatus,
    health::{
        ConnectionHealth, Failure, Health, NotifierHealth, Progress, SinkHealth, SourceHealth,
        StageHealth,
    },
    mutator::{Mutation, PlannedPipelineRun, RunMutator},
    notifiers::NotifyPolicy,
    options::EngineOptions,
    scheduler::Hold,
    simulate::{Replayed, SimulatedRun, Simulation, SimulationRequest, simulate},
};
