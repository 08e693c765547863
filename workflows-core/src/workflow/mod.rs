//! The Workflow document: its types, loading and checking, and substitution.

mod concurrency;
mod cron;
mod decode;
mod document;
mod duration;
mod load;
mod packed;
mod param_set;
mod problem;
mod reference;
mod render;
mod schema;
mod substitute;
#[cfg(test)]
mod testing;
mod validate;
mod yaml;

pub use self::{
    concurrency::{Concurrency, QueueLimits, Strategy},
    document::{
        AsOf, AsOfSucceeded, Filter, Metadata, Notification, Param, PathFilter, Patterns,
        PipelineRef, RepoSelector, ResolverParam, Retention, Schedule, Timeouts, Trigger,
        WhenSkipped, Workflow, WorkflowSpec,
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
pub(crate) use self::{cron::parse_cron, packed::PackedWorkflow, problem::further_problems};
