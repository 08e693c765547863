//! The Workflow document: its types, loading and checking, and substitution.

mod document;

pub use self::document::{
    AsOf, AsOfSucceeded, Concurrency, Filter, Metadata, Notification, Param, PathFilter, Patterns,
    PipelineRef, QueueLimits, RepoSelector, ResolverParam, Retention, Schedule, Strategy, Timeouts,
    Trigger, WhenSkipped, Workflow, WorkflowSpec,
};
