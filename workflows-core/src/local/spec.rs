//! The PipelineRun as this sink understands it: a typed view of the document. What it does not
//! offer is refused by name, all of it at once, before anything is made.
//!
//! Fields are those of `tekton.dev/v1`:
//! <https://tekton.dev/docs/pipelines/pipeline-api/#tekton.dev/v1.PipelineRun>.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::{
    graph,
    variables::{Declared, Kind, ParamValue, Subject, Template, ValueTemplate, Variable, scalar},
};
use crate::{Error, ErrorKind, Result, Tenant, workflow::parse_duration};

/// Which claims, config maps and secrets of a tenant are which directories.
pub(super) type Volumes = BTreeMap<(Tenant, VolumeKind, String), PathBuf>;

/// What a workspace of a PipelineRun can be bound to besides directories that the sink makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// `persistentVolumeClaim`
    PersistentVolumeClaim,
    /// `configMap`
    ConfigMap,
    /// `secret`
    Secret,
}

#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) params: BTreeMap<String, ParamValue>,
    /// The tasks, then those of `finally`.
    pub(super) tasks: Vec<Task>,
    /// How many of them are not of `finally`.
    pub(super) finally_from: usize,
    /// What each has to wait for; empty for those of `finally`.
    pub(super) needs: Vec<graph::Needs>,
    pub(super) results: Vec<(String, ValueTemplate)>,
    pub(super) workspaces: BTreeMap<String, Option<Binding>>,
    pub(super) timeouts: SectionTimeouts,
}

/// Limits; `None` is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct SectionTimeouts {
    pub(super) pipeline: Option<SignedDuration>,
    pub(super) tasks: Option<SignedDuration>,
    pub(super) finally: Option<SignedDuration>,
}

#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) volume: Volume,
    /// Literal, relative and without `..`.
    pub(super) sub_path: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Volume {
    /// A new directory for each attempt of each task, as Tekton has one for each pod.
    PerAttempt,
    /// One directory for the run.
    PerRun,
    /// A directory that is already there.
    Mapped(PathBuf),
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) params: BTreeMap<String, ValueTemplate>,
    /// Values of what the pipeline does not pass.
    pub(super) defaults: BTreeMap<String, ParamValue>,
    pub(super) when: Vec<When>,
    pub(super) run_after: Vec<String>,
    pub(super) retries: u32,
    pub(super) timeout: Option<SignedDuration>,
    pub(super) workspaces: BTreeMap<String, TaskWorkspace>,
    pub(super) results: BTreeMap<String, Kind>,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) struct TaskWorkspace {
    /// The pipeline's workspace; `None` when it is optional and not bound.
    pub(super) pipeline_workspace: Option<String>,
    pub(super) sub_path: Option<Template>,
    pub(super) read_only: bool,
}

#[derive(Debug)]
pub(super) struct When {
    pub(super) input: Template,
    pub(super) is_in: bool,
    pub(super) values: Vec<Template>,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) script: Option<Script>,
    pub(super) command: Vec<Template>,
    pub(super) args: Vec<Template>,
    pub(super) env: Vec<(String, Template)>,
    pub(super) working_dir: Option<Template>,
}

#[derive(Debug)]
pub(super) struct Script {
    /// The interpreter and, as the kernel splits the line, at most one argument for it.
    pub(super) interpreter: Vec<String>,
    pub(super) text: Template,
}

/// The name of the environment variable by which the processes of a step are recognised.
pub(super) const STEP_MARKER: &str = "WORKFLOWS_STEP_DIR";

const MOST_TASKS: usize = 1_000;
const MOST_STEPS: usize = 200;
const MOST_RETRIES: u64 = 100;

/// Reads a PipelineRun.
///
/// # Errors
///
/// `Unsupported` when it uses what this sink does not offer, else `Invalid`; the message names
/// every place.
pub(super) fn read(
    pipeline_run: &Value,
    tenant: &Tenant,
    volumes: &Volumes,
    default_timeout: SignedDuration,
) -> Result<Pipeline> {
    let mut reader = Reader { problems: Vec::new(), tenant, volumes };
    let pipeline = reader.pipeline_run(pipeline_run, default_timeout);
    match pipeline {
        Some(pipeline) if reader.problems.is_empty() => Ok(pipeline),
        _ => Err(reader.into_error()),
    }
}

struct Reader<'a> {
    problems: Vec<(ErrorKind, String)>,
    tenant: &'a Tenant,
    volumes: &'a Volumes,
}

/// An object of the document and where it is.
struct Object<'a> {
    at: String,
    fields: &'a Map<String, Value>,
}

static NO_FIELDS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Object<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }
}

