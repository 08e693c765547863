//! The rules of what a run is made of: pipeline, parameters, workspaces, per-task settings, timeouts.
//!
//! They are Tekton's own (<https://tekton.dev/docs/pipelines/pipelineruns/>), checked here so that a
//! mistake shows in the document and not in a run that cannot start.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Problems, names, text_of};
use crate::workflow::{
    decode::describe,
    document::{Param, PipelineRef, Timeouts, WorkflowSpec},
    duration::parse_duration,
    load::SELF,
    param_set::implied_names,
    problem::{Problem, did_you_mean, shown},
};

/// What kind of value a parameter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParamShape {
    /// A string.
    String,
    /// An array of strings.
    Array,
    /// An object of strings.
    Object,
    /// It depends on the event.
    Open,
}

impl ParamShape {
    /// The kind of a value as it is written; `$(...[*])` alone can become an array or an object.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.starts_with("$(") && text.ends_with("[*])") => {
                Some(Self::Open)
            }
            Value::String(_) => Some(Self::String),
            Value::Array(items) if items.iter().all(Value::is_string) => Some(Self::Array),
            Value::Object(fields) if fields.values().all(Value::is_string) => Some(Self::Object),
            _ => None,
        }
    }

    fn fits(self, other: Self) -> bool {
        self == other || self == Self::Open || other == Self::Open
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::Open => "what the event has",
        }
    }
}

pub(super) fn check(spec: &WorkflowSpec, problems: &mut Problems) {
    let shapes = params("spec.params", &spec.params, problems);
    for (index, trigger) in spec.triggers.iter().enumerate() {
        params(&format!("spec.triggers[{index}].params"), &trigger.params, problems);
    }
    let workspaces = workspaces(&spec.workspaces, problems);
    task_run_specs(&spec.task_run_specs, problems);
    if let Some(timeouts) = &spec.timeouts {
        self::timeouts(timeouts, problems);
    }
    if let Some(account) = &spec.service_account_name {
        problems.literal("spec.serviceAccountName", account);
        if !account.contains("$(") && !names::is_subdomain(account, 253) {
            problems.add_with(
                "spec.serviceAccountName",
                format!("{} cannot be a service account's name", shown(account)),
                names::SUBDOMAIN,
            );
        }
    }
    if let Some(template) = &spec.pod_template
        && !template.is_object()
    {
        problems
            .add("spec.podTemplate", format!("expected a mapping, found {}", describe(template)));
    }
    match (&spec.pipeline_ref, &spec.pipeline_spec) {
        (Some(reference), None) => pipeline_ref(reference, spec, problems),
        (None, Some(pipeline)) => {
            if let Some(tasks) = pipeline.get("tasks").and_then(Value::as_array)
                && !tasks.is_empty()
            {
                let mut given = shapes;
                for param in spec.triggers.iter().flat_map(|trigger| &trigger.params) {
                    given.entry(&param.name).or_insert(ParamShape::Open);
                }
                let found = check_against_pipeline(pipeline, &given, &workspaces);
                problems.0.extend(found);
            } else {
                problems.add_with(
                    "spec.pipelineSpec",
                    "the pipeline has no tasks",
                    "a Tekton PipelineSpec with a list `tasks`",
                );
            }
        }
        (Some(_), Some(_)) => problems.add_with(
            "spec.pipelineSpec",
            "`pipelineRef` and `pipelineSpec` exclude each other",
            "keep one of them",
        ),
        (None, None) => problems.add_with(
            "spec",
            "nothing says which pipeline to run",
            "add `pipelineRef: { path: .tekton/<file>.yaml }` or a `pipelineSpec`",
        ),
    }
}

