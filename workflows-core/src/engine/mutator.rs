//! A platform's own hand on a run before it is created: [`RunMutator`].

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::Value;

use crate::{Event, Result, RunKey, WorkflowId};

/// Sees each run before it is created, and may change, delay or veto it.
///
/// It is asked once for a run, when it is planned; what it made of the run is stored with it, so
/// that a restart creates the same run. The policy judges the result.
///
/// ```
/// use async_trait::async_trait;
/// use workflows_core::{Result, engine::{Mutation, PlannedPipelineRun, RunMutator}};
///
/// /// Puts every run into a Kueue queue.
/// #[derive(Debug)]
/// struct QueueLabel;
///
/// #[async_trait]
/// impl RunMutator for QueueLabel {
///     async fn mutate(&self, run: &mut PlannedPipelineRun<'_>) -> Result<Mutation> {
///         run.pipeline_run["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "ci".into();
///         Ok(Mutation::Proceed)
///     }
/// }
/// ```
#[async_trait]
pub trait RunMutator: Debug + Send + Sync + 'static {
    /// Looks at a run and says what shall become of it.
    ///
    /// # Errors
    ///
    /// A retryable error is tried again; another one refuses the run with its message.
    async fn mutate(&self, run: &mut PlannedPipelineRun<'_>) -> Result<Mutation>;
}

/// A run that is about to be stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedPipelineRun<'a> {
    /// Its key.
    pub key: &'a RunKey,
    /// The event that caused it.
    pub event: &'a Event,
    /// Its workflow.
    pub workflow: &'a WorkflowId,
    /// The trigger in it.
    pub trigger: &'a Arc<str>,
    /// The whole PipelineRun. Name and identity annotations are put back after a change.
    pub pipeline_run: &'a mut Value,
}

impl<'a> PlannedPipelineRun<'a> {
    /// A run as mutators see it.
    pub fn new(
        key: &'a RunKey,
        event: &'a Event,
        workflow: &'a WorkflowId,
        trigger: &'a Arc<str>,
        pipeline_run: &'a mut Value,
    ) -> Self {
        Self { key, event, workflow, trigger, pipeline_run }
    }
}

/// What shall become of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// It goes on.
    Proceed,
    /// It is created no sooner than this time from now. Its status says until when and why
    /// meanwhile, and the run keeps it as the remark `delayed`. Of several mutators the longest
    /// delay counts.
    Delay {
        /// How long.
        by: SignedDuration,
        /// Why, for people.
        reason: String,
    },
    /// It is not created: the decision is that the run is denied, by the rule that the reason
    /// gives, and the commit's status says so.
    Veto {
        /// Why, for people.
        reason: String,
    },
}