impl Reader<'_> {
    fn invalid(&mut self, at: &str, what: impl std::fmt::Display) {
        self.problems.push((ErrorKind::Invalid, format!("{at}: {what}")));
    }

    fn unsupported(&mut self, at: &str, what: impl std::fmt::Display) {
        self.problems.push((ErrorKind::Unsupported, format!("{at}: {what}")));
    }

    fn into_error(self) -> Error {
        const SHOWN: usize = 20;
        let kind = match self.problems.iter().any(|(kind, _)| *kind == ErrorKind::Unsupported) {
            true => ErrorKind::Unsupported,
            false => ErrorKind::Invalid,
        };
        let mut texts: Vec<String> =
            self.problems.iter().take(SHOWN).map(|(_, text)| text.clone()).collect();
        if self.problems.len() > SHOWN {
            texts.push(format!("and {} more", self.problems.len() - SHOWN));
        }
        Error::new(kind, "read a PipelineRun for local execution", texts.join("; "))
    }

    /// An object that may have these fields; any other is refused by name.
    fn object<'v>(
        &mut self,
        value: &'v Value,
        at: impl Into<String>,
        known: &[&str],
    ) -> Object<'v> {
        let at = at.into();
        let Some(fields) = value.as_object() else {
            self.invalid(&at, "expected an object");
            return Object { at, fields: &NO_FIELDS };
        };
        for (name, value) in fields {
            if !known.contains(&name.as_str()) && !is_empty(value) {
                let shown: String = name.chars().take(80).collect();
                self.unsupported(&format!("{at}.{shown}"), "the local sink does not offer this");
            }
        }
        Object { at, fields }
    }

    fn text(&mut self, object: &Object<'_>, name: &str) -> Option<String> {
        let value = object.get(name)?;
        match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.invalid(&object.at(name), "expected a string");
                None
            }
        }
    }

    fn boolean(&mut self, object: &Object<'_>, name: &str) -> bool {
        match object.get(name).map(|value| (value, value.as_bool())) {
            None => false,
            Some((_, Some(value))) => value,
            Some((_, None)) => {
                self.invalid(&object.at(name), "expected true or false");
                false
            }
        }
    }

    fn list<'v>(&mut self, object: &Object<'v>, name: &str) -> Vec<(String, &'v Value)> {
        let Some(value) = object.get(name) else { return Vec::new() };
        let at = object.at(name);
        match value.as_array() {
            Some(items) => {
                items.iter().enumerate().map(|(i, item)| (format!("{at}[{i}]"), item)).collect()
            }
            None => {
                self.invalid(&at, "expected a list");
                Vec::new()
            }
        }
    }

    fn ok<T>(&mut self, at: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|wrong| self.invalid(at, wrong)).ok()
    }

    fn template(&mut self, at: &str, text: &str) -> Option<Template> {
        self.ok(at, Template::parse(text))
    }

    fn literal(&mut self, at: &str, text: &str) {
        if self.template(at, text).is_some_and(|template| template.variables().next().is_some()) {
            self.unsupported(at, "variables are not replaced here");
        }
    }

    /// A name that becomes part of a path: a DNS-1123 label.
    fn label(&mut self, object: &Object<'_>, name: &str) -> String {
        let at = object.at(name);
        match self.text(object, name) {
            Some(text) if is_label(&text) => text,
            Some(text) => {
                let shown: String = text.chars().take(80).collect();
                self.invalid(
                    &at,
                    format!("{shown:?} is not a DNS label: 1 to 63 characters of a-z, 0-9 and '-'"),
                );
                String::new()
            }
            None => {
                self.invalid(&at, "a name is missing");
                String::new()
            }
        }
    }

    /// A name of a parameter, a result or a workspace: what Tekton allows, which is no path.
    fn name(&mut self, object: &Object<'_>) -> String {
        let at = object.at("name");
        let name = self.text(object, "name").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if name.len() > 253 || !starts_well || !name.chars().all(allowed) {
            let shown: String = name.chars().take(80).collect();
            let rule = "1 to 253 characters of letters, digits, '.', '_' and '-', and begins with a letter, a digit or '_'";
            self.invalid(&at, format!("{shown:?} is not a name, which has {rule}"));
        }
        name
    }

    fn duration(&mut self, object: &Object<'_>, name: &str) -> Option<Option<SignedDuration>> {
        let text = self.text(object, name)?;
        let duration =
            self.ok(&object.at(name), parse_duration(&text).map_err(|error| error.to_string()))?;
        Some((duration > SignedDuration::ZERO).then_some(duration))
    }

    fn pipeline_run(
        &mut self,
        document: &Value,
        default_timeout: SignedDuration,
    ) -> Option<Pipeline> {
        let run = self.object(document, "PipelineRun", &["apiVersion", "kind", "metadata", "spec"]);
        for (field, expected) in [("apiVersion", "tekton.dev/v1"), ("kind", "PipelineRun")] {
            if run.get(field).and_then(Value::as_str) != Some(expected) {
                self.invalid(field, format!("expected {expected}"));
            }
        }
        let Some(spec) = run.get("spec") else {
            self.invalid("spec", "it is missing");
            return None;
        };
        let spec = self.object(
            spec,
            "spec",
            &["params", "pipelineSpec", "taskRunTemplate", "timeouts", "workspaces"],
        );
        if let Some(template) = spec.get("taskRunTemplate") {
            self.object(template, spec.at("taskRunTemplate"), &["serviceAccountName"]);
        }
        let Some(pipeline_spec) = spec.get("pipelineSpec") else {
            self.invalid("spec.pipelineSpec", "it is missing: the local sink resolves nothing");
            return None;
        };
        let timeouts = self.timeouts(&spec, default_timeout);
        let bindings = self.bindings(&spec);
        let pipeline = self.object(
            pipeline_spec,
            spec.at("pipelineSpec"),
            &["description", "displayName", "finally", "params", "results", "tasks", "workspaces"],
        );
        let workspaces = self.pipeline_workspaces(&pipeline, bindings);
        let params = self.pipeline_params(&spec, &pipeline);
        let mut tasks = self.tasks(&pipeline, "tasks", &params, &workspaces);
        if tasks.is_empty() {
            self.invalid(&pipeline.at("tasks"), "a pipeline needs at least one task");
        }
        let finally_from = tasks.len();
        tasks.extend(self.tasks(&pipeline, "finally", &params, &workspaces));
        if tasks.len() > MOST_TASKS {
            self.invalid(&pipeline.at, format!("it has more than {MOST_TASKS} tasks"));
            return None;
        }
        let mut names = BTreeSet::new();
        for task in &tasks {
            if !names.insert(task.name.as_str()) {
                self.invalid(&pipeline.at, format!("two tasks are called {:?}", task.name));
            }
        }
        let needs = self.ok(&pipeline.at, graph::needs(&tasks, finally_from)).unwrap_or_default();
        let results = self.pipeline_results(&pipeline);
        let pipeline =
            Pipeline { params, tasks, finally_from, needs, results, workspaces, timeouts };
        if self.problems.is_empty() {
            self.check(&pipeline);
        }
        Some(pipeline)
    }

    fn timeouts(&mut self, spec: &Object<'_>, default: SignedDuration) -> SectionTimeouts {
        let default_pipeline = (default > SignedDuration::ZERO).then_some(default);
        let none = SectionTimeouts { pipeline: default_pipeline, tasks: None, finally: None };
        let Some(timeouts) = spec.get("timeouts") else { return none };
        let timeouts =
            self.object(timeouts, spec.at("timeouts"), &["pipeline", "tasks", "finally"]);
        let pipeline = self.duration(&timeouts, "pipeline").unwrap_or(default_pipeline);
        let tasks = self.duration(&timeouts, "tasks").flatten();
        let finally = self.duration(&timeouts, "finally").flatten();
        if let Some(pipeline) = pipeline {
            let parts = [tasks, finally].into_iter().flatten();
            let sum = parts.fold(SignedDuration::ZERO, |sum, part| {
                sum.checked_add(part).unwrap_or(SignedDuration::MAX)
            });
            if sum > pipeline {
                self.invalid(&timeouts.at, "tasks and finally together exceed pipeline");
            }
        }
        SectionTimeouts { pipeline, tasks, finally }
    }

    fn bindings(&mut self, spec: &Object<'_>) -> BTreeMap<String, Binding> {
        let mut bindings = BTreeMap::new();
        for (at, value) in self.list(spec, "workspaces") {
            let known = [
                "name",
                "subPath",
                "emptyDir",
                "volumeClaimTemplate",
                "persistentVolumeClaim",
                "configMap",
                "secret",
            ];
            let object = self.object(value, at, &known);
            let name = self.label(&object, "name");
            let sub_path = self.text(&object, "subPath").filter(|path| !path.is_empty());
            if let Some(path) = &sub_path {
                self.literal(&object.at("subPath"), path);
                let checked = relative(path).map(|_| ());
                self.ok(&object.at("subPath"), checked);
            }
            let volumes: Vec<&str> =
                known[2..].iter().copied().filter(|kind| object.get(kind).is_some()).collect();
            let volume = match volumes.as_slice() {
                ["emptyDir"] => {
                    if let Some(value) = object.get("emptyDir") {
                        self.object(value, object.at("emptyDir"), &[]);
                    }
                    Volume::PerAttempt
                }
                ["volumeClaimTemplate"] => Volume::PerRun,
                [kind] => match self.mapped(&object, kind) {
                    Some(directory) => Volume::Mapped(directory),
                    None => continue,
                },
                _ => {
                    self.invalid(&object.at, "a workspace is bound to exactly one volume");
                    continue;
                }
            };
            if bindings.insert(name.clone(), Binding { volume, sub_path }).is_some() {
                self.invalid(&object.at, format!("workspace {name:?} is bound twice"));
            }
        }
        bindings
    }

    fn mapped(&mut self, binding: &Object<'_>, kind: &str) -> Option<PathBuf> {
        let (volume_kind, name_field) = match kind {
            "persistentVolumeClaim" => (VolumeKind::PersistentVolumeClaim, "claimName"),
            "configMap" => (VolumeKind::ConfigMap, "name"),
            _ => (VolumeKind::Secret, "secretName"),
        };
        let object = self.object(binding.get(kind)?, binding.at(kind), &[name_field]);
        let name = self.text(&object, name_field).unwrap_or_default();
        let directory =
            self.volumes.get(&(self.tenant.clone(), volume_kind, name.clone())).cloned();
        if directory.is_none() {
            self.unsupported(
                &object.at,
                format!("{name:?} is not mapped to a directory in this sink's options"),
            );
        }
        directory
    }

    fn pipeline_workspaces(
        &mut self,
        pipeline: &Object<'_>,
        bindings: BTreeMap<String, Binding>,
    ) -> BTreeMap<String, Option<Binding>> {
        let mut workspaces: BTreeMap<String, Option<Binding>> =
            bindings.into_iter().map(|(name, binding)| (name, Some(binding))).collect();
        for (at, value) in self.list(pipeline, "workspaces") {
            let object = self.object(value, at, &["name", "description", "optional"]);
            let name = self.label(&object, "name");
            let optional = self.boolean(&object, "optional");
            if !optional && !workspaces.contains_key(&name) {
                self.invalid(&object.at, format!("workspace {name:?} is not bound by the run"));
            }
            workspaces.entry(name).or_insert(None);
        }
        workspaces
    }

    /// A declaration of a parameter: its name, its type, the keys of an object, its default.
    fn param_declaration(&mut self, at: String, value: &Value) -> Declaration {
        let object =
            self.object(value, at, &["name", "type", "default", "description", "properties"]);
        let name = self.name(&object);
        let default = object.get("default").and_then(|value| {
            let at = object.at("default");
            let parsed = self.ok(&at, ParamValue::from_json(value));
            if let Some(template) = self.ok(&at, ValueTemplate::parse(value))
                && template.templates().iter().any(|template| template.variables().next().is_some())
            {
                self.unsupported(&at, "variables in a default are not replaced");
            }
            parsed
        });
        let keys = self.properties(&object);
        let kind = match (self.kind(&object), &default, keys.is_empty()) {
            (Some(kind), _, _) => kind,
            (None, Some(default), _) => default.kind(),
            (None, None, false) => Kind::Map,
            (None, None, true) => Kind::Text,
        };
        if default.as_ref().is_some_and(|default| default.kind() != kind) {
            self.invalid(&object.at("default"), format!("expected a value of type {kind}"));
        }
        Declaration { at: object.at, name, kind, keys, default }
    }

    fn kind(&mut self, object: &Object<'_>) -> Option<Kind> {
        match self.text(object, "type")?.as_str() {
            "string" => Some(Kind::Text),
            "array" => Some(Kind::List),
            "object" => Some(Kind::Map),
            _ => {
                self.invalid(&object.at("type"), "expected string, array or object");
                None
            }
        }
    }

    fn properties(&mut self, object: &Object<'_>) -> BTreeSet<String> {
        let Some(value) = object.get("properties") else { return BTreeSet::new() };
        let at = object.at("properties");
        let Some(properties) = value.as_object() else {
            self.invalid(&at, "expected an object");
            return BTreeSet::new();
        };
        for (key, property) in properties {
            let property = self.object(property, format!("{at}.{key}"), &["type"]);
            if self.kind(&property).is_some_and(|kind| kind != Kind::Text) {
                self.invalid(&property.at, "the values of an object are strings");
            }
        }
        properties.keys().cloned().collect()
    }

    fn pipeline_params(
        &mut self,
        spec: &Object<'_>,
        pipeline: &Object<'_>,
    ) -> BTreeMap<String, ParamValue> {
        let mut params = BTreeMap::new();
        for (at, value) in self.list(spec, "params") {
            let object = self.object(value, at, &["name", "value"]);
            let name = self.name(&object);
            let json = object.get("value").unwrap_or(&Value::Null);
            if let Some(value) = self.ok(&object.at("value"), ParamValue::from_json(json))
                && params.insert(name.clone(), value).is_some()
            {
                self.invalid(&object.at, format!("parameter {name:?} is given twice"));
            }
        }
        let mut declared = BTreeSet::new();
        for (at, value) in self.list(pipeline, "params") {
            let declaration = self.param_declaration(at, value);
            if !declared.insert(declaration.name.clone()) {
                self.invalid(&declaration.at, "it is declared twice");
            }
            let given = params.get(&declaration.name);
            let value = self.settle(&declaration, given);
            if let Some(value) = value {
                params.insert(declaration.name, value);
            }
        }
        params
    }

    /// The value of a parameter: what was given, or its default, checked against its declaration.
    fn settle(
        &mut self,
        declaration: &Declaration,
        given: Option<&ParamValue>,
    ) -> Option<ParamValue> {
        let name = &declaration.name;
        let value = match (given, &declaration.default) {
            // Keys of an object that are not given have the default's values.
            (Some(ParamValue::Map(given)), Some(ParamValue::Map(default))) => {
                let mut merged = default.clone();
                merged.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
                ParamValue::Map(merged)
            }
            (Some(given), _) => given.clone(),
            (None, Some(default)) => default.clone(),
            (None, None) => {
                self.invalid(&declaration.at, format!("parameter {name:?} has no value"));
                return None;
            }
        };
        if value.kind() != declaration.kind {
            let (expected, got) = (declaration.kind, value.kind());
            self.invalid(
                &declaration.at,
                format!("parameter {name:?} is of type {expected}, and its value of type {got}"),
            );
        } else if let ParamValue::Map(entries) = &value
            && let Some(key) = declaration.keys.iter().find(|key| !entries.contains_key(*key))
        {
            self.invalid(&declaration.at, format!("parameter {name:?} has no key {key:?}"));
        }
        Some(value)
    }

    fn tasks(
        &mut self,
        pipeline: &Object<'_>,
        section: &str,
        params: &BTreeMap<String, ParamValue>,
        workspaces: &BTreeMap<String, Option<Binding>>,
    ) -> Vec<Task> {
        let items = self.list(pipeline, section);
        items.into_iter().map(|(at, value)| self.task(at, value, params, workspaces)).collect()
    }

    fn task(
        &mut self,
        at: String,
        value: &Value,
        pipeline_params: &BTreeMap<String, ParamValue>,
        pipeline_workspaces: &BTreeMap<String, Option<Binding>>,
    ) -> Task {
        let task = self.object(
            value,
            at,
            &[
                "name",
                "description",
                "displayName",
                "params",
                "retries",
                "runAfter",
                "taskSpec",
                "timeout",
                "when",
                "workspaces",
            ],
        );
        let name = self.label(&task, "name");
        let empty = Value::Object(Map::new());
        let task_spec = task.get("taskSpec").unwrap_or_else(|| {
            self.invalid(&task.at("taskSpec"), "it is missing: the local sink resolves nothing");
            &empty
        });
        let spec = self.object(
            task_spec,
            task.at("taskSpec"),
            &["description", "displayName", "metadata", "params", "results", "steps", "workspaces"],
        );
        let params = self.task_params(&task);
        let defaults = self.task_defaults(&spec, &params, pipeline_params);
        let run_after = self.list(&task, "runAfter");
        let run_after =
            run_after.into_iter().filter_map(|(at, value)| self.ok(&at, scalar(value))).collect();
        let retries = match task.get("retries").map(Value::as_u64) {
            None => 0,
            Some(Some(retries)) if retries <= MOST_RETRIES => retries as u32,
            Some(_) => {
                self.invalid(&task.at("retries"), format!("expected 0 to {MOST_RETRIES}"));
                0
            }
        };
        let timeout = self.duration(&task, "timeout").flatten();
        let when = self.list(&task, "when");
        let when = when.into_iter().filter_map(|(at, value)| self.when(at, value)).collect();
        let results = self.task_results(&spec);
        let steps = self.steps(&spec);
        let workspaces = self.task_workspaces(&task, &spec, &steps, pipeline_workspaces);
        Task {
            name,
            params,
            defaults,
            when,
            run_after,
            retries,
            timeout,
            workspaces,
            results,
            steps,
        }
    }

    fn task_params(&mut self, task: &Object<'_>) -> BTreeMap<String, ValueTemplate> {
        let mut params = BTreeMap::new();
        for (at, value) in self.list(task, "params") {
            let object = self.object(value, at, &["name", "value"]);
            let name = self.name(&object);
            let json = object.get("value").unwrap_or(&Value::Null);
            if let Some(template) = self.ok(&object.at("value"), ValueTemplate::parse(json))
                && params.insert(name.clone(), template).is_some()
            {
                self.invalid(&object.at, format!("parameter {name:?} is given twice"));
            }
        }
        params
    }

    /// Values of a task's parameters that the pipeline does not pass: the task's default, else the
    /// pipeline's parameter of that name. Tekton propagates parameters into embedded tasks
    /// (<https://tekton.dev/docs/pipelines/pipelineruns/#propagated-parameters>).
    fn task_defaults(
        &mut self,
        spec: &Object<'_>,
        passed: &BTreeMap<String, ValueTemplate>,
        pipeline_params: &BTreeMap<String, ParamValue>,
    ) -> BTreeMap<String, ParamValue> {
        let mut defaults = pipeline_params.clone();
        for (at, value) in self.list(spec, "params") {
            let declaration = self.param_declaration(at, value);
            if passed.contains_key(&declaration.name) {
                match declaration.default {
                    Some(default) => defaults.insert(declaration.name, default),
                    None => defaults.remove(&declaration.name),
                };
                continue;
            }
            let inherited = match declaration.default {
                Some(_) => None,
                None => pipeline_params.get(&declaration.name),
            };
            if let Some(value) = self.settle(&declaration, inherited) {
                defaults.insert(declaration.name, value);
            }
        }
        defaults
    }

    fn when(&mut self, at: String, value: &Value) -> Option<When> {
        let object = self.object(value, at, &["input", "operator", "values"]);
        if object.get("cel").is_some() {
            return None;
        }
        let input = self.text(&object, "input").unwrap_or_default();
        let input = self.template(&object.at("input"), &input)?;
        let is_in = match self.text(&object, "operator").as_deref() {
            Some("in") => true,
            Some("notin") => false,
            _ => {
                self.invalid(&object.at("operator"), "expected in or notin");
                return None;
            }
        };
        let mut values = Vec::new();
        for (at, value) in self.list(&object, "values") {
            let text = self.ok(&at, scalar(value))?;
            values.push(self.template(&at, &text)?);
        }
        if values.is_empty() {
            self.invalid(&object.at("values"), "it is missing");
        }
        Some(When { input, is_in, values })
    }

    fn task_results(&mut self, spec: &Object<'_>) -> BTreeMap<String, Kind> {
        let mut results = BTreeMap::new();
        for (at, value) in self.list(spec, "results") {
            let object = self.object(value, at, &["name", "type", "description", "properties"]);
            let name = self.name(&object);
            let keys = self.properties(&object);
            let implied = if keys.is_empty() { Kind::Text } else { Kind::Map };
            let kind = self.kind(&object).unwrap_or(implied);
            if results.insert(name.clone(), kind).is_some() {
                self.invalid(&object.at, format!("result {name:?} is declared twice"));
            }
        }
        results
    }

    fn task_workspaces(
        &mut self,
        task: &Object<'_>,
        spec: &Object<'_>,
        steps: &[Step],
        pipeline: &BTreeMap<String, Option<Binding>>,
    ) -> BTreeMap<String, TaskWorkspace> {
        let mut bound = BTreeMap::new();
        for (at, value) in self.list(task, "workspaces") {
            let object = self.object(value, at, &["name", "workspace", "subPath"]);
            let name = self.label(&object, "name");
            let from = self.text(&object, "workspace").unwrap_or_else(|| name.clone());
            if !pipeline.contains_key(&from) {
                self.invalid(&object.at, format!("the pipeline has no workspace {from:?}"));
            }
            let sub_path = self.text(&object, "subPath").filter(|path| !path.is_empty());
            let sub_path = sub_path.and_then(|path| self.template(&object.at("subPath"), &path));
            if bound.insert(name.clone(), (from, sub_path)).is_some() {
                self.invalid(&object.at, format!("workspace {name:?} is bound twice"));
            }
        }
        let mut workspaces = BTreeMap::new();
        for (at, value) in self.list(spec, "workspaces") {
            let object = self.object(value, at, &["name", "description", "optional", "readOnly"]);
            let name = self.label(&object, "name");
            let (optional, read_only) =
                (self.boolean(&object, "optional"), self.boolean(&object, "readOnly"));
            // Tekton propagates workspaces of the run into embedded tasks by name.
            let (from, sub_path) = bound.remove(&name).unwrap_or((name.clone(), None));
            let is_bound = pipeline.get(&from).is_some_and(Option::is_some);
            if !is_bound && !optional {
                self.invalid(&object.at, format!("workspace {name:?} is not bound"));
            }
            let pipeline_workspace = is_bound.then_some(from);
            workspaces.insert(name, TaskWorkspace { pipeline_workspace, sub_path, read_only });
        }
        for (name, (from, sub_path)) in bound {
            let is_bound = pipeline.get(&from).is_some_and(Option::is_some);
            let pipeline_workspace = is_bound.then_some(from);
            let workspace = TaskWorkspace { pipeline_workspace, sub_path, read_only: false };
            workspaces.insert(name, workspace);
        }
        let used = steps.iter().flat_map(Step::templates).flat_map(Template::variables);
        for variable in used {
            if let Subject::WorkspacePath(name) | Subject::WorkspaceBound(name) = &variable.subject
                && !workspaces.contains_key(name)
                && let Some(binding) = pipeline.get(name)
            {
                let pipeline_workspace = binding.is_some().then(|| name.clone());
                let workspace =
                    TaskWorkspace { pipeline_workspace, sub_path: None, read_only: false };
                workspaces.insert(name.clone(), workspace);
            }
        }
        workspaces
    }

    fn steps(&mut self, spec: &Object<'_>) -> Vec<Step> {
        let items = self.list(spec, "steps");
        if items.is_empty() || items.len() > MOST_STEPS {
            self.invalid(&spec.at("steps"), format!("a task has 1 to {MOST_STEPS} steps"));
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        let mut steps = Vec::new();
        for (index, (at, value)) in items.into_iter().enumerate() {
            if let Some(step) = self.step(index, at.clone(), value) {
                if !names.insert(step.name.clone()) {
                    self.invalid(&at, format!("two steps are called {:?}", step.name));
                }
                steps.push(step);
            }
        }
        steps
    }

    fn step(&mut self, index: usize, at: String, value: &Value) -> Option<Step> {
        let step = self.object(
            value,
            at,
            &[
                "name",
                "displayName",
                "image",
                "imagePullPolicy",
                "script",
                "command",
                "args",
                "env",
                "workingDir",
            ],
        );
        let name = match step.get("name") {
            Some(_) => self.label(&step, "name"),
            // Tekton's name for it: <https://tekton.dev/docs/pipelines/tasks/#defining-steps>.
            None => format!("unnamed-{index}"),
        };
        let script = self.text(&step, "script").filter(|script| !script.trim().is_empty());
        let script = match script {
            Some(text) => Some(self.script(&step.at("script"), &text)?),
            None => None,
        };
        let command = self.arguments(&step, "command");
        let args = self.arguments(&step, "args");
        if script.is_some() && !command.is_empty() {
            self.invalid(&step.at, "a step has a script or a command, not both");
        }
        if script.is_none() && command.is_empty() {
            self.invalid(&step.at, "it needs a script or a command, for images are not used");
        }
        let mut env = Vec::new();
        for (at, value) in self.list(&step, "env") {
            let object = self.object(value, at, &["name", "value"]);
            let name = self.text(&object, "name").unwrap_or_default();
            let mut characters = name.chars();
            let starts = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !starts || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.unsupported(
                    &object.at("name"),
                    "a process of this machine has names of letters, digits and '_'",
                );
            }
            if name == STEP_MARKER {
                self.invalid(&object.at("name"), "the local sink sets this variable itself");
            }
            let json = object.get("value").cloned().unwrap_or_else(|| "".into());
            let at = object.at("value");
            let template = scalar(&json).and_then(|text| Template::parse_argument(&text));
            env.push((name, self.ok(&at, template)?));
        }
        let working_dir = self.text(&step, "workingDir").filter(|path| !path.is_empty());
        let working_dir = working_dir.and_then(|path| self.template(&step.at("workingDir"), &path));
        Some(Step { name, script, command, args, env, working_dir })
    }

    fn arguments(&mut self, step: &Object<'_>, name: &str) -> Vec<Template> {
        let items = self.list(step, name);
        items
            .into_iter()
            .filter_map(|(at, value)| {
                let template = scalar(value).and_then(|text| Template::parse_argument(&text));
                self.ok(&at, template)
            })
            .collect()
    }

    /// A script. Without an interpreter line it is Tekton's default: `#!/bin/sh` and `set -e`.
    fn script(&mut self, at: &str, text: &str) -> Option<Script> {
        let trimmed = text.trim_start();
        let Some(rest) = trimmed.strip_prefix("#!") else {
            let text = self.template(at, &format!("#!/bin/sh\nset -e\n{text}"))?;
            return Some(Script { interpreter: vec!["/bin/sh".into()], text });
        };
        let line = rest.lines().next().unwrap_or_default().trim();
        let (program, argument) = match line.split_once([' ', '\t']) {
            Some((program, argument)) => (program, Some(argument.trim())),
            None => (line, None),
        };
        if !program.starts_with('/') || program.contains("$(") {
            self.invalid(at, "the interpreter line needs an absolute path");
            return None;
        }
        let mut interpreter = vec![program.to_owned()];
        interpreter.extend(argument.map(str::to_owned));
        Some(Script { interpreter, text: self.template(at, trimmed)? })
    }

    fn pipeline_results(&mut self, pipeline: &Object<'_>) -> Vec<(String, ValueTemplate)> {
        let mut results = Vec::new();
        for (at, value) in self.list(pipeline, "results") {
            let object = self.object(value, at, &["name", "type", "value", "description"]);
            let name = self.name(&object);
            self.kind(&object);
            let json = object.get("value").unwrap_or(&Value::Null);
            if let Some(template) = self.ok(&object.at("value"), ValueTemplate::parse(json)) {
                results.push((name, template));
            }
        }
        results
    }

    /// Checks that each variable exists where it is used and has a type that fits.
    fn check(&mut self, pipeline: &Pipeline) {
        for (index, task) in pipeline.tasks.iter().enumerate() {
            let in_finally = index >= pipeline.finally_from;
            let at = format!("task {}", task.name);
            let outer = PipelineDeclarations { pipeline, in_finally };
            let mut params: BTreeMap<&str, Kind> =
                task.defaults.iter().map(|(name, value)| (name.as_str(), value.kind())).collect();
            for (name, template) in &task.params {
                match template.check(&outer) {
                    Ok(kind) => {
                        let declared = params.insert(name, kind);
                        if declared.is_some_and(|declared| declared != kind)
                            && task.defaults.contains_key(name)
                            && !pipeline.params.contains_key(name)
                        {
                            self.invalid(&at, format!("parameter {name:?} is of another type"));
                        }
                    }
                    Err(wrong) => self.invalid(&format!("{at}: parameter {name:?}"), wrong),
                }
            }
            for when in &task.when {
                let checked = when.input.check_text(&outer).and_then(|()| {
                    when.values.iter().try_for_each(|value| value.check_element(&outer))
                });
                self.ok(&format!("{at}: when"), checked);
            }
            for (name, workspace) in &task.workspaces {
                if let Some(sub_path) = &workspace.sub_path {
                    self.ok(&format!("{at}: workspace {name}"), sub_path.check_text(&outer));
                }
            }
            let inner = TaskDeclarations { task, params, outer };
            for step in &task.steps {
                self.ok(&format!("{at}: step {}", step.name), step.check(&inner));
            }
        }
        let outer = PipelineDeclarations { pipeline, in_finally: false };
        for (name, template) in &pipeline.results {
            let checked = template.check(&outer).map(|_| ());
            self.ok(&format!("result {name}"), checked);
        }
    }
}