/// What a pipeline asks for and does not get: parameters without a default, and workspaces that are
/// not optional.
pub(crate) fn check_against_pipeline(
    pipeline: &Value,
    params: &BTreeMap<&str, ParamShape>,
    workspaces: &BTreeSet<&str>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let list = |name: &str| pipeline.get(name).and_then(Value::as_array).into_iter().flatten();
    for declared in list("params") {
        let Some(name) = text_of(declared, "name") else { continue };
        let wanted = match text_of(declared, "type") {
            Some("array") => ParamShape::Array,
            Some("object") => ParamShape::Object,
            Some(_) => ParamShape::String,
            None => declared.get("default").and_then(ParamShape::of).unwrap_or(ParamShape::String),
        };
        match params.get(name) {
            None if declared.get("default").is_none() => problems.push(
                Problem::at(
                    "spec.params",
                    format!("the pipeline needs a parameter {}", shown(name)),
                )
                .help(format!("add `{{ name: {name}, value: ... }}`")),
            ),
            Some(given) if !given.fits(wanted) => problems.push(Problem::at(
                "spec.params",
                format!(
                    "the pipeline's parameter {} is {}, and the workflow gives {}",
                    shown(name),
                    wanted.name(),
                    given.name()
                ),
            )),
            _ => {}
        }
    }
    for declared in list("workspaces") {
        let Some(name) = text_of(declared, "name") else { continue };
        let optional = declared.get("optional").and_then(Value::as_bool).unwrap_or_default();
        if !optional && !workspaces.contains(name) {
            problems.push(
                Problem::at(
                    "spec.workspaces",
                    format!("the pipeline needs a workspace {}", shown(name)),
                )
                .help(format!("add `{{ name: {name}, emptyDir: {{}} }}` or another binding")),
            );
        }
    }
    problems
}

fn params<'a>(
    field: &str,
    params: &'a [Param],
    problems: &mut Problems,
) -> BTreeMap<&'a str, ParamShape> {
    let mut shapes = BTreeMap::new();
    for (index, param) in params.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if !names::is_param(&param.name) {
            problems.add_with(
                format!("{field}.name"),
                format!("{} cannot be a parameter's name", shown(&param.name)),
                "letters, digits, '-', '_' and '.', beginning with a letter or '_'",
            );
        }
        let value = param
            .value
            .as_ref()
            .and_then(|value| shape(&format!("{field}.value"), value, problems));
        let default = param
            .default
            .as_ref()
            .and_then(|value| shape(&format!("{field}.default"), value, problems));
        let says_itself = implied_names().any(|name| name == &*param.name);
        if param.value.is_none() && param.default.is_none() && !says_itself {
            let names: Vec<&str> = implied_names().collect();
            problems.add_with(
                &field,
                format!("the parameter {} has neither a value nor a default", shown(&param.name)),
                format!(
                    "add `value`, such as $(event.head.sha); or `default`, which a caller's \
                     parameter of that name replaces; without either, only {} are known",
                    names.join(", ")
                ),
            );
        }
        if let (Some(value), Some(default)) = (value, default)
            && !value.fits(default)
        {
            problems.add(
                format!("{field}.default"),
                format!("the value is {}, and the default {}", value.name(), default.name()),
            );
        }
        let known = value.or(default).unwrap_or(ParamShape::Open);
        if shapes.insert(&*param.name, known).is_some() {
            problems.add_with(
                format!("{field}.name"),
                format!("another parameter is named {}", shown(&param.name)),
                "rename one of them",
            );
        }
    }
    shapes
}

fn shape(field: &str, value: &Value, problems: &mut Problems) -> Option<ParamShape> {
    let shape = ParamShape::of(value);
    if shape.is_none() {
        let (field, wrong) = match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find(|(_, item)| !item.is_string())
                .map_or((field.to_owned(), value), |(index, item)| {
                    (format!("{field}[{index}]"), item)
                }),
            Value::Object(fields) => fields
                .iter()
                .find(|(_, item)| !item.is_string())
                .map_or((field.to_owned(), value), |(name, item)| {
                    (format!("{field}.{name}"), item)
                }),
            _ => (field.to_owned(), value),
        };
        let help = match wrong {
            Value::Number(_) | Value::Bool(_) => format!("write it in quotes: \"{wrong}\""),
            _ => "a string, an array of strings or an object of strings".to_owned(),
        };
        problems.add_with(
            field,
            format!("a parameter's value is made of strings, and this is {}", describe(wrong)),
            help,
        );
    }
    shape
}

