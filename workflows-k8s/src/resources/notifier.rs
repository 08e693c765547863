//! Somebody to tell.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use workflows_core::{NotifierName, SecretRef, Transition, workflow::Notification};

use super::{
    status::ObjectStatus,
    structural::{held, structural_of},
};

/// Somebody to tell about runs, whom workflows of the namespace name in `notify`.
///
/// Secrets are in the object's own namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "workflows.tekton.dev",
    version = "v1alpha1",
    kind = "Notifier",
    doc = "Somebody to tell about runs.",
    namespaced,
    status = "ObjectStatus",
    derive = "PartialEq",
    shortname = "wfn",
    category = "workflows",
    category = "tekton",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotifierSpec {
    /// What kind of receiver: one of those that the controller's program offers, such as `log`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub kind: String,
    /// The secrets that it needs, by the names that the type gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub secrets: BTreeMap<String, SecretRef>,
    /// What else the type wants to know. Nothing secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object")]
    pub settings: Option<Map<String, Value>>,
    /// Of what it is told when neither a workflow nor its connection says who is; of nothing when left
    /// out. This and `always` hold in its own namespace, and in those that it is granted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_default: Option<Occasions>,
    /// Of what it is told in any case, whatever a workflow says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always: Option<Occasions>,
    /// Which other namespaces may use it, under the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub grants: Vec<String>,
}

/// Of what somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Occasions {
    /// The transitions; failed, timed_out and recovered when left out.
    #[serde(default = "failures")]
    #[schemars(schema_with = "transitions")]
    pub on: Vec<Transition>,
    /// Only of runs for which this is true: CEL over `run` and `event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub filter: Option<String>,
}

impl Occasions {
    /// That a notifier is told of these.
    pub fn of(&self, notifier: impl Into<NotifierName>) -> Notification {
        let told = Notification::new(notifier, self.on.clone());
        match &self.filter {
            Some(filter) => told.only_if(filter.as_str()),
            None => told,
        }
    }
}

fn failures() -> Vec<Transition> {
    Notification::of("").on
}

fn transitions(_: &mut SchemaGenerator) -> Schema {
    let mut schema = structural_of::<Vec<Transition>>();
    schema["description"] =
        "The transitions; failed, timed_out and recovered when left out.".into();
    schema["default"] = failures().iter().map(|one| Value::from(one.as_str())).collect();
    schema["minItems"] = 1.into();
    schema["x-kubernetes-list-type"] = "set".into();
    held(schema)
}

/// Who is told about what, as a document says it.
pub(super) fn notifications(_: &mut SchemaGenerator) -> Schema {
    let mut schema = structural_of::<Vec<Notification>>();
    schema["nullable"] = true.into();
    schema["maxItems"] = 256.into();
    held(schema)
}

/// An object whose fields are for somebody else to know.
pub(super) fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