struct Declaration {
    at: String,
    name: String,
    kind: Kind,
    keys: BTreeSet<String>,
    default: Option<ParamValue>,
}

impl Step {
    fn templates(&self) -> impl Iterator<Item = &Template> {
        self.script
            .iter()
            .map(|script| &script.text)
            .chain(&self.command)
            .chain(&self.args)
            .chain(self.env.iter().map(|(_, template)| template))
            .chain(&self.working_dir)
    }

    fn check(&self, declared: &dyn Declared) -> Result<(), String> {
        let texts = self.script.iter().map(|script| &script.text);
        texts
            .chain(self.env.iter().map(|(_, template)| template))
            .chain(&self.working_dir)
            .try_for_each(|template| template.check_text(declared))?;
        self.command
            .iter()
            .chain(&self.args)
            .try_for_each(|template| template.check_element(declared))
    }
}

impl Task {
    /// Every variable in it.
    pub(super) fn variables(&self) -> impl Iterator<Item = &Variable> {
        let params = self.params.values().flat_map(ValueTemplate::templates);
        let when =
            self.when.iter().flat_map(|when| std::iter::once(&when.input).chain(&when.values));
        let sub_paths =
            self.workspaces.values().filter_map(|workspace| workspace.sub_path.as_ref());
        let steps = self.steps.iter().flat_map(Step::templates);
        params.chain(when).chain(sub_paths).chain(steps).flat_map(Template::variables)
    }
}