const VOLUMES: [&str; 7] = [
    "volumeClaimTemplate",
    "persistentVolumeClaim",
    "emptyDir",
    "configMap",
    "secret",
    "projected",
    "csi",
];

fn workspaces<'a>(workspaces: &'a [Value], problems: &mut Problems) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, workspace) in workspaces.iter().enumerate() {
        let field = format!("spec.workspaces[{index}]");
        let known: Vec<&str> = ["name", "subPath"].into_iter().chain(VOLUMES).collect();
        let Some(name) = named(&field, workspace, "name", &known, problems) else { continue };
        let volumes = VOLUMES.iter().filter(|volume| workspace.get(**volume).is_some()).count();
        if volumes != 1 {
            let message = format!("the workspace {} has {volumes} volumes", shown(name));
            problems.add_with(&field, message, format!("exactly one of {}", VOLUMES.join(", ")));
        }
        if !seen.insert(name) {
            problems.add(
                format!("{field}.name"),
                format!("another workspace is named {}", shown(name)),
            );
        }
    }
    seen
}

fn task_run_specs(specs: &[Value], problems: &mut Problems) {
    const KNOWN: [&str; 8] = [
        "pipelineTaskName",
        "serviceAccountName",
        "podTemplate",
        "stepSpecs",
        "sidecarSpecs",
        "metadata",
        "computeResources",
        "timeout",
    ];
    let mut seen = BTreeSet::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("spec.taskRunSpecs[{index}]");
        let Some(name) = named(&field, spec, "pipelineTaskName", &KNOWN, problems) else {
            continue;
        };
        if !seen.insert(name) {
            problems.add(
                format!("{field}.pipelineTaskName"),
                format!("another entry is for the task {}", shown(name)),
            );
        }
        if let Some(account) = text_of(spec, "serviceAccountName") {
            problems.literal(&format!("{field}.serviceAccountName"), account);
        }
        if let Some(timeout) = text_of(spec, "timeout") {
            go_duration(&format!("{field}.timeout"), timeout, problems);
        }
    }
}

/// The name of an entry that is a mapping with known fields.
fn named<'a>(
    field: &str,
    value: &'a Value,
    name: &str,
    known: &[&str],
    problems: &mut Problems,
) -> Option<&'a str> {
    let Value::Object(fields) = value else {
        problems.add(field, format!("expected a mapping, found {}", describe(value)));
        return None;
    };
    for other in fields.keys().filter(|other| !known.contains(&other.as_str())) {
        let meant = did_you_mean(other, known.iter().copied());
        problems.add_with(
            format!("{field}.{other}"),
            format!("unknown field {}{meant}", shown(other)),
            format!("known fields: {}", known.join(", ")),
        );
    }
    match fields.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        Some(other) => {
            let message = format!("expected a name, found {}", describe(other));
            problems.add(format!("{field}.{name}"), message);
            None
        }
        None => {
            problems.add(field, format!("the field `{name}` is missing"));
            None
        }
    }
}

fn timeouts(timeouts: &Timeouts, problems: &mut Problems) {
    let mut read = |name: &str, text: &Option<String>| {
        let text = text.as_ref()?;
        go_duration(&format!("spec.timeouts.{name}"), text, problems)
    };
    let pipeline = read("pipeline", &timeouts.pipeline);
    let tasks = read("tasks", &timeouts.tasks);
    let finally = read("finally", &timeouts.finally);
    let zero = jiff::SignedDuration::ZERO;
    if let Some(pipeline) = pipeline.filter(|pipeline| *pipeline > zero) {
        let parts = tasks.unwrap_or(zero).saturating_add(finally.unwrap_or(zero));
        if parts > pipeline {
            problems.add_with(
                "spec.timeouts.pipeline",
                "the timeouts of tasks and finally together are longer than the pipeline's",
                "make `pipeline` at least their sum",
            );
        }
        for (name, part) in [("tasks", tasks), ("finally", finally)] {
            if part == Some(zero) {
                problems.add_with(
                    format!("spec.timeouts.{name}"),
                    "no limit (0) is longer than the pipeline's timeout",
                    "leave it out, or set `pipeline: \"0\"` too",
                );
            }
        }
    }
}

