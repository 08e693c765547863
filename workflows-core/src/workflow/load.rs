//! From the text of a file to workflows: [`load`].

use std::{collections::BTreeSet, fmt, sync::Arc};

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    decode::{decode, describe},
    document::Workflow,
    problem::{self, Problem, nearest, shown},
    render::Templates,
    validate,
    yaml::{self, Place, YamlLimits},
};
use crate::matching::CompiledTrigger;

/// The `apiVersion` of workflows.
pub const API_VERSION: &str = "workflows.tekton.dev/v1alpha1";

/// The `kind` of workflows.
pub const KIND: &str = "Workflow";

/// Where a document stands, and the names that it may use.
///
/// The sets of names are optional: a platform that knows what it offers passes them, and a document
/// that names something else is then refused when it is loaded, rather than when its run is planned.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadContext {
    /// Whether it stands in a repository or is registered.
    pub place: DocumentPlace,
    /// What the text may cost to read.
    pub limits: YamlLimits,
    /// The connections that `repos` may name.
    pub connections: Option<BTreeSet<String>>,
    /// The notifiers that `notify` may name.
    pub notifiers: Option<BTreeSet<String>>,
    /// The sinks that `sink` may name.
    pub sinks: Option<BTreeSet<String>>,
    /// The filters that `customFilter` may name.
    pub custom_filters: Option<BTreeSet<String>>,
    /// The kinds of event that `on` may name besides the built-in ones.
    pub custom_kinds: Option<BTreeSet<String>>,
}

impl LoadContext {
    /// The context of a document that stands in a repository.
    pub fn in_repository() -> Self {
        Self { place: DocumentPlace::Repository, ..Self::default() }
    }

    /// The context of a document that the platform registers.
    pub fn registered() -> Self {
        Self::default()
    }
}

/// Where a document stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DocumentPlace {
    /// In a repository, which is then the one that it is about: its `repos` name further ones, and
    /// none of them is a pattern. `$(repos.self.url)` and so on stand for the repository itself.
    Repository,
    /// Outside, as an object in a cluster or in a file of the platform. Its first repository is the
    /// one that it is about.
    #[default]
    Registered,
}

/// What `$(repos.<name>...)` calls the repository that a document stands in. A registered document may
/// give the name to the repository that it is about, so that it reads as it would in there.
pub const SELF: &str = "self";

/// What a file holds.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// Its workflows that are right.
    pub workflows: Vec<LoadedWorkflow>,
    /// Its `tekton.dev/v1` Pipelines.
    pub pipelines: Vec<TektonObject>,
    /// Its `tekton.dev/v1` Tasks.
    pub tasks: Vec<TektonObject>,
    /// Documents of other kinds, which have no meaning here.
    pub ignored: Vec<Ignored>,
    /// What is wrong with it: the first hundred problems, and how many there are besides.
    pub problems: Vec<Problem>,
}

/// A Pipeline or a Task that stands beside workflows, kept as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TektonObject {
    /// Its name.
    pub name: Arc<str>,
    /// The whole object.
    pub value: Arc<Value>,
    /// The file that it was read from.
    pub source: Arc<str>,
}

impl TektonObject {
    /// Its `spec`.
    pub fn spec(&self) -> &Value {
        self.value.get("spec").unwrap_or(&Value::Null)
    }
}

/// A document of a kind that has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// Its `apiVersion` and `kind`.
    pub what: String,
    /// The line at which it begins, from 1.
    pub line: u32,
}

/// A workflow that was read and is right.
#[derive(Clone)]
pub struct LoadedWorkflow {
    pub(super) workflow: Arc<Workflow>,
    pub(super) templates: Arc<Templates>,
    pub(super) triggers: Arc<[CompiledTrigger]>,
    pub(super) digest: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) line: u32,
    pub(super) place: DocumentPlace,
}

impl LoadedWorkflow {
    /// The document.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// Its triggers, compiled, in the order of the document.
    pub fn triggers(&self) -> &Arc<[CompiledTrigger]> {
        &self.triggers
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.workflow.metadata.name
    }

    /// The SHA-256 of its content, in hexadecimal: the same for a file and for an object in a
    /// cluster that say the same, however they are written.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// What it was read from.
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// The line of its source at which it begins, from 1; 0 when it was not read from a text.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Whether it stands in a repository or is registered.
    pub fn place(&self) -> DocumentPlace {
        self.place
    }
}

impl fmt::Debug for LoadedWorkflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedWorkflow")
            .field("name", self.name())
            .field("source", &self.source)
            .field("line", &self.line)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Reads all documents of a file.
