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

/// Whether an object is a part of another one, of which Tekton hands labels and annotations on to it.
pub(super) fn is_child(object: &DynamicObject) -> bool {
    let owners = object.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true))
}

/// Where a run is: what the sink hands out as its handle.
///
/// The uid tells it from another one that was made under the same name after it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) api_version: String,
    pub(super) kind: String,
}

impl Handle {
    pub(super) fn of_pipeline_run(namespace: String, name: String, uid: String) -> Self {
        let (api_version, kind) = PIPELINE_RUN;
        Self { namespace, name, uid, api_version: api_version.to_owned(), kind: kind.to_owned() }
    }

    /// `namespace/name/uid` of a PipelineRun; the kind follows where it is another one.
    pub(super) fn to_text(&self) -> String {
        let Self { namespace, name, uid, api_version, kind } = self;
        if (api_version.as_str(), kind.as_str()) == PIPELINE_RUN {
            return format!("{namespace}/{name}/{uid}");
        }
        format!("{namespace}/{name}/{uid}/{api_version}/{kind}")
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '/');
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let (api_version, kind) = match parts.next() {
            Some(of) => of.rsplit_once('/')?,
            None => PIPELINE_RUN,
        };
        let owned = str::to_owned;
        let (namespace, name, uid) = (owned(namespace), owned(name), owned(uid));
        Some(Self { namespace, name, uid, api_version: owned(api_version), kind: owned(kind) })
    }
}

const PIPELINE_RUN: (&str, &str) = ("tekton.dev/v1", "PipelineRun");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_its_kind_where_it_is_no_pipeline_run() {
        for (text, api_version, kind) in [
            ("a/ci-1/u", "tekton.dev/v1", "PipelineRun"),
            ("a/ci-1/u/tekton.dev/v1/TaskRun", "tekton.dev/v1", "TaskRun"),
            ("a/ci-1/u/v1/Pod", "v1", "Pod"),
        ] {
            let handle = Handle::parse(text).unwrap();
            assert_eq!((&*handle.api_version, &*handle.kind), (api_version, kind));
            assert_eq!(handle.to_text(), text);
        }
        assert_eq!(Handle::parse("a/ci-1"), None);
        assert_eq!(Handle::parse("a/ci-1/u/Pod"), None);
    }
}
