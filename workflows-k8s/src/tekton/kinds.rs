//! The kinds of objects that execute runs: [`RunKind`].

use std::{fmt, sync::Arc};

use kube::{
    ResourceExt,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use workflows_core::{CancelMode, Error, Result, RunStatus};

use super::{
    cancel, read, resource,
    status::{PipelineRun, TaskRun, of_condition},
};

/// A kind of object, besides PipelineRuns, that the sink may make.
///
/// The engine plans PipelineRuns. A [`RunMutator`](workflows_core::engine::RunMutator) of the program makes an object of
/// another kind out of one where it should be, by changing its `apiVersion`, `kind` and `spec`; a sink
/// that was told of this kind makes it, and refuses all others.
///
/// ```no_run
/// use serde_json::json;
/// use workflows_k8s::{Namespaces, RunKind, TektonSink};
///
/// # fn example(client: kube::Client) -> workflows_core::Result<()> {
/// let build = RunKind::new("example.dev", "v1", "Build", "builds")
///     .cancelled_by(json!({"spec": {"cancelled": true}}));
/// let sink = TektonSink::new(client, Namespaces::same_name())
///     .kind(RunKind::task_run())?
///     .kind(build)?;
/// # Ok(())
/// # }
/// ```
///
/// An object is made, found again, followed and cancelled like a PipelineRun: under its run's name, by
/// the run's key in its annotations, and without an owner. How it stands is said by the condition
/// `Succeeded` of its status, as in all of Tekton's kinds, unless [`read_by`](Self::read_by) knows better.
///
/// A policy judges it as it judges PipelineRuns, by what it names anywhere; each kind but TaskRuns must be
/// among what the policy allows as `installed`, as `example.dev/v1/Build`, where it is asked at all.
///
/// The sink needs, of each kind: get, list, watch, create and patch.
#[derive(Clone)]
pub struct RunKind {
    resource: ApiResource,
    cancel: Cancel,
    outcome: Outcome,
}

#[derive(Clone)]
enum Cancel {
    /// `spec.status`, in each of the three ways.
    PipelineRun,
    /// This merge patch, whatever the way.
    Patch(Arc<Value>),
    No,
}

#[derive(Clone)]
enum Outcome {
    PipelineRun,
    TaskRun,
    Condition,
    Own(Arc<dyn Fn(&Value) -> RunStatus + Send + Sync>),
}

impl fmt::Debug for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunKind").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl RunKind {
    /// A kind that is served at `/apis/<group>/<version>/namespaces/<namespace>/<plural>`. It cannot be
    /// cancelled.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let kind = GroupVersionKind::gvk(group, version, kind);
        Self {
            resource: ApiResource::from_gvk_with_plural(&kind, plural),
            cancel: Cancel::No,
            outcome: Outcome::Condition,
        }
    }

    /// Tekton's TaskRuns, for a run that is one task.
    pub fn task_run() -> Self {
        Self {
            resource: resource("TaskRun"),
            cancel: Cancel::Patch(json!({"spec": {"status": "TaskRunCancelled"}}).into()),
            outcome: Outcome::TaskRun,
        }
    }

    pub(super) fn pipeline_run() -> Self {
        Self {
            resource: resource("PipelineRun"),
            cancel: Cancel::PipelineRun,
            outcome: Outcome::PipelineRun,
        }
    }

    /// Sets the JSON merge patch by which an object is told to end, whichever way the engine asks for.
    #[must_use]
    pub fn cancelled_by(mut self, patch: Value) -> Self {
        self.cancel = Cancel::Patch(patch.into());
        self
    }

    /// Sets how the outcome is read out of an object. What it says of tasks is shown to people; logs are
    /// read of PipelineRuns and TaskRuns alone.
    #[must_use]
    pub fn read_by(mut self, read: impl Fn(&Value) -> RunStatus + Send + Sync + 'static) -> Self {
        self.outcome = Outcome::Own(Arc::new(read));
        self
    }

    pub(super) fn resource(&self) -> &ApiResource {
        &self.resource
    }

    /// Whether an object says to be of this kind.
    pub(super) fn is_of(&self, object: &Value) -> bool {
        object["apiVersion"] == self.resource.api_version && object["kind"] == self.resource.kind
    }

    pub(super) fn is_pipeline_run(&self) -> bool {
        matches!(self.outcome, Outcome::PipelineRun)
    }

    pub(super) fn is_task_run(&self) -> bool {
        matches!(self.outcome, Outcome::TaskRun)
    }

    /// How it stands, as far as the object alone says.
    pub(super) fn status(&self, object: &DynamicObject) -> Result<RunStatus> {
        Ok(match &self.outcome {
            Outcome::PipelineRun => read::<PipelineRun>(object)?.run_status(&[]),
            Outcome::TaskRun => {
                let mut status = of_condition(&object.data);
                let name = object.data["spec"]["taskRef"]["name"].as_str().unwrap_or("task");
                status.tasks = vec![read::<TaskRun>(object)?.status(name)];
                status
            }
            Outcome::Condition => of_condition(&object.data),
            Outcome::Own(read) => read(&whole(object)),
        })
    }

    /// The merge patch that tells an object to end; `None` when it was told so before.
    pub(super) fn cancel(
        &self,
        object: &DynamicObject,
        mode: CancelMode,
        uid: &str,
    ) -> Result<Option<Value>> {
        let version = object.resource_version().unwrap_or_default();
        match &self.cancel {
            Cancel::PipelineRun => {
                let asked = object.data["spec"]["status"].as_str();
                Ok((!cancel::is_asked(asked, mode)).then(|| cancel::patch(mode, uid, &version)))
            }
            Cancel::Patch(patch) => {
                let mut patch = Value::clone(patch);
                patch["metadata"]["uid"] = uid.into();
                patch["metadata"]["resourceVersion"] = version.into();
                Ok(Some(patch))
            }
            Cancel::No => Err(Error::unsupported(
                "cancel a run",
                format!("the sink was not told how a {} is cancelled", self.resource.kind),
            )),
        }
    }
}

/// An object with all its parts.
pub(super) fn whole(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