/// What a pipeline's own fields can refer to.
struct PipelineDeclarations<'a> {
    pipeline: &'a Pipeline,
    in_finally: bool,
}

impl Declared for PipelineDeclarations<'_> {
    fn kind(&self, subject: &Subject) -> Result<Kind, String> {
        let tasks = &self.pipeline.tasks[..self.pipeline.finally_from];
        let is_task = |name: &str| tasks.iter().any(|task| task.name == name);
        match subject {
            Subject::Param(name) => match self.pipeline.params.get(name) {
                Some(value) => Ok(value.kind()),
                None => Err("the pipeline has no such parameter".into()),
            },
            Subject::TaskResult { task, result } => tasks
                .iter()
                .find(|known| known.name == *task)
                .ok_or("there is no such task")?
                .results
                .get(result)
                .copied()
                .ok_or_else(|| "the task declares no such result".into()),
            Subject::TaskStatus(task) if self.in_finally && is_task(task) => Ok(Kind::Text),
            Subject::TaskStatus(_) if self.in_finally => Err("there is no such task".into()),
            Subject::AllTasksStatus if self.in_finally => Ok(Kind::Text),
            Subject::TaskStatus(_) | Subject::AllTasksStatus => {
                Err("it is known only in finally".into())
            }
            Subject::WorkspaceBound(name) if self.pipeline.workspaces.contains_key(name) => {
                Ok(Kind::Text)
            }
            Subject::Context(name) if PIPELINE_CONTEXT.contains(&name.as_str()) => Ok(Kind::Text),
            _ => Err("there is no such variable here".into()),
        }
    }
}

