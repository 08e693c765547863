//! The types of the document, as they are written in YAML.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_json::Value;

use super::concurrency::Concurrency;
use crate::{ConnectionName, EventKind, NotifierName, Transition};

/// A workflow: which events at which repositories start which pipeline, and who is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workflow {
    /// Always `workflows.tekton.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Workflow`.
    pub kind: String,
    /// Its name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: WorkflowSpec,
}

/// Name and labels of a workflow. What Kubernetes adds to an object's metadata is left out before
/// a document is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name: a DNS-1123 subdomain, unique in its tenant or repository.
    pub name: Arc<str>,
    /// Labels; they are put on each run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; they are put on each run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The namespace, for documents that are objects in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a workflow says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowSpec {
    /// The repositories that it is about. The first is the one whose events start it, and may be a
    /// pattern; a document that stands in a repository has that one implied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repos: Vec<RepoSelector>,
    /// Which events start it.
    pub triggers: Vec<Trigger>,
    /// The parameters that the run gets. A value may hold `$(...)` references.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// The pipeline to run, by reference. Exactly one of `pipelineRef` and `pipelineSpec` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_ref: Option<PipelineRef>,
    /// The pipeline to run, in place: a Tekton `PipelineSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_spec: Option<Value>,
    /// The service account that the run gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Tekton's per-task settings: service accounts, pod templates, resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_run_specs: Vec<Value>,
    /// A Tekton pod template for all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Value>,
    /// The workspaces that the run gets: Tekton workspace bindings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<Value>,
    /// How long the run may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Which runs may be under way together. A run is in every group of this list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrency: Vec<Concurrency>,
    /// Who is told about what, in place of whom the connection and the platform would have told.
    /// An empty list tells nobody but those whom the platform tells in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Vec<Notification>>,
    /// How much of its history is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The sink that executes it, by the name that the platform gave it; the platform's default
    /// when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<crate::SinkName>,
    /// Whether each trigger has a status of its own on the commit, rather than the workflow one for
    /// all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status_per_trigger: bool,
}

/// A repository, or a pattern of repositories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepoSelector {
    /// What the document calls it, as in `$(repos.<name>.url)`.
    pub name: Arc<str>,
    /// The connection through which it is reached.
    pub connection: ConnectionName,
    /// Its full name, such as `acme/api`; for the first of the list also a pattern in which `*`
    /// stands for any characters but `/`, and `**` for any.
    pub repo: Arc<str>,
    /// The branch, tag or full ref name that `$(repos.<name>.revision)` is resolved from when it is
    /// not the repository of the event; the default branch when left out.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// One entry that says which events start the workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trigger {
    /// Its name, unique in the workflow.
    pub name: Arc<str>,
    /// The kind of event: push, tag, pull_request, label, comment, schedule, manual, or a custom
    /// kind.
    pub on: EventKind,
    /// What must have been done, any of it. Pull requests: opened, updated, reopened, retargeted,
    /// ready by default; also drafted, closed, merged. Push and tag: created, updated, forced by
    /// default. Labels: labeled by default; also unlabeled. Comments: created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Arc<str>>,
    /// Branches: the base branch of a pull request (its labels, its comments), the branch of a
    /// push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<Patterns>,
    /// Tags, for `on: tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Patterns>,
    /// Files that must have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathFilter>,
    /// Labels: for `on: label` the one that came or went, for pull requests and comments one that
    /// the pull request has. Any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Arc<str>>,
    /// The command that a line of the comment must be, such as `/bench`, for `on: comment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Arc<str>>,
    /// When, for `on: schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// A CEL expression over `event`, and over `body` and `headers` as the escape hatch; or a list
    /// of which all must hold.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// The name of a filter that the platform wrote in Rust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_filter: Option<Arc<str>>,
    /// What the commit shows when a path filter or expression said no.
    #[serde(default, skip_serializing_if = "WhenSkipped::is_silent")]
    pub when_skipped: WhenSkipped,
    /// Parameters for runs of this trigger, over those of the workflow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
}

/// CEL expressions of which all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Filter {
    /// None.
    #[default]
    None,
    /// One.
    One(String),
    /// Several.
    All(Vec<String>),
}

impl Filter {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.expressions().is_empty()
    }

    /// The expressions.
    pub fn expressions(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::All(all) => all,
        }
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FilterVisitor)
    }
}

struct FilterVisitor;

impl<'de> Visitor<'de> for FilterVisitor {
    type Value = Filter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CEL expression or a list of them")
    }

    fn visit_unit<E>(self) -> Result<Filter, E> {
        Ok(Filter::None)
    }

    fn visit_str<E>(self, expression: &str) -> Result<Filter, E> {
        Ok(Filter::One(expression.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Filter, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Filter::All)
    }
}

/// Names of branches or tags: a list to include, or include and exclude.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Patterns {
    /// Any of these.
    Include(Vec<String>),
    /// Any of `include` (all, when it is left out) and none of `exclude`.
    Both {
        /// Any of these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        include: Vec<String>,
        /// None of these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        exclude: Vec<String>,
    },
}

/// The second form of [`Patterns`], as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IncludeExclude {
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PatternsVisitor)
    }
}

struct PatternsVisitor;

