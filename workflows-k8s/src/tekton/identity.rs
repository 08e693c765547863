//! Which PipelineRun is which run's.

use kube::core::DynamicObject;
use workflows_core::{RunKey, Tenant};

/// The annotation that holds the run's whole key. The engine puts it on every PipelineRun.
pub(super) const RUN_KEY: &str = "workflows.tekton.dev/run-key";
/// The annotation that holds the tenant. The engine puts it on every PipelineRun.
pub(super) const TENANT: &str = "workflows.tekton.dev/tenant";
/// The label by which the sink's own objects are selected: the first 40 digits of the run's key.
/// Tekton hands it on to TaskRuns and pods.
pub(super) const RUN: &str = "workflows.tekton.dev/run";

/// The value of the label [`RUN`]: a key is hexadecimal and longer than a label may be.
pub(super) fn short(key: &RunKey) -> String {
    key.as_str().chars().take(40).collect()
}

/// The run that an object belongs to, as its annotations say.
pub(super) fn run_of(object: &DynamicObject) -> Option<(Tenant, RunKey)> {
    let annotations = object.metadata.annotations.as_ref()?;
    let tenant = Tenant::new(annotations.get(TENANT)?.as_str()).ok()?;
    let key = annotations.get(RUN_KEY)?;
    Some((tenant, RunKey::from(key.clone())))
}

/// Where a PipelineRun is: what the sink hands out as a run's handle.
///
/// The uid tells it from another one that was made under the same name after it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Handle {
    pub(super) fn to_text(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.name, self.uid)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { namespace: namespace.into(), name: name.into(), uid: uid.into() })
    }
}
