//! What a planned run asks for of its namespace: [`Asks`].

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::resources::WorkspaceSource;

/// What a PipelineRun names or needs, wherever in it. What Tekton fetches when the run goes on
/// (a resolver's pipeline, an installed task) is not in it, and cannot be judged here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) service_accounts: BTreeSet<String>,
    pub(super) secrets: BTreeSet<String>,
    pub(super) config_maps: BTreeSet<String>,
    pub(super) volume_claims: BTreeSet<String>,
    pub(super) sources: BTreeSet<&'static str>,
    /// Kinds of volumes that no policy can allow.
    pub(super) other_volumes: BTreeSet<String>,
    pub(super) resolvers: BTreeSet<String>,
    /// The namespaces that the resolver `cluster` is to read in.
    pub(super) cluster_namespaces: BTreeSet<String>,
    pub(super) installed: BTreeSet<String>,
    pub(super) pod_template: bool,
    pub(super) timeout: Timeout,
}

/// How long a run may take, as it says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Timeout {
    /// So long.
    Asked(String),
    /// It says nothing, and Tekton's default holds.
    #[default]
    Default,
    /// It says nothing, and nobody knows.
    None,
}

impl Timeout {
    /// Tekton's default, unless the cluster says otherwise.
    pub(super) const TEKTONS: &str = "1h";
}

impl Asks {
    /// What this PipelineRun asks for, or an object of another kind that executes a run. Of a kind that
    /// is none of Tekton's runs, the kind itself is asked for as well.
    pub(super) fn of(run: &Value) -> Self {
        let mut asks = Self::default();
        let text = |field: &str| run[field].as_str().unwrap_or_default();
        let is_tektons = text("apiVersion") == "tekton.dev/v1";
        let (timeout, otherwise) = match text("kind") {
            "PipelineRun" if is_tektons => (&run["spec"]["timeouts"]["pipeline"], Timeout::Default),
            "TaskRun" if is_tektons => (&run["spec"]["timeout"], Timeout::Default),
            kind => {
                asks.installed.insert(format!("{}/{kind}", text("apiVersion")));
                (&run["spec"]["timeout"], Timeout::None)
            }
        };
        let timeout = timeout.as_str().map(|asked| Timeout::Asked(asked.to_owned()));
        asks.timeout = timeout.unwrap_or(otherwise);
        // Whatever stands beside `spec` in a kind that is not Tekton's counts too.
        for (name, value) in run.as_object().into_iter().flatten() {
            if !["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()) {
                asks.walk(value);
            }
        }
        asks
    }

