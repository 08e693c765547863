//! Workflows as objects of a cluster.

use std::borrow::Cow;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use workflows_core::workflow::WorkflowSpec;

use super::{
    status::ObjectStatus,
    structural::{held, structural_of},
};

/// The spec of a [`Workflow`]: the same document as in a repository's `.tekton` directory, with the
/// repositories that it is about.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "workflows.tekton.dev",
    version = "v1alpha1",
    kind = "Workflow",
    doc = "Which events at which repositories start which pipeline, and who is told.",
    namespaced,
    status = "ObjectStatus",
    derive = "PartialEq",
    shortname = "wfl",
    category = "workflows",
    category = "tekton",
    printcolumn(name = "Repository", type_ = "string", json_path = ".spec.repos[0].repo"),
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
#[serde(transparent)]
pub struct WorkflowObjectSpec(pub WorkflowSpec);

impl JsonSchema for WorkflowObjectSpec {
    fn schema_name() -> Cow<'static, str> {
        "WorkflowObjectSpec".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// The schema of the document, made structural, with what holds only for objects of a cluster and
    /// with the rules that an API server can check.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = structural_of::<WorkflowSpec>();
        hold_what_an_object_must(&mut schema);
        held(schema)
    }
}

/// The longest list of a document.
const LONGEST_LIST: u64 = 256;

fn hold_what_an_object_must(schema: &mut Value) {
    let lists =
        ["repos", "triggers", "params", "taskRunSpecs", "workspaces", "concurrency", "notify"];
    for list in lists {
        schema["properties"][list]["maxItems"] = LONGEST_LIST.into();
    }
    for named in ["repos", "triggers", "params"] {
        let list = &mut schema["properties"][named];
        list["x-kubernetes-list-type"] = "map".into();
        list["x-kubernetes-list-map-keys"] = json!(["name"]);
        list["items"]["properties"]["name"]["maxLength"] = 253.into();
    }
    for list in ["repos", "triggers"] {
        schema["properties"][list]["minItems"] = 1.into();
    }
    schema["required"] = json!(["repos", "triggers"]);
    // These are objects of Tekton's: anything with fields.
    for free in ["pipelineSpec", "podTemplate"] {
        schema["properties"][free]["type"] = "object".into();
    }
    for list in ["taskRunSpecs", "workspaces"] {
        schema["properties"][list]["items"]["type"] = "object".into();
    }
    rules(
        schema,
        &[(
            "has(self.pipelineRef) != has(self.pipelineSpec)",
            "exactly one of pipelineRef and pipelineSpec must be given",
        )],
    );
    rules(
        &mut schema["properties"]["pipelineRef"],
        &[
            (
                "[has(self.path), has(self.name), has(self.resolver)].filter(given, given).size() == 1",
                "exactly one of path, name and resolver must be given",
            ),
            (
                "!has(self.repo) || has(self.path)",
                "repo says in which repository path is; give path too",
            ),
        ],
    );
    let trigger = &mut schema["properties"]["triggers"]["items"];
    trigger["properties"]["on"]["maxLength"] = 63.into();
    rules(
        trigger,
        &[
            (
                "has(self.schedule) == (self.on == 'schedule')",
                "on: schedule needs schedule, and nothing else has it",
            ),
            (
                "has(self.command) ? self.on == 'comment' : true",
                "command has a meaning only with on: comment",
            ),
        ],
    );
    let group = &mut schema["properties"]["concurrency"]["items"];
    rules(
        group,
        &[
            (
                "self.strategy == 'queue' || !(has(self.maxRunning) || has(self.maxQueued) || has(self.maxWait))",
                "maxRunning, maxQueued and maxWait have a meaning only with strategy: queue",
            ),
            (
                "self.strategy == 'replace' || !has(self.cancel)",
                "cancel has a meaning only with strategy: replace",
            ),
        ],
    );
}

fn rules(schema: &mut Value, rules: &[(&str, &str)]) {
    let all = rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message}));
    schema["x-kubernetes-validations"] = Value::Array(all.collect());
}
