//! Who may start what, and what a workflow may use.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::ObjectStatus;

/// Who may start what in a namespace, and what its workflows may use. Of several, each must agree.
///
/// A namespace without one has the built-in rules: what
/// [`DefaultPolicy`](workflows_core::DefaultPolicy) says of who may start what, and for documents of
/// repositories no service account by name, no Secret but the run's own credential, no volume but
/// those that are made for the run, and no resolver but `git`, `hub`, `bundles` and `http`.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "workflows.tekton.dev",
    version = "v1alpha1",
    kind = "Policy",
    plural = "policies",
    doc = "Who may start what, and what workflows may use. Of several in a namespace, each must agree.",
    namespaced,
    status = "ObjectStatus",
    derive = "PartialEq",
    shortname = "wfp",
    category = "workflows",
    category = "tekton",
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
pub struct PolicySpec {
    /// The repositories that it is about, by name or pattern; all when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub repositories: Vec<String>,
    /// Pull requests from forks, and commands in comments.
    #[serde(default)]
    pub approvals: Approvals,
    /// What documents of repositories may use.
    #[serde(default)]
    pub in_repository: Allowed,
    /// What Workflow objects may use; anything when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Allowed>,
    /// Limits of runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Who may have untrusted code run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approvals {
    /// What the author of a fork's pull request must be able to do in the repository to need no
    /// approval.
    #[serde(default)]
    pub trusted: NeededPermission,
    /// What somebody must be able to do in the repository to approve a pull request, and to give
    /// commands in comments.
    #[serde(default)]
    pub approvers: NeededPermission,
    /// Where the workflows of a pull request are read.
    #[serde(default)]
    pub definitions: DefinitionsFrom,
}

/// What somebody must be able to do in a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NeededPermission {
    /// Read, and see to issues and pull requests.
    Triage,
    /// Push.
    #[default]
    Write,
    /// Manage, without what is dangerous.
    Maintain,
    /// Everything.
    Admin,
    /// Nobody can.
    Nobody,
}

/// Where the workflows of a pull request are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DefinitionsFrom {
    /// At its head, when it is trusted or approved.
    #[default]
    Head,
    /// At its base.
    Base,
}

/// What a run may use. Names may be patterns, `*` among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allowed {
    /// Service accounts that it may name. Naming none is always allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub service_accounts: Vec<String>,
    /// Secrets, wherever it names them: workspaces, volumes, environments, image pull secrets. The
    /// credential that was made for the run is always allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub secrets: Vec<String>,
    /// ConfigMaps, wherever it names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub config_maps: Vec<String>,
    /// PersistentVolumeClaims, wherever it names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub volume_claims: Vec<String>,
    /// Where workspaces and volumes may come from, besides what the lists above allow.
    #[serde(default = "for_the_run")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub workspaces: Vec<WorkspaceSource>,
    /// Resolvers of pipelines and tasks.
    #[serde(default = "remote_resolvers")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub resolvers: Vec<String>,
    /// The namespaces in which the resolver `cluster` may read, where it is among `resolvers`; none
    /// when left out. Naming none, which is Tekton's default, takes `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub cluster_namespaces: Vec<String>,
    /// Pipelines, Tasks and StepActions that are installed in the cluster, by name, and kinds of custom
    /// tasks and of runs that are neither PipelineRuns nor TaskRuns, as `apiVersion/Kind`; none when left
    /// out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub installed: Vec<String>,
    /// Sinks, by the names that the controller's program gave them; its default one is always
    /// allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sinks: Vec<String>,
    /// Notifiers of the namespace.
    #[serde(default = "any_name")]
    #[schemars(length(max = 256))]
    pub notifiers: Vec<String>,
    /// Whether it may have a pod template, which can set almost anything of a pod.
    #[serde(default)]
    pub pod_template: bool,
}

impl Default for Allowed {
    /// What a document of a repository may use where no policy says otherwise.
    fn default() -> Self {
        Self {
            service_accounts: Vec::new(),
            secrets: Vec::new(),
            config_maps: Vec::new(),
            volume_claims: Vec::new(),
            workspaces: for_the_run(),
            resolvers: remote_resolvers(),
            cluster_namespaces: Vec::new(),
            installed: Vec::new(),
            sinks: Vec::new(),
            notifiers: any_name(),
            pod_template: false,
        }
    }
}

fn for_the_run() -> Vec<WorkspaceSource> {
    vec![WorkspaceSource::EmptyDir, WorkspaceSource::VolumeClaimTemplate]
}

fn remote_resolvers() -> Vec<String> {
    ["git", "hub", "bundles", "http"].map(str::to_owned).to_vec()
}

fn any_name() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Where a workspace or a volume comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WorkspaceSource {
    /// An empty directory.
    EmptyDir,
    /// A volume that is made for the run.
    VolumeClaimTemplate,
    /// Several sources in one; what they name must be allowed too.
    Projected,
    /// A driver of the Container Storage Interface.
    Csi,
    /// A directory of the node.
    HostPath,
}

/// Limits of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// The longest that a run may ask for in `timeouts.pipeline`, such as `2h`. A run that asks for
    /// nothing has Tekton's default of one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub timeout: Option<String>,
}
