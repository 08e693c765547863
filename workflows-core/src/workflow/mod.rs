//! The Workflow document: its types, loading and checking, and substitution.

mod cron;
mod decode;
mod document;
mod duration;
mod load;
mod packed;
mod problem;
mod reference;
mod render;
mod schema;
mod substitute;
#[cfg(test)]
mod testing;
mod validate;
mod yaml;

pub(crate) use self::{cron::parse_cron, packed::PackedWorkflow};
pub use self::{
    document::{
        AsOf, AsOfSucceeded, Concurrency, Filter, Metadata, Notification, Param, PathFilter,
        Patterns, PipelineRef, QueueLimits, RepoSelector, ResolverParam, Retention, Schedule,
        Strategy, Timeouts, Trigger, WhenSkipped, Workflow, WorkflowSpec,
    },
    duration::parse_duration,
    load::{
        API_VERSION, DocumentPlace, Ignored, KIND, LoadContext, Loaded, LoadedWorkflow, SELF,
        TektonObject, load, load_object,
    },
    problem::Problem,
    render::PipelineFile,
    schema::json_schema,
    substitute::{RepoValues, Values},
    yaml::YamlLimits,
};