const PIPELINE_CONTEXT: [&str; 5] = [
    "pipelineRun.name",
    "pipelineRun.uid",
    "pipelineRun.namespace",
    "pipeline.name",
    "pipelineTask.retries",
];
const TASK_CONTEXT: [&str; 5] =
    ["task.name", "task.retry-count", "taskRun.name", "taskRun.namespace", "pipelineTask.retries"];

/// What the steps of a task can refer to: the task's own, and what Tekton propagates from the
/// pipeline into an embedded task.
struct TaskDeclarations<'a> {
    task: &'a Task,
    params: BTreeMap<&'a str, Kind>,
    outer: PipelineDeclarations<'a>,
}

impl Declared for TaskDeclarations<'_> {
    fn kind(&self, subject: &Subject) -> Result<Kind, String> {
        match subject {
            Subject::Param(name) => match self.params.get(name.as_str()) {
                Some(kind) => Ok(*kind),
                None => Err("the task has no such parameter".into()),
            },
            Subject::WorkspacePath(name) | Subject::WorkspaceBound(name) => {
                match self.task.workspaces.contains_key(name) {
                    true => Ok(Kind::Text),
                    false => Err("the task has no such workspace".into()),
                }
            }
            Subject::ResultPath(name) => match self.task.results.contains_key(name) {
                true => Ok(Kind::Text),
                false => Err("the task declares no such result".into()),
            },
            Subject::Context(name) if TASK_CONTEXT.contains(&name.as_str()) => Ok(Kind::Text),
            Subject::Environment(_) => Ok(Kind::Text),
            other => self.outer.kind(other),
        }
    }
}

/// A path below a directory.
pub(super) fn relative(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    let stays = path.components().all(|component| {
        matches!(component, std::path::Component::Normal(_) | std::path::Component::CurDir)
    });
    match stays {
        true => Ok(path),
        false => Err("expected a relative path without '..'".into()),
    }
}

/// Whether a text is a DNS-1123 label.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(outer)
        && text.ends_with(outer)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
