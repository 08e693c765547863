//! From a workflow and an event to the run: [`LoadedWorkflow::pipeline_run`] and
//! [`LoadedWorkflow::groups`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    document::{Param, Workflow},
    load::{DocumentPlace, LoadedWorkflow, SELF, TektonObject},
    param_set::ParamSet,
    problem::{Problem, shown},
    reference::{never_has, ours_in},
    substitute::{Refusal, Scope, Source, Template, Values},
    validate::{ParamShape, check_against_pipeline},
};
use crate::{Error, GroupKey, Result, WorkflowId, run::GroupMembership};

/// Everything of a workflow that holds references, taken apart.
#[derive(Debug)]
pub(super) struct Templates {
    /// The parameters of triggers that have none of their own.
    shared: ParamSet,
    /// The parameters of those that have, by the trigger's index.
    own: BTreeMap<usize, ParamSet>,
    resolver_params: Box<[(Box<str>, Template)]>,
    workspaces: Box<[Template]>,
    groups: Box<[Template]>,
}

impl Templates {
    /// Takes a workflow's templates apart, and tells what is wrong with them.
    pub(super) fn compile(
        workflow: &Workflow,
        place: DocumentPlace,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let spec = &workflow.spec;
        let mut repos: Vec<&str> = spec.repos.iter().map(|repo| &*repo.name).collect();
        if place == DocumentPlace::Repository {
            repos.push(SELF);
        }
        let mut found = Vec::new();
        let common: Vec<(String, &Param)> = (0..)
            .zip(&spec.params)
            .map(|(index, param): (usize, _)| (format!("spec.params[{index}]"), param))
            .collect();
        let mut shared_problems = Vec::new();
        let shared = ParamSet::compile(&common, &repos, &mut shared_problems);
        let mut own = BTreeMap::new();
        let mut shapes: BTreeMap<&str, ParamShape> = BTreeMap::new();
        for (index, trigger) in spec.triggers.iter().enumerate() {
            let mut all = common.clone();
            for (at, param) in trigger.params.iter().enumerate() {
                let field = format!("spec.triggers[{index}].params[{at}]");
                match all.iter_mut().find(|(_, other)| other.name == param.name) {
                    Some(place) => *place = (field, param),
                    None => all.push((field, param)),
                }
            }
            let set = if trigger.params.is_empty() {
                found.append(&mut shared_problems);
                &shared
            } else {
                let set = ParamSet::compile(&all, &repos, &mut found);
                own.entry(index).or_insert(set)
            };
            for (at, references) in set.required() {
                for reference in references {
                    if never_has(&trigger.on, reference) {
                        found.push(
                            Problem::at(
                                format!("{}.value", all[at].0),
                                format!(
                                    "events of the trigger {} (on: {}) never have {reference}",
                                    shown(&trigger.name),
                                    trigger.on
                                ),
                            )
                            .help("give the parameter a default, or the trigger params of its own"),
                        );
                    }
                }
            }
            for (_, param) in &all {
                let shape = param.value.as_ref().or(param.default.as_ref());
                let shape = shape.and_then(ParamShape::of).unwrap_or(ParamShape::Open);
                shapes
                    .entry(&param.name)
                    .and_modify(|known| {
                        if *known != shape {
                            *known = ParamShape::Open;
                        }
                    })
                    .or_insert(shape);
            }
        }
        let scope = Scope { repos, params: shapes };
        let resolver_params = spec.pipeline_ref.iter().flat_map(|reference| &reference.params);
        let resolver_params = (0..)
            .zip(resolver_params)
            .map(|(index, param): (usize, _)| {
                let field = format!("spec.pipelineRef.params[{index}].value");
                let template = Template::compile(&field, &param.value, &scope, &mut found);
                (param.name.as_str().into(), template)
            })
            .collect();
        let workspaces = (0..)
            .zip(&spec.workspaces)
            .map(|(index, workspace): (usize, _)| {
                let field = format!("spec.workspaces[{index}]");
                Template::compile(&field, workspace, &scope, &mut found)
            })
            .collect();
        let groups = (0..)
            .zip(&spec.concurrency)
            .map(|(index, group): (usize, _)| {
                let field = format!("spec.concurrency[{index}].group");
                let template = Template::compile_text(&field, &group.group, &scope, &mut found);
                if matches!(template, Template::All(_)) {
                    found.push(Problem::at(field, "a list cannot be a group's key"));
                }
                template
            })
            .collect();
        for (name, value) in
            [("pipelineSpec", &spec.pipeline_spec), ("podTemplate", &spec.pod_template)]
        {
            if let Some(value) = value {
                ours_in_tekton(&format!("spec.{name}"), value, &mut found);
            }
        }
        for (index, value) in spec.task_run_specs.iter().enumerate() {
            ours_in_tekton(&format!("spec.taskRunSpecs[{index}]"), value, &mut found);
        }
        // A parameter that several triggers use is compiled, and wrong, once for each of them.
        let mut seen = BTreeSet::new();
        found.retain(|problem| seen.insert((problem.field.clone(), problem.message.clone())));
        problems.append(&mut found);
        Self { shared, own, resolver_params, workspaces, groups }
    }
}