    /// What the runs of this Workflow ask for in any case, whatever an event brings.
    pub(super) fn of_document(workflow: &Value) -> Self {
        let spec = &workflow["spec"];
        let mut asks = Self::of(&json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
            "spec": {
                "pipelineSpec": spec["pipelineSpec"],
                "pipelineRef": spec["pipelineRef"],
                "workspaces": spec["workspaces"],
                "taskRunSpecs": spec["taskRunSpecs"],
                "taskRunTemplate": {
                    "serviceAccountName": spec["serviceAccountName"],
                    "podTemplate": spec["podTemplate"],
                },
                "timeouts": spec["timeouts"],
            },
        }));
        for names in [
            &mut asks.service_accounts,
            &mut asks.secrets,
            &mut asks.config_maps,
            &mut asks.volume_claims,
            &mut asks.resolvers,
            &mut asks.cluster_namespaces,
            &mut asks.installed,
        ] {
            names.retain(|name| !name.contains("$("));
        }
        asks
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                self.fields(fields);
                for (name, inner) in fields {
                    // Parameters, results and matrices are data: nothing in them names an object.
                    if !["params", "results", "matrix"].contains(&name.as_str()) {
                        self.walk(inner);
                    }
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &Map<String, Value>) {
        for (name, value) in fields {
            match name.as_str() {
                "serviceAccountName" => add(&mut self.service_accounts, value),
                "secretKeyRef" | "secretRef" | "nodePublishSecretRef" => {
                    add(&mut self.secrets, &value["name"]);
                }
                "configMapKeyRef" | "configMapRef" => add(&mut self.config_maps, &value["name"]),
                "secret" => {
                    add(&mut self.secrets, &value["secretName"]);
                    add(&mut self.secrets, &value["name"]);
                }
                "configMap" => add(&mut self.config_maps, &value["name"]),
                "persistentVolumeClaim" => add(&mut self.volume_claims, &value["claimName"]),
                "imagePullSecrets" => {
                    value.as_array().into_iter().flatten().for_each(|one| {
                        add(&mut self.secrets, &one["name"]);
                    });
                }
                "podTemplate" if !value.is_null() => self.pod_template = true,
                "workspaces" | "volumes" => self.sources(name == "volumes", value),
                "pipelineRef" | "taskRef" | "ref" => self.reference(value),
                "taskSpec" | "customRef" | "customSpec" => {
                    self.custom(value);
                }
                _ => {}
            }
        }
    }

    /// Where workspaces and volumes come from.
    fn sources(&mut self, are_volumes: bool, list: &Value) {
        const JUDGED_BY_NAME: [&str; 3] = ["secret", "configMap", "persistentVolumeClaim"];
        const PLAIN: [&str; 3] = ["name", "subPath", "downwardAPI"];
        for (kind, _) in
            list.as_array().into_iter().flatten().filter_map(Value::as_object).flatten()
        {
            match SOURCES.iter().find(|(name, _)| name == kind) {
                Some((name, _)) => {
                    self.sources.insert(name);
                }
                None if !are_volumes => {}
                None if JUDGED_BY_NAME.contains(&kind.as_str())
                    || PLAIN.contains(&kind.as_str()) => {}
                None => {
                    self.other_volumes.insert(kind.clone());
                }
            }
        }
    }

    /// A reference to a pipeline, a task or a step action.
    fn reference(&mut self, reference: &Value) {
        match reference["resolver"].as_str() {
            Some(resolver) => {
                self.resolvers.insert(resolver.to_owned());
                if resolver == "cluster" {
                    let params = reference["params"].as_array().into_iter().flatten();
                    let mut named = params.filter(|param| param["name"] == "namespace");
                    let named = named.next().and_then(|param| param["value"].as_str());
                    self.cluster_namespaces.insert(named.unwrap_or(TEKTONS_NAMESPACE).to_owned());
                }
                for param in reference["params"].as_array().into_iter().flatten() {
                    let name = param["name"].as_str().unwrap_or_default().to_ascii_lowercase();
                    let is_key = name.ends_with("key");
                    if name == "serviceaccount" {
                        add(&mut self.service_accounts, &param["value"]);
                    } else if !is_key && (name.contains("secret") || name.contains("token")) {
                        add(&mut self.secrets, &param["value"]);
                    }
                }
            }
            None => {
                if !self.custom(reference) {
                    add(&mut self.installed, &reference["name"]);
                }
            }
        }
    }

    /// Whether this is a custom task, which another controller executes.
    fn custom(&mut self, task: &Value) -> bool {
        let version = task["apiVersion"].as_str().unwrap_or_default();
        let is_custom = !version.is_empty() && !version.starts_with("tekton.dev/");
        if is_custom {
            let kind = task["kind"].as_str().unwrap_or_default();
            self.installed.insert(format!("{version}/{kind}"));
        }
        is_custom
    }
}

/// What stands for the namespace that Tekton's own configuration has the resolver `cluster` read in: no
/// namespace's name, so that only who allows all allows it.
const TEKTONS_NAMESPACE: &str = "(Tekton's default)";

/// The sources of workspaces and volumes that a policy can allow, by their fields.
const SOURCES: [(&str, WorkspaceSource); 5] = [
    ("emptyDir", WorkspaceSource::EmptyDir),
    ("volumeClaimTemplate", WorkspaceSource::VolumeClaimTemplate),
    ("projected", WorkspaceSource::Projected),
    ("csi", WorkspaceSource::Csi),
    ("hostPath", WorkspaceSource::HostPath),
];

/// The field by which a source is asked for.
pub(super) fn field_of(source: WorkspaceSource) -> &'static str {
    SOURCES.iter().find(|(_, one)| *one == source).map_or("", |(name, _)| name)
}