///
/// A document that is wrong does not stop the others, and everything that is wrong is told at once.
/// `source` names the file in problems.
///
/// ```
/// use workflows_core::workflow::{LoadContext, load};
///
/// let loaded = load(
///     ".tekton/ci.yaml",
///     "
/// apiVersion: workflows.tekton.dev/v1alpha1
/// kind: Workflow
/// metadata: { name: ci }
/// spec:
///   triggers:
///   - { name: pull-request, on: pull_request }
///   params:
///   - { name: revision, value: $(event.head.sha) }
///   pipelineRef: { path: .tekton/build.yaml }
/// ",
///     &LoadContext::in_repository(),
/// );
/// assert!(loaded.problems.is_empty());
/// assert_eq!(&**loaded.workflows[0].name(), "ci");
/// ```
pub fn load(source: &str, text: &str, context: &LoadContext) -> Loaded {
    let source: Arc<str> = source.into();
    let mut loaded = Loaded::default();
    let (documents, mut problems) = yaml::read(text, context.limits);
    let mut names = BTreeSet::new();
    for document in documents {
        let mut found = Vec::new();
        let line = document.places.position().line;
        match kind_of(&document.value) {
            Ok(DocumentKind::Workflow) => match read_workflow(&document.value, context) {
                Ok(read) => {
                    let name = Arc::clone(&read.workflow.metadata.name);
                    if names.insert(Arc::clone(&name)) {
                        loaded.workflows.push(read.into_loaded(&source, line, context.place));
                    } else {
                        let message =
                            format!("the file has another workflow named {}", shown(&name));
                        found
                            .push(Problem::at("metadata.name", message).help("rename one of them"));
                    }
                }
                Err(all) => found = all,
            },
            Ok(DocumentKind::Pipeline) => {
                keep_object(document.value, &source, &mut loaded.pipelines, &mut found);
            }
            Ok(DocumentKind::Task) => {
                keep_object(document.value, &source, &mut loaded.tasks, &mut found);
            }
            Ok(DocumentKind::Other(what)) => loaded.ignored.push(Ignored { what, line }),
            Err(problem) => found.push(*problem),
        }
        problems.extend(found.into_iter().map(|problem| located(problem, &document.places)));
    }
    let lines: Vec<&str> = text.lines().collect();
    for problem in &mut problems {
        problem.source = Arc::clone(&source);
        problem.snippet = problem
            .line
            .and_then(|line| lines.get(usize::try_from(line).ok()?.checked_sub(1)?))
            .and_then(|line| problem::snippet(line));
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    loaded.problems = problem::first_of(problems);
    loaded
}

/// Reads one workflow that is an object already, such as one that a cluster holds. What Kubernetes
/// adds to an object (`status`, and the fields of `metadata` that it manages) has no meaning and does
/// not change the digest.
///
/// # Errors
///
/// What is wrong with it: the first hundred problems, and how many there are besides.
pub fn load_object(
    source: &str,
    object: &Value,
    context: &LoadContext,
) -> Result<LoadedWorkflow, Vec<Problem>> {
    let source: Arc<str> = source.into();
    let read = match kind_of(object) {
        Ok(DocumentKind::Workflow) => read_workflow(object, context),
        Ok(_) => Err(vec![Problem::at("kind", format!("this is no {KIND}"))]),
        Err(problem) => Err(vec![*problem]),
    };
    match read {
        Ok(read) => Ok(read.into_loaded(&source, 0, context.place)),
        Err(mut problems) => {
            problems.iter_mut().for_each(|problem| problem.source = Arc::clone(&source));
            Err(problem::first_of(problems))
        }
    }
}

enum DocumentKind {
    Workflow,
    Pipeline,
    Task,
    Other(String),
}

fn kind_of(value: &Value) -> Result<DocumentKind, Box<Problem>> {
    let Value::Object(fields) = value else {
        let found = describe(value);
        let message = format!("expected a document with apiVersion and kind, found {found}");
        return Err(Box::new(Problem::at("", message)));
    };
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => {
            let message = format!("expected a string, found {}", describe(other));
            Err(Box::new(Problem::at(name, message)))
        }
        None => Err(Box::new(Problem::at("", format!("the document has no field `{name}`")).help(
            format!("a workflow begins with `apiVersion: {API_VERSION}` and `kind: {KIND}`"),
        ))),
    };
    let (version, kind) = (text("apiVersion")?, text("kind")?);
    let group = version.split('/').next().unwrap_or_default();
    let refused = |field: &str, message: String, help: String| {
        Err(Box::new(Problem::at(field, message).help(help)))
    };
    match (group, kind) {
        ("workflows.tekton.dev", KIND) if version == API_VERSION => Ok(DocumentKind::Workflow),
        ("workflows.tekton.dev", KIND) => refused(
            "apiVersion",
            format!("unknown version {}", shown(version)),
            format!("known version: {API_VERSION}"),
        ),
        ("workflows.tekton.dev", other) if nearest(other, [KIND]).is_some() => refused(
            "kind",
            format!("unknown kind {}", shown(other)),
            format!("did you mean {KIND}?"),
        ),
        (_, KIND) if nearest(group, ["workflows.tekton.dev"]).is_some() => refused(
            "apiVersion",
            format!("unknown group {}", shown(group)),
            format!("did you mean {API_VERSION}?"),
        ),
        ("tekton.dev", "Pipeline" | "Task") if version != "tekton.dev/v1" => refused(
            "apiVersion",
            format!("{kind}s of {} are not used", shown(version)),
            "convert it to tekton.dev/v1".to_owned(),
        ),
        ("tekton.dev", "Pipeline") => Ok(DocumentKind::Pipeline),
        ("tekton.dev", "Task") => Ok(DocumentKind::Task),
        _ => Ok(DocumentKind::Other(format!("{version} {kind}"))),
    }
}