/// Tells references of ours in a part of the document that is Tekton's.
fn ours_in_tekton(field: &str, value: &Value, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) => {
            for name in ours_in(text) {
                problems.push(
                    Problem::at(field, format!("`$({name})` is not substituted here")).help(
                        format!(
                            "pass it as a parameter: `{{ name: x, value: $({name}) }}` in \
                             spec.params, and $(params.x) here"
                        ),
                    ),
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                ours_in_tekton(&format!("{field}[{index}]"), item, problems);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                ours_in_tekton(&format!("{field}.{name}"), value, problems);
            }
        }
        _ => {}
    }
}

/// The Pipeline that `pipelineRef.path` leads to, and the Tasks that stand beside it.
#[derive(Debug, Clone, Copy)]
pub struct PipelineFile<'a> {
    /// The Pipeline.
    pub pipeline: &'a TektonObject,
    /// Tasks: where the pipeline refers to one of them by name, it is put in its place.
    pub tasks: &'a [TektonObject],
}

impl LoadedWorkflow {
    /// The `tekton.dev/v1` PipelineRun of a trigger's run, without a name and without a namespace.
    ///
    /// `file` is given when the workflow's `pipelineRef` has a `path`. A task of the pipeline that
    /// names a Task which is not among the given ones stays a reference to one in the cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), for good: the event has no value for a
    /// reference whose parameter has no default; a value is no string where one is needed, or would
    /// become a variable of Tekton's; the pipeline asks for parameters or workspaces that the
    /// workflow does not give.
    pub fn pipeline_run(
        &self,
        trigger: &str,
        values: &Values<'_>,
        file: Option<PipelineFile<'_>>,
    ) -> Result<Value> {
        let (source, set) = self.resolve(trigger, values)?;
        let spec = &self.workflow.spec;
        let metadata = &self.workflow.metadata;
        let templates = &self.templates;
        let mut run = Map::new();
        if let Some(pipeline) = &spec.pipeline_spec {
            run.insert("pipelineSpec".into(), pipeline.clone());
        } else if let Some(reference) = &spec.pipeline_ref {
            if let Some(path) = &reference.path {
                let Some(file) = file else {
                    return Err(Error::invalid(
                        "render the run",
                        "the file holds no Pipeline of tekton.dev/v1",
                    )
                    .with("path", path));
                };
                self.check_file(path, file, &source)?;
                run.insert("pipelineSpec".into(), with_tasks(file));
            } else if let Some(resolver) = &reference.resolver {
                let mut params = Vec::new();
                for (name, template) in &templates.resolver_params {
                    let value = template.render(&source).map_err(|refusal| {
                        refusal.into_error("pipelineRef.params").with("param", name)
                    })?;
                    params.push(json!({"name": name, "value": value}));
                }
                run.insert("pipelineRef".into(), json!({"resolver": resolver, "params": params}));
            } else {
                run.insert("pipelineRef".into(), json!({"name": reference.name}));
            }
        }
        let params: Vec<Value> = set
            .names()
            .filter_map(|name| Some(json!({"name": name, "value": source.params.get(name)?})))
            .collect();
        insert_list(&mut run, "params", params);
        let mut workspaces = Vec::new();
        for template in &templates.workspaces {
            let rendered = template.render(&source);
            workspaces.push(rendered.map_err(|refusal| refusal.into_error("workspaces"))?);
        }
        insert_list(&mut run, "workspaces", workspaces);
        let mut task_run_template = Map::new();
        if let Some(account) = &spec.service_account_name {
            task_run_template.insert("serviceAccountName".into(), account.as_str().into());
        }
        if let Some(template) = &spec.pod_template {
            task_run_template.insert("podTemplate".into(), template.clone());
        }
        if !task_run_template.is_empty() {
            run.insert("taskRunTemplate".into(), task_run_template.into());
        }
        insert_list(&mut run, "taskRunSpecs", spec.task_run_specs.clone());
        if let Some(timeouts) = &spec.timeouts {
            let timeouts: Map<String, Value> = [
                ("pipeline", &timeouts.pipeline),
                ("tasks", &timeouts.tasks),
                ("finally", &timeouts.finally),
            ]
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?.into())))
            .collect();
            if !timeouts.is_empty() {
                run.insert("timeouts".into(), timeouts.into());
            }
        }
        Ok(json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": {"labels": metadata.labels, "annotations": metadata.annotations},
            "spec": run,
        }))
    }

    /// The concurrency groups of a trigger's run, in the order of their keys.
    ///
    /// A group whose key refers to something that the event does not have is left out. Of two groups
    /// with the same key the first of the document counts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the parameters cannot be rendered, or a
    /// key is longer than 1,000 bytes.
    pub fn groups(
        &self,
        id: &WorkflowId,
        trigger: &str,
        values: &Values<'_>,
    ) -> Result<Vec<GroupMembership>> {
        const LONGEST: usize = 1_000;
        let groups = &self.workflow.spec.concurrency;
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let (source, _) = self.resolve(trigger, values)?;
        let mut memberships: Vec<GroupMembership> = Vec::new();
        for (group, template) in groups.iter().zip(&self.templates.groups) {
            let key = match template.render_key(&source) {
                Ok(key) => key,
                Err(Refusal::NoValue(_)) => continue,
                Err(refusal) => return Err(refusal.into_error("concurrency")),
            };
            if key.len() > LONGEST {
                return Err(Error::invalid(
                    "render the run",
                    format!("the key of a concurrency group has at most {LONGEST} bytes"),
                )
                .with("group", &group.group));
            }
            let key = match group.shared {
                true => format!("shared/{key}"),
                false => format!("workflow/{id}/{key}"),
            };
            let group_key = GroupKey::new(key);
            if memberships.iter().all(|other| other.group != group_key) {
                memberships
                    .push(GroupMembership { group: group_key, strategy: group.strategy.clone() });
            }
        }
        memberships.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(memberships)
    }

    /// The values with the trigger's parameters rendered.
    fn resolve<'a>(
        &'a self,
        trigger: &'a str,
        values: &'a Values<'a>,
    ) -> Result<(Source<'a>, &'a ParamSet)> {
        let triggers = &self.workflow.spec.triggers;
        let Some(index) = triggers.iter().position(|one| &*one.name == trigger) else {
            return Err(Error::not_found("render the run", "the workflow has no such trigger")
                .with("trigger", shown(trigger)));
        };
        let set = self.templates.own.get(&index).unwrap_or(&self.templates.shared);
        let mut source = Source::new(values, self.name(), trigger);
        set.render(&mut source)?;
        Ok((source, set))
    }

    fn check_file(&self, path: &str, file: PipelineFile<'_>, source: &Source<'_>) -> Result<()> {
        let given: BTreeMap<&str, ParamShape> = source
            .params
            .iter()
            .map(|(name, value)| {
                let shape = match value {
                    Value::Array(_) => ParamShape::Array,
                    Value::Object(_) => ParamShape::Object,
                    _ => ParamShape::String,
                };
                (&**name, shape)
            })
            .collect();
        let workspaces = &self.workflow.spec.workspaces;
        let workspaces =
            workspaces.iter().filter_map(|one| one.get("name").and_then(Value::as_str)).collect();
        let spec = file.pipeline.spec();
        let mut problems = check_against_pipeline(spec, &given, &workspaces);
        ours_in_tekton("spec", spec, &mut problems);
        let Some((problem, others)) = problems.split_first() else { return Ok(()) };
        let mut error = Error::invalid("render the run", &problem.message);
        error = error.with("field", &problem.field).with("pipeline", path);
        if let Some(remedy) = &problem.remedy {
            error = error.with("remedy", remedy);
        }
        for problem in others.iter().take(MOST_TOLD) {
            error = error.with("and", format!("{}: {}", problem.field, problem.message));
        }
        if others.len() > MOST_TOLD {
            error = error.with("and", format!("{} more", others.len() - MOST_TOLD));
        }
        Err(error)
    }
}

