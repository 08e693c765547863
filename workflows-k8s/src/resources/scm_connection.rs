//! Connections to hosts of repositories.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use workflows_core::{SecretRef, workflow::Notification};

use super::status::ObjectStatus;

/// Repositories at a host, reached with one credential, and how events there become known.
///
/// Secrets are in the object's own namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "workflows.tekton.dev",
    version = "v1alpha1",
    kind = "ScmConnection",
    plural = "scmconnections",
    doc = "Repositories at a host, reached with one credential, and how events there become known.",
    namespaced,
    status = "ScmConnectionStatus",
    derive = "PartialEq",
    shortname = "scm",
    category = "workflows",
    category = "tekton",
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver"),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.host"),
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
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.webhook) || has(self.poll)",
     "message": "say how events become known: webhook, poll or both"},
    {"rule": "!has(self.url) || self.url.startsWith('https://') || self.url.startsWith('http://') || self.driver != 'github'",
     "message": "the url of a GitHub must begin with https:// (or http://)"},
    {"rule": "!has(self.webUrl) || !(self.driver in ['github', 'gitlab'])",
     "message": "GitHub and GitLab say themselves where the pages of their repositories are: leave webUrl out"},
    {"rule": "!has(self.webUrl) || self.webUrl.startsWith('https://') || self.webUrl.startsWith('http://')",
     "message": "webUrl must begin with https:// (or http://)"},
]))]
pub struct ScmConnectionSpec {
    /// The kind of host: `github`, `gitlab`, `git`, or one that the controller's program adds.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub driver: String,
    /// The address: of the API for `github` (`https://api.github.com` when left out; of a GitHub
    /// Enterprise Server `https://HOST/api/v3`), of the site for `gitlab` (`https://gitlab.com` when
    /// left out), the one that repositories are below of for `git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Where people look at the repositories (`https://git.example.com/cgit`), for a host that does not
    /// say so itself: the page of each is its name below that. GitHub and GitLab say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub web_url: Option<String>,
    /// An authority whose certificates are trusted besides those of the system, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub certificate_authority: Option<String>,
    /// What the host is shown; nothing when left out, which reads what is public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// A token that runs are handed to clone with, where the driver mints none: one that can do no
    /// more than read these repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_token: Option<SecretRef>,
    /// The repositories that it serves: names such as `acme/api`, and patterns such as `acme/*`. The
    /// workflows of one that is named without a pattern are read at once, so that it is polled and
    /// its schedules fire; those of others when an event of theirs comes.
    #[schemars(length(min = 1, max = 256))]
    pub repositories: Vec<String>,
    /// The directory of a repository that defines its workflows. Empty when its repositories define
    /// none and only Workflow objects count.
    #[serde(default = "dot_tekton")]
    #[schemars(length(max = 253))]
    pub definitions_directory: String,
    /// Deliveries of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookIn>,
    /// Looking at the repositories again and again. Beside a webhook it finds what did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
    /// Which other namespaces' Workflow objects may use it, under the same name. What its repositories
    /// define themselves runs in its own namespace alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["namespace"]
    ))]
    pub grants: Vec<Grant>,
    /// Who is told about runs for its repositories, in its own namespace, whose workflow does not say;
    /// an empty list tells nobody. When left out, those of the namespace's Notifiers are told that say
    /// so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::notifier::notifications")]
    pub notify: Option<Vec<Notification>>,
    /// What a driver of another kind wants to know besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::notifier::free_object")]
    pub settings: Option<Map<String, Value>>,
}

fn dot_tekton() -> String {
    ".tekton".to_owned()
}

/// What a host is shown: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.app), has(self.token), has(self.basic), has(self.sshKey)].filter(given, given).size() == 1",
     "message": "exactly one of app, token, basic and sshKey must be given"},
]))]
pub struct Credentials {
    /// A GitHub App.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// A token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretRef>,
    /// A user name and a password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicCredential>,
    /// A private key for ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<SecretRef>,
}

/// A GitHub App.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// Its id.
    #[schemars(range(min = 1))]
    pub id: i64,
    /// Its private key, in PEM.
    pub private_key: SecretRef,
}

/// A user name with a password or token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicCredential {
    /// The user name.
    #[schemars(length(min = 1, max = 253))]
    pub username: String,
    /// The password or token.
    pub password: SecretRef,
}

/// Deliveries of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookIn {
    /// What deliveries are signed with.
    pub secret: SecretRef,
    /// What they may be signed with as well, while a secret is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<SecretRef>,
    /// Whether the controller registers a hook at each repository that is named without a pattern, here
    /// or in a Workflow, and removes it with this object. A GitHub App has a hook of its own and needs
    /// none.
    #[serde(default)]
    pub register: HookRegistration,
}

/// Whether hooks are registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookRegistration {
    /// Somebody else does it.
    #[default]
    None,
    /// At each repository.
    Repository,
}

/// Looking at repositories again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Poll {
    /// How often, such as `30s` or `5m`. Not more often than each second.
    #[serde(default = "each_minute")]
    #[schemars(length(min = 2, max = 16))]
    pub interval: String,
    /// How often at the least, where nothing happens; the same when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub slowing_to: Option<String>,
}

fn each_minute() -> String {
    "1m".to_owned()
}

/// A namespace that may use a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// The namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Of the connection's repositories, those that it may use; all when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub repositories: Vec<String>,
}

/// What a controller says about a connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScmConnectionStatus {
    /// What it says about every object.
    #[serde(flatten)]
    pub object: ObjectStatus,
    /// The host, as people know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Where deliveries of the host go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// The repositories at which a hook was registered. They are what is looked at when the hooks
    /// are to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub hooks: Vec<String>,
}
