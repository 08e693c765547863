//! Whether each variable exists where it is used, and has a type that fits.

use std::collections::BTreeMap;

use super::{Pipeline, Step, Task, document::Reader};
use crate::local::variables::{Declared, Kind, Subject};

impl Reader<'_> {
    /// Checks that each variable exists where it is used and has a type that fits.
    pub(super) fn check(&mut self, pipeline: &Pipeline) {
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

impl Step {
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