/// So many problems of a Pipeline are told besides the first.
const MOST_TOLD: usize = 9;

fn insert_list(run: &mut Map<String, Value>, name: &str, items: Vec<Value>) {
    if !items.is_empty() {
        run.insert(name.into(), items.into());
    }
}

/// The Pipeline's spec with the given Tasks in the place of references to them.
fn with_tasks(file: PipelineFile<'_>) -> Value {
    let mut spec = file.pipeline.spec().clone();
    for list in ["tasks", "finally"] {
        let Some(Value::Array(tasks)) = spec.get_mut(list) else { continue };
        for task in tasks.iter_mut().filter_map(Value::as_object_mut) {
            let Some(found) =
                task.get("taskRef").and_then(|reference| named_task(reference, file.tasks))
            else {
                continue;
            };
            let mut embedded = found.spec().clone();
            if let (Value::Object(embedded), Some(metadata)) =
                (&mut embedded, found.value.get("metadata"))
            {
                let kept: Map<String, Value> = ["labels", "annotations"]
                    .into_iter()
                    .filter_map(|name| Some((name.to_owned(), metadata.get(name)?.clone())))
                    .collect();
                if !kept.is_empty() {
                    embedded.insert("metadata".into(), kept.into());
                }
            }
            task.remove("taskRef");
            task.insert("taskSpec".into(), embedded);
        }
    }
    spec
}

/// The Task that a reference means, when it is one of these: by name, and neither through a resolver
/// nor of another kind.
fn named_task<'a>(reference: &Value, tasks: &'a [TektonObject]) -> Option<&'a TektonObject> {
    let text = |name: &str| reference.get(name).and_then(Value::as_str);
    let plain = text("resolver").is_none()
        && text("kind").is_none_or(|kind| kind == "Task")
        && text("apiVersion").is_none_or(|version| version.starts_with("tekton.dev/"));
    let name = text("name")?;
    tasks.iter().find(|task| plain && &*task.name == name)
}

#[cfg(test)]
mod tests;
