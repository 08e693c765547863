//! What a planned run asks for of its namespace: [`Asks`].

use std::collections::BTreeSet;

use serde_json::{Map, Value};

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
    pub(super) installed: BTreeSet<String>,
    pub(super) pod_template: bool,
    /// `timeouts.pipeline`.
    pub(super) timeout: Option<String>,
}

impl Asks {
    /// What this PipelineRun asks for.
    pub(super) fn of(pipeline_run: &Value) -> Self {
        let mut asks = Self::default();
        let spec = &pipeline_run["spec"];
        asks.timeout = spec["timeouts"]["pipeline"].as_str().map(str::to_owned);
        asks.walk(spec);
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
                "taskSpec" => {
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
    use serde_json::json;

    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn everything_that_names_an_object_is_found() {
        let run = json!({"metadata": {"name": "ci-1"}, "spec": {
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
        assert_eq!(asks.timeout.as_deref(), Some("2h"));
    }
}