/// A duration that Tekton reads itself: Go's syntax, in which there are no days.
fn go_duration(field: &str, text: &str, problems: &mut Problems) -> Option<jiff::SignedDuration> {
    match parse_duration(text) {
        Ok(_) if text.contains('d') => {
            problems.add_with(
                field,
                format!("{}: Tekton's durations have no days", shown(text)),
                "write hours, such as 24h",
            );
            None
        }
        Ok(duration) => Some(duration),
        Err(error) => {
            problems.add_with(field, error.message(), "write it as 90s, 30m or 1h30m");
            None
        }
    }
}

fn pipeline_ref(reference: &PipelineRef, spec: &WorkflowSpec, problems: &mut Problems) {
    const FIELD: &str = "spec.pipelineRef";
    let given: Vec<&str> = [
        ("path", reference.path.is_some()),
        ("name", reference.name.is_some()),
        ("resolver", reference.resolver.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    match given.as_slice() {
        [_] => {}
        [] => problems.add_with(
            FIELD,
            "it names no pipeline",
            "give one of path (a file in the repository), name (a Pipeline of the cluster) or \
             resolver",
        ),
        several => problems.add_with(
            FIELD,
            format!("{} exclude each other", several.join(" and ")),
            "keep one of them",
        ),
    }
    if let Some(path) = &reference.path {
        problems.literal(&format!("{FIELD}.path"), path);
        let inside = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        let yaml = path.ends_with(".yaml") || path.ends_with(".yml");
        if !inside || !yaml || path.contains(['\\', '\0']) || path.len() > 1_000 {
            problems.add_with(
                format!("{FIELD}.path"),
                format!("{} is no path of a YAML file in the repository", shown(path)),
                "from the repository's root, without `.` and `..`, such as .tekton/ci.yaml",
            );
        }
    }
    if let Some(repo) = &reference.repo {
        let known = || spec.repos.iter().map(|repo| &*repo.name);
        if reference.path.is_none() {
            problems.add(format!("{FIELD}.repo"), "`repo` has a meaning only with `path`");
        } else if &**repo != SELF && !known().any(|name| name == &**repo) {
            let names: Vec<&str> = known().collect();
            problems.add_with(
                format!("{FIELD}.repo"),
                format!("no repository is named {}{}", shown(repo), did_you_mean(repo, known())),
                format!("known repositories: {}", names.join(", ")),
            );
        }
    }
    if let Some(name) = &reference.name {
        problems.literal(&format!("{FIELD}.name"), name);
        if !name.contains("$(") && !names::is_subdomain(name, 253) {
            problems.add(
                format!("{FIELD}.name"),
                format!("{} cannot be a Pipeline's name", shown(name)),
            );
        }
    }
    if let Some(resolver) = &reference.resolver {
        problems.literal(&format!("{FIELD}.resolver"), resolver);
        if resolver.is_empty() {
            problems.add(format!("{FIELD}.resolver"), "a resolver has a name");
        }
    }
    if reference.resolver.is_none() && !reference.params.is_empty() {
        problems.add_with(
            format!("{FIELD}.params"),
            "these are the parameters of a resolver, and there is none",
            "parameters of the pipeline stand in spec.params",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, param) in reference.params.iter().enumerate() {
        let field = format!("{FIELD}.params[{index}]");
        shape(&format!("{field}.value"), &param.value, problems);
        if !seen.insert(&param.name) {
            problems.add(
                format!("{field}.name"),
                format!("another parameter is named {}", shown(&param.name)),
            );
        }
    }
}