fn add(names: &mut BTreeSet<String>, name: &Value) {
    if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
        names.insert(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn everything_that_names_an_object_is_found() {
        let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "ci-1"}, "spec": {
            "timeouts": {"pipeline": "2h"},
            "taskRunTemplate": {"serviceAccountName": "ci", "podTemplate": {"imagePullSecrets": [{"name": "pull"}]}},
            "taskRunSpecs": [{"pipelineTaskName": "a", "serviceAccountName": "deploy"}],
            "workspaces": [
                {"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "ws"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "cache"}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "cfg"}}]}},
                {"name": "e", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "node"}}},
                {"name": "f", "volumeClaimTemplate": {"spec": {}}},
            ],
            "params": [{"name": "secret", "value": {"secretName": "data"}}],
            "pipelineSpec": {
                "workspaces": [{"name": "a"}],
                "tasks": [
                    {"name": "a", "workspaces": [{"name": "x", "workspace": "a"}], "taskSpec": {
                        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {"server": "s"}}],
                        "stepTemplate": {"envFrom": [{"secretRef": {"name": "env"}}]},
                        "steps": [
                            {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "step", "key": "k"}}}]},
                            {"ref": {"name": "action"}},
                        ],
                    }},
                    {"name": "b", "taskRef": {"name": "installed"}},
                    {"name": "c", "taskRef": {"resolver": "git", "params": [
                        {"name": "url", "value": "u"}, {"name": "token", "value": "gittoken"},
                        {"name": "tokenKey", "value": "k"},
                    ]}},
                    {"name": "d", "taskRef": {"apiVersion": "example.dev/v1", "kind": "Wait", "name": "w"}},
                    {"name": "e", "taskSpec": {"apiVersion": "example.dev/v1", "kind": "Approve"}},
                    {"name": "f", "taskRef": {"resolver": "bundles", "params": [
                        {"name": "serviceAccount", "value": "puller"}, {"name": "secret", "value": "bundle"},
                    ]}},
                ],
            },
        }});
        let asks = Asks::of(&run);
        assert_eq!(asks.service_accounts, names(["ci", "deploy", "puller"]));
        assert_eq!(
            asks.secrets,
            names(["pull", "ws", "part", "node", "env", "step", "gittoken", "bundle"])
        );
        assert_eq!(asks.config_maps, names(["cfg"]));
        assert_eq!(asks.volume_claims, names(["cache"]));
        assert_eq!(
            asks.sources,
            BTreeSet::from(["csi", "emptyDir", "hostPath", "projected", "volumeClaimTemplate"])
        );
        assert_eq!(asks.other_volumes, names(["nfs"]));
        assert_eq!(asks.resolvers, names(["git", "bundles"]));
        assert_eq!(
            asks.installed,
            names(["action", "installed", "example.dev/v1/Wait", "example.dev/v1/Approve"])
        );
        assert!(asks.pod_template);
        assert_eq!(asks.timeout, Timeout::Asked("2h".to_owned()));
    }
    #[test]
    fn the_resolver_cluster_is_asked_for_with_its_namespace() {
        let of = |params: Value| {
            let reference = json!({"resolver": "cluster", "params": params});
            Asks::of(&json!({
                "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
                "spec": {"pipelineRef": reference},
            }))
            .cluster_namespaces
        };
        assert_eq!(of(json!([{"name": "namespace", "value": "shared"}])), names(["shared"]));
        assert_eq!(of(json!([{"name": "name", "value": "x"}])), names([TEKTONS_NAMESPACE]));
    }

    #[test]
    fn another_kind_asks_for_itself_and_says_how_long_it_may_take() {
        let of = |version: &str, kind: &str, spec: Value| {
            Asks::of(&json!({"apiVersion": version, "kind": kind, "spec": spec}))
        };
        let task =
            of("tekton.dev/v1", "TaskRun", json!({"serviceAccountName": "ci", "timeout": "5m"}));
        assert_eq!(task.installed, names([]));
        assert_eq!(task.service_accounts, names(["ci"]));
        assert_eq!(task.timeout, Timeout::Asked("5m".to_owned()));
        let custom = of(
            "tekton.dev/v1beta1",
            "CustomRun",
            json!({"customRef": {"apiVersion": "example.dev/v1", "kind": "Wait"}}),
        );
        assert_eq!(
            custom.installed,
            names(["tekton.dev/v1beta1/CustomRun", "example.dev/v1/Wait"])
        );
        assert_eq!(custom.timeout, Timeout::None);
        let build = of(
            "example.dev/v1",
            "Build",
            json!({"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
        );
        assert_eq!(build.installed, names(["example.dev/v1/Build"]));
        assert_eq!(build.secrets, names(["s"]));
    }

    #[test]
    fn what_an_event_brings_is_not_foretold() {
        let asks = Asks::of_document(&json!({"spec": {
            "serviceAccountName": "ci", "timeouts": {"pipeline": "2h"},
            "workspaces": [
                {"name": "a", "secret": {"secretName": "$(run.name)-git"}},
                {"name": "b", "secret": {"secretName": "fixed"}},
            ],
            "pipelineRef": {"path": ".tekton/ci.yaml"},
        }}));
        assert_eq!(asks.secrets, names(["fixed"]));
        assert_eq!(asks.service_accounts, names(["ci"]));
        assert_eq!(asks.installed, names([]));
        assert_eq!(asks.timeout, Timeout::Asked("2h".to_owned()));
    }
}