impl<'de> Visitor<'de> for PatternsVisitor {
    type Value = Patterns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of patterns, or a mapping with the lists include and exclude")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Patterns, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Patterns::Include)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Patterns, A::Error> {
        IncludeExclude::deserialize(MapAccessDeserializer::new(fields))
            .map(|IncludeExclude { include, exclude }| Patterns::Both { include, exclude })
    }
}

impl Patterns {
    /// The patterns to include; all when empty.
    pub fn include(&self) -> &[String] {
        match self {
            Self::Include(include) | Self::Both { include, .. } => include,
        }
    }

    /// The patterns to exclude.
    pub fn exclude(&self) -> &[String] {
        match self {
            Self::Include(_) => &[],
            Self::Both { exclude, .. } => exclude,
        }
    }
}

/// Which changed files count: a trigger matches when at least one changed file is included and not
/// excluded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathFilter {
    /// Files that count; all, when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Files that do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// What a commit shows when a trigger was for its kind and branch, and a path filter or expression
/// said no.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhenSkipped {
    /// Nothing.
    #[default]
    Silent,
    /// A neutral status, so that a required check is not left hanging.
    Neutral,
}

impl WhenSkipped {
    fn is_silent(&self) -> bool {
        *self == Self::Silent
    }
}

/// When a schedule fires, and for which commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Five fields, as a Kubernetes CronJob has them, or a name such as `@daily`.
    pub cron: String,
    /// An IANA time zone; `UTC` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The branch, tag or full ref name whose commit the run is for; the default branch when left
    /// out.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Which commit of the ref: the one it had a time before the slot, or the last one that
    /// succeeded in another workflow by then. The present one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<AsOf>,
    /// Whether a slot makes no run when the commit is the one of this trigger's last successful run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_if_changed: bool,
    /// How late a missed slot may still be run, such as `1h`; of several missed slots only the
    /// newest is. A missed slot is skipped when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<String>,
}

/// Which commit of a ref a schedule's run is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum AsOf {
    /// The one that the ref had so long before the slot, such as `7d`.
    Age(String),
    /// The last one that succeeded in another workflow, so long before the slot or earlier.
    Succeeded(AsOfSucceeded),
}

impl<'de> Deserialize<'de> for AsOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsOfVisitor)
    }
}

struct AsOfVisitor;

impl<'de> Visitor<'de> for AsOfVisitor {
    type Value = AsOf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an age such as 7d, or a mapping with the field succeededIn")
    }

    fn visit_str<E>(self, age: &str) -> Result<AsOf, E> {
        Ok(AsOf::Age(age.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<AsOf, A::Error> {
        AsOfSucceeded::deserialize(MapAccessDeserializer::new(fields)).map(AsOf::Succeeded)
    }
}

/// The last commit that succeeded in another workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsOfSucceeded {
    /// The other workflow's name.
    pub succeeded_in: Arc<str>,
    /// How long before the slot it must have succeeded, such as `7d`; no time when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
}

/// A parameter of the run: a string, an array of strings, or an object of strings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Param {
    /// Its name.
    pub name: Arc<str>,
    /// Its value. When it is left out, or a reference in it has no value for the event, `default`
    /// is used. Without both it is what a caller gives, or else what its name says: `revision`,
    /// `ref`, `branch` and `tag` of the event's head, its `pull-request`'s number, its `repo`'s full
    /// name, its `sender`, and the `url` to clone the workflow's first repository from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// What it is when the event has no value for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where the pipeline is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineRef {
    /// A file with a `Pipeline` in the repository of the event, at its commit; Tasks of the same
    /// directory are used by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The repository, by its name in `repos`, that `path` is in instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<Arc<str>>,
    /// A Pipeline of the cluster, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A Tekton resolver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// The resolver's parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<ResolverParam>,
}

/// A parameter of a resolver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolverParam {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// How long a run may take: Go durations such as `1h30m`, as in a PipelineRun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// The whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<String>,
    /// Its `finally` tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finally: Option<String>,
}

/// Who is told about which transitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notification {
    /// The notifier, by the name that the platform gave it.
    pub notifier: NotifierName,
    /// The transitions; failed, timed_out and recovered when left out. Who names `recovered` is
    /// told that instead of `succeeded`, and who names `still_failing` that instead of `failed` or
    /// `timed_out`, where it is the case.
    #[serde(default = "default_transitions")]
    pub on: Vec<Transition>,
    /// Only of runs for which this is true: CEL over `run` and `event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Arc<str>>,
}

impl Notification {
    /// That a notifier is told about these transitions.
    pub fn new(notifier: impl Into<NotifierName>, on: impl Into<Vec<Transition>>) -> Self {
        Self { notifier: notifier.into(), on: on.into(), filter: None }
    }

    /// That a notifier is told about failures and recoveries, as a document that does not say.
    pub fn of(notifier: impl Into<NotifierName>) -> Self {
        Self::new(notifier, default_transitions())
    }

    /// Narrows it to runs for which a CEL expression over `run` and `event` is true.
    #[must_use]
    pub fn only_if(mut self, filter: impl Into<Arc<str>>) -> Self {
        self.filter = Some(filter.into());
        self
    }
}

fn default_transitions() -> Vec<Transition> {
    vec![Transition::Failed, Transition::TimedOut, Transition::Recovered]
}

/// How much of a workflow's history is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// How many runs that have ended, the newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// How long after its end a run is kept, such as `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
}