fn keep_object(
    value: Value,
    source: &Arc<str>,
    kept: &mut Vec<TektonObject>,
    problems: &mut Vec<Problem>,
) {
    let name: Option<Arc<str>> =
        value.pointer("/metadata/name").and_then(Value::as_str).map(Arc::from);
    match name {
        None => problems.push(Problem::at("metadata", "it has no name")),
        Some(_) if !value.get("spec").is_some_and(Value::is_object) => {
            problems.push(Problem::at("spec", "expected a mapping"));
        }
        Some(name) if kept.iter().any(|other| other.name == name) => problems.push(Problem::at(
            "metadata.name",
            format!("the file has another one named {}", shown(&name)),
        )),
        Some(name) => {
            kept.push(TektonObject { name, value: Arc::new(value), source: Arc::clone(source) });
        }
    }
}

/// A document that is right, with what was made of it.
struct ReadWorkflow {
    workflow: Workflow,
    templates: Templates,
    triggers: Vec<CompiledTrigger>,
    digest: Arc<str>,
}

impl ReadWorkflow {
    fn into_loaded(self, source: &Arc<str>, line: u32, place: DocumentPlace) -> LoadedWorkflow {
        LoadedWorkflow {
            workflow: Arc::new(self.workflow),
            templates: Arc::new(self.templates),
            triggers: self.triggers.into(),
            digest: self.digest,
            source: Arc::clone(source),
            line,
            place,
        }
    }
}

fn read_workflow(value: &Value, context: &LoadContext) -> Result<ReadWorkflow, Vec<Problem>> {
    let value = without_what_kubernetes_adds(value);
    let mut decoded = decode::<Workflow>(&value, "");
    let mut problems = std::mem::take(&mut decoded.problems);
    if let Some(workflow) = decoded.value.take() {
        // A part that was taken out is no reason to call another one wrong that refers to it.
        let mut compiled = None;
        let referred_to = |wrong: &String| {
            let lists = ["spec.triggers", "spec.notify", "spec.concurrency"];
            wrong.ends_with(']') && !lists.iter().any(|list| wrong.starts_with(list))
        };
        if !decoded.wrong.iter().any(referred_to) {
            let mut further = validate::validate(&workflow, context);
            let templates = Templates::compile(&workflow, context.place, &mut further);
            let triggers = validate::compile_triggers(&workflow.spec.triggers, &mut further);
            compiled = Some((templates, triggers));
            for problem in &mut further {
                problem.field = decoded.as_written(&problem.field);
            }
            problems.extend(further.into_iter().filter(|problem| {
                !decoded.wrong.iter().any(|wrong| {
                    wrong.starts_with(&problem.field) || problem.field.starts_with(wrong)
                })
            }));
        }
        if let Some((templates, triggers)) = compiled
            && problems.is_empty()
        {
            let digest = digest(&workflow);
            return Ok(ReadWorkflow { workflow, templates, triggers, digest });
        }
    }
    Err(problems)
}

fn without_what_kubernetes_adds(value: &Value) -> Value {
    const MANAGED: [&str; 11] = [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "managedFields",
        "ownerReferences",
        "selfLink",
        "generateName",
    ];
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.retain(|name, _| !MANAGED.contains(&name.as_str()));
            if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
        }
    }
    value
}

/// The SHA-256 of the canonical JSON: keys in order, nothing that has its default, no namespace.
fn digest(workflow: &Workflow) -> Arc<str> {
    let mut hasher = Sha256::new();
    // A document without non-string keys always has a JSON form.
    let mut value = serde_json::to_value(workflow).unwrap_or_default();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("namespace");
    }
    hash_canonical(&value, &mut hasher);
    HEXLOWER.encode(&hasher.finalize()).into()
}

fn hash_canonical(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                hash_canonical(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            hasher.update(b"{");
            for (name, value) in fields {
                hash_canonical(&Value::from(name.as_str()), hasher);
                hasher.update(b":");
                hash_canonical(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        scalar => hasher.update(scalar.to_string().as_bytes()),
    }
}

fn located(mut problem: Problem, places: &Place) -> Problem {
    let name = problem.message.starts_with("unknown field");
    let position = places.find(&problem.field, name);
    problem.line = Some(position.line);
    problem.column = Some(position.column);
    problem
}

#[cfg(test)]
mod tests;
