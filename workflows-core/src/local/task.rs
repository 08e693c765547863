//! One task: its attempts, and in each its steps, one after the other.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    files,
    log_limit::RunLogs,
    run_directory::{AttemptDirectory, AttemptRecord, RunDirectory, RunRecord},
    spec::{Binding, Pipeline, Step, Task, Volume, relative},
    step::{self, End, Plan},
    variables::{Kind, ParamValue, Scope, Subject, Template},
};
use crate::{
    SharedClock, Tenant,
    sink::{StepStatus, TaskPhase},
};

/// What the runs of a sink share.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) clock: SharedClock,
    /// How long processes have between being asked to end and being ended.
    pub(super) grace: SignedDuration,
    /// As many permits as steps may run at a time.
    pub(super) slots: Arc<Semaphore>,
    /// The environment that each step gets.
    pub(super) env: Vec<(String, String)>,
    /// In which control group those of the steps are made, where they can be.
    pub(super) groups: Option<PathBuf>,
}

/// That the running tasks of a section shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    TimedOut,
}

impl Stop {
    fn phase(self) -> TaskPhase {
        match self {
            Self::Cancelled => TaskPhase::Cancelled,
            Self::TimedOut => TaskPhase::TimedOut,
        }
    }
}

/// A run as its tasks see it.
#[derive(Debug)]
pub(super) struct RunContext {
    pub(super) record: RunRecord,
    pub(super) directory: RunDirectory,
    pub(super) pipeline: Pipeline,
    pub(super) machine: Arc<Machine>,
    pub(super) logs: Arc<RunLogs>,
    /// The slots of steps that were running when the sink was opened, by their directories.
    pub(super) adopted: Mutex<BTreeMap<PathBuf, OwnedSemaphorePermit>>,
}

/// What the steps of an attempt can refer to, and how far it is: what is told while it runs.
pub(super) trait Watcher: Send + Sync {
    /// The attempt has begun.
    fn began(&self, started_at: Timestamp);
    /// A step has ended with that code.
    fn step_ended(&self, step: usize, code: Option<i32>);
}

/// The pipeline's variables: parameters, results and states of tasks, the context.
pub(super) struct PipelineScope<'a> {
    pub(super) run: &'a RunContext,
    pub(super) retries: u32,
    /// Results of tasks that have ended, by task.
    pub(super) results: BTreeMap<String, BTreeMap<String, ParamValue>>,
    /// States of tasks for `finally`: `Succeeded`, `Failed` or `None`.
    pub(super) states: BTreeMap<String, &'static str>,
    pub(super) all_states: &'static str,
}

impl Scope for PipelineScope<'_> {
    fn value(&self, subject: &Subject) -> Result<Option<ParamValue>, String> {
        let run = self.run;
        let text = |text: &str| Ok(Some(ParamValue::Text(text.to_owned())));
        match subject {
            Subject::Param(name) => match run.pipeline.params.get(name) {
                Some(value) => Ok(Some(value.clone())),
                None => Err("the pipeline has no such parameter".into()),
            },
            Subject::TaskResult { task, result } => {
                match self.results.get(task).and_then(|results| results.get(result)) {
                    Some(value) => Ok(Some(value.clone())),
                    None => Err("the task has not written this result".into()),
                }
            }
            Subject::TaskStatus(task) => text(self.states.get(task).copied().unwrap_or("None")),
            Subject::AllTasksStatus => text(self.all_states),
            Subject::WorkspaceBound(name) => {
                let bound = run.pipeline.workspaces.get(name).is_some_and(Option::is_some);
                text(if bound { "true" } else { "false" })
            }
            Subject::Context(name) => match name.as_str() {
                // An embedded pipeline is called as its run.
                "pipelineRun.name" | "pipeline.name" => text(&run.record.name),
                "pipelineRun.uid" => text(&run.record.uid),
                "pipelineRun.namespace" | "taskRun.namespace" => {
                    text(namespace(&run.record.tenant))
                }
                "pipelineTask.retries" => text(&self.retries.to_string()),
                _ => Err("there is no such variable here".into()),
            },
            Subject::WorkspacePath(_) | Subject::ResultPath(_) | Subject::Environment(_) => {
                Err("there is no such variable here".into())
            }
        }
    }
}

fn namespace(tenant: &Tenant) -> &str {
    tenant.as_str()
}

struct TaskScope<'a> {
    outer: &'a PipelineScope<'a>,
    task: &'a Task,
    task_run: String,
    attempt: u32,
    params: BTreeMap<String, ParamValue>,
    workspaces: BTreeMap<String, Option<String>>,
    directory: &'a AttemptDirectory,
}

impl Scope for TaskScope<'_> {
    fn value(&self, subject: &Subject) -> Result<Option<ParamValue>, String> {
        let text = |text: String| Ok(Some(ParamValue::Text(text)));
        match subject {
            Subject::Param(name) => match self.params.get(name) {
                Some(value) => Ok(Some(value.clone())),
                None => Err("the task has no such parameter".into()),
            },
            Subject::WorkspacePath(name) => {
                text(self.workspaces.get(name).cloned().flatten().unwrap_or_default())
            }
            Subject::WorkspaceBound(name) => {
                text(self.workspaces.get(name).is_some_and(Option::is_some).to_string())
            }
            Subject::ResultPath(name) => text(path_text(&self.directory.result(name))?),
            Subject::Context(name) => match name.as_str() {
                "task.name" => text(self.task.name.clone()),
                "task.retry-count" => text(self.attempt.to_string()),
                "taskRun.name" => text(self.task_run.clone()),
                _ => self.outer.value(subject),
            },
            Subject::Environment(_) => Ok(None),
            other => self.outer.value(other),
        }
    }
}

/// The variables of a step: the task's and its environment.
struct StepScope<'a> {
    task: &'a TaskScope<'a>,
    env: &'a [(String, String)],
}

impl Scope for StepScope<'_> {
    fn value(&self, subject: &Subject) -> Result<Option<ParamValue>, String> {
        match subject {
            Subject::Environment(name) => {
                let known = self.env.iter().rev().find(|(known, _)| known == name);
                Ok(known.map(|(_, value)| ParamValue::Text(value.clone())))
            }
            other => self.task.value(other),
        }
    }
}

fn path_text(path: &std::path::Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{path:?} is not UTF-8"))
}

/// The name of a task's TaskRun: `<run>-<task>`, with a hash at its end when that is too long.
fn task_run_name(run: &str, task: &str) -> String {
    let name = format!("{run}-{task}");
    if name.len() <= 63 {
        return name;
    }
    format!("{}-{}", name[..52].trim_end_matches('-'), &crate::hash_of(&[run, task])[..10])
}

/// Runs a task to its end: attempt after attempt, taking up those of an earlier engine.
pub(super) async fn run(
    scope: &PipelineScope<'_>,
    task: &Task,
    mut stop: watch::Receiver<Option<Stop>>,
    watcher: &dyn Watcher,
) -> io::Result<AttemptRecord> {
    let mut number = 0;
    loop {
        let directory = scope.run.directory.attempt(&task.name, number);
        let known = directory.clone();
        let ended = match files::off_thread(move || known.ended()).await? {
            Some(ended) => ended,
            None => {
                let attempt = Attempt { scope, task, number, directory: &directory, watcher };
                let ended = attempt.run(&mut stop).await?;
                files::off_thread(move || directory.record_ended(&ended).map(|()| ended)).await?
            }
        };
        let stopped = stop.borrow().is_some();
        if !ended.may_be_tried_again() || stopped || number >= task.retries {
            return Ok(ended);
        }
        number += 1;
    }
}

struct Attempt<'a> {
    scope: &'a PipelineScope<'a>,
    task: &'a Task,
    number: u32,
    directory: &'a AttemptDirectory,
    watcher: &'a dyn Watcher,
}

/// Why a task's steps stop before their end.
#[derive(Clone, Copy)]
enum Halt {
    Section(Stop),
    OwnTimeout,
}

impl Attempt<'_> {
    async fn run(&self, stop: &mut watch::Receiver<Option<Stop>>) -> io::Result<AttemptRecord> {
        let run = self.scope.run;
        let clock = &run.machine.clock;
        let (directory, of, now) = (self.directory.clone(), run.directory.clone(), clock.now());
        let started_at = files::off_thread(move || directory.begin(&of, now)).await?.started_at;
        self.watcher.began(started_at);
        let steps = self.task.steps.iter();
        let mut record = AttemptRecord {
            phase: TaskPhase::Succeeded,
            message: String::new(),
            interrupted: false,
            stopped_with_run: false,
            started_at,
            finished_at: started_at,
            results: BTreeMap::new(),
            steps: steps
                .map(|step| StepStatus { name: step.name.as_str().into(), exit_code: None })
                .collect(),
        };
        let deadline = self.task.timeout.and_then(|timeout| started_at.checked_add(timeout).ok());
        match self.task_scope().await {
            Ok(scope) => self.steps(&scope, deadline, stop, &mut record).await?,
            Err(wrong) => {
                record.phase = TaskPhase::Failed;
                record.message = wrong;
            }
        }
        let (directory, declared) = (self.directory.clone(), self.task.results.clone());
        let results = tokio::task::spawn_blocking(move || read_results(&directory, &declared));
        match results.await.map_err(io::Error::other)? {
            Ok(results) => record.results = results,
            Err(wrong) if record.phase == TaskPhase::Succeeded => {
                record.phase = TaskPhase::Failed;
                record.message = wrong;
            }
            // The first reason counts.
            Err(_) => {}
        }
        record.finished_at = clock.now();
        Ok(record)
    }

    async fn steps(
        &self,
        scope: &TaskScope<'_>,
        deadline: Option<Timestamp>,
        stop: &mut watch::Receiver<Option<Stop>>,
        record: &mut AttemptRecord,
    ) -> io::Result<()> {
        for (index, step) in self.task.steps.iter().enumerate() {
            let plan = match self.plan(scope, step) {
                Ok(plan) => plan,
                Err(wrong) => {
                    record.phase = TaskPhase::Failed;
                    record.message = format!("step {:?}: {wrong}", step.name);
                    return Ok(());
                }
            };
            let (end, halt) = self.step(plan, deadline, stop).await;
            let code = match &end {
                Some(End::Exited(code)) => Some(*code),
                _ => None,
            };
            if let Some(status) = record.steps.get_mut(index) {
                status.exit_code = code;
            }
            self.watcher.step_ended(index, code);
            if let Some(halt) = halt {
                record.stopped_with_run = matches!(halt, Halt::Section(_));
                (record.phase, record.message) = match halt {
                    Halt::Section(stop) => (stop.phase(), "it was stopped with its run".into()),
                    Halt::OwnTimeout => (
                        TaskPhase::TimedOut,
                        format!("it took longer than {:#}", self.task.timeout.unwrap_or_default()),
                    ),
                };
                return Ok(());
            }
            let wrong = match end {
                Some(End::Exited(0)) => continue,
                Some(End::Exited(code)) => format!("exited with code {code}"),
                Some(End::NotStarted(why)) => why,
                Some(End::Interrupted) | None => {
                    record.interrupted = true;
                    "was interrupted: it is not known how it ended".to_owned()
                }
            };
            record.phase = TaskPhase::Failed;
            record.message = format!("step {:?} {wrong}", step.name);
            return Ok(());
        }
        Ok(())
    }

    /// Runs one step to its end, or ends it when the task has to stop.
    async fn step(
        &self,
        plan: Plan,
        deadline: Option<Timestamp>,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> (Option<End>, Option<Halt>) {
        let machine = &self.scope.run.machine;
        if step::has_ended(&plan.directory) {
            return (Some(step::start(plan).ended().await), None);
        }
        let adopted = {
            let mut adopted = self.scope.run.adopted.lock().unwrap_or_else(PoisonError::into_inner);
            adopted.remove(&plan.directory)
        };
        // What an earlier engine started goes on whether or not there is a slot.
        let permit = match adopted {
            Some(permit) => Some(permit),
            None if step::was_started(&plan.directory) => None,
            None => tokio::select! {
                biased;
                halt = self.halted(deadline, stop) => return (None, Some(halt)),
                permit = machine.slots.clone().acquire_owned() => permit.ok(),
            },
        };
        let mut running = step::start(plan);
        let halt = tokio::select! {
            biased;
            end = running.ended() => return (Some(end), None),
            halt = self.halted(deadline, stop) => halt,
        };
        running.signal(Signal::TERM);
        let now = machine.clock.now();
        let patience = now.checked_add(machine.grace).unwrap_or(now);
        let end = tokio::select! {
            biased;
            end = running.ended() => end,
            () = machine.clock.sleep_until(patience) => {
                running.signal(Signal::KILL);
                running.ended().await
            }
        };
        drop(permit);
        (Some(end), Some(halt))
    }

    async fn halted(
        &self,
        deadline: Option<Timestamp>,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Halt {
        let clock = &self.scope.run.machine.clock;
        let own = async {
            match deadline {
                Some(deadline) => clock.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let section = async {
            let stopped = stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
            match stopped {
                Some(stop) => stop,
                // The section is gone, and nobody is left to stop it.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            stop = section => Halt::Section(stop),
            () = own => Halt::OwnTimeout,
        }
    }

    async fn task_scope(&self) -> Result<TaskScope<'_>, String> {
        let run = self.scope.run;
        let mut params = self.task.defaults.clone();
        for (name, template) in &self.task.params {
            let mut value = template.value(self.scope)?;
            if let (ParamValue::Map(given), Some(ParamValue::Map(default))) =
                (&mut value, params.get(name))
            {
                let mut merged = default.clone();
                merged.append(given);
                value = ParamValue::Map(merged);
            }
            params.insert(name.clone(), value);
        }
        let mut scope = TaskScope {
            outer: self.scope,
            task: self.task,
            task_run: task_run_name(&run.record.name, &self.task.name),
            attempt: self.number,
            params,
            workspaces: BTreeMap::new(),
            directory: self.directory,
        };
        let mut workspaces = BTreeMap::new();
        for name in self.task.workspaces.keys() {
            let path = self.workspace(name, &scope).await;
            workspaces.insert(
                name.clone(),
                path.map_err(|wrong| format!("workspace {name:?}: {wrong}"))?,
            );
        }
        scope.workspaces = workspaces;
        Ok(scope)
    }

    /// The directory of a workspace of the task, made where it is ours; `None` when not bound.
    async fn workspace(&self, name: &str, scope: &TaskScope<'_>) -> Result<Option<String>, String> {
        let run = self.scope.run;
        let Some(workspace) = self.task.workspaces.get(name) else { return Ok(None) };
        let Some(from) = &workspace.pipeline_workspace else { return Ok(None) };
        let Some(Some(Binding { volume, sub_path })) = run.pipeline.workspaces.get(from) else {
            return Ok(None);
        };
        let mut path = match volume {
            Volume::PerAttempt => self.directory.workspace(name),
            Volume::PerRun => run.directory.workspace(from),
            Volume::Mapped(directory) => directory.clone(),
        };
        if let Some(sub_path) = sub_path {
            path.push(relative(sub_path)?);
        }
        if let Some(template) = &workspace.sub_path {
            path.push(relative(&template.text(scope)?)?);
        }
        let copy = workspace.read_only.then(|| self.directory.read_only(name));
        let made = tokio::task::spawn_blocking(move || -> io::Result<PathBuf> {
            files::create_directory(&path)?;
            let Some(copy) = copy else { return Ok(path) };
            if !copy.exists() {
                let unfinished = copy.with_extension("unfinished");
                files::remove_directory(&unfinished)?;
                files::copy_read_only(&path, &unfinished)?;
                std::fs::rename(&unfinished, &copy)?;
            }
            Ok(copy)
        });
        match made.await {
            Ok(Ok(path)) => path_text(&path).map(Some),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn plan(&self, scope: &TaskScope<'_>, step: &Step) -> Result<Plan, String> {
        let mut env = self.scope.run.machine.env.clone();
        env.push(("HOME".into(), path_text(&self.directory.home())?));
        env.push(("TMPDIR".into(), path_text(&self.directory.tmp())?));
        let declared_from = env.len();
        for (name, template) in &step.env {
            let value = template.text(&StepScope { task: scope, env: &env[declared_from..] })?;
            env.push((name.clone(), value));
        }
        let scope = StepScope { task: scope, env: &env[declared_from..] };
        let elements = |templates: &[Template]| -> Result<Vec<String>, String> {
            let mut all = Vec::new();
            for template in templates {
                all.extend(template.elements(&scope)?);
            }
            Ok(all)
        };
        let program = match &step.script {
            Some(script) => script.interpreter.clone(),
            None => elements(&step.command)?,
        };
        match program.first() {
            None => return Err("its command is empty".into()),
            // The shell that starts it would take it for an option.
            Some(name) if name.is_empty() || name.starts_with('-') => {
                return Err(format!("{name:?} is not a command"));
            }
            Some(_) => {}
        }
        let working_dir = match &step.working_dir {
            Some(template) => template.text(&scope)?,
            None => String::new(),
        };
        // As Tekton does, a relative one is below the task's own directory, and is made.
        let working_dir_is_ours = relative(&working_dir).is_ok();
        let working_dir = self.directory.work().join(working_dir);
        Ok(Plan {
            directory: self.directory.step(&step.name),
            program,
            script: step.script.as_ref().map(|script| script.text.text(&scope)).transpose()?,
            args: elements(&step.args)?,
            working_dir,
            working_dir_is_ours,
            groups: self.scope.run.machine.groups.clone(),
            logs: self.scope.run.logs.clone(),
            env,
        })
    }
}

/// What the steps of an attempt wrote for the results that their task declares.
fn read_results(
    directory: &AttemptDirectory,
    declared: &BTreeMap<String, Kind>,
) -> Result<BTreeMap<String, ParamValue>, String> {
    const LARGEST: u64 = 64 << 10;
    let mut results = BTreeMap::new();
    for (name, kind) in declared {
        let wrong = |what: &dyn std::fmt::Display| format!("result {name:?}: {what}");
        let content =
            files::read_bounded(&directory.result(name), LARGEST).map_err(|error| wrong(&error))?;
        let Some(content) = content else { continue };
        let text = String::from_utf8(content).map_err(|_| wrong(&"it is not UTF-8"))?;
        if text.contains('\0') {
            return Err(wrong(&"it contains a NUL"));
        }
        let value = match kind {
            Kind::Text => ParamValue::Text(text),
            Kind::List | Kind::Map => serde_json::from_str(&text)
                .map_err(|error| wrong(&format!("it is not JSON: {error}")))
                .and_then(|json| ParamValue::from_json(&json).map_err(|what| wrong(&what)))?,
        };
        if value.kind() != *kind {
            let got = value.kind();
            return Err(wrong(&format!("it is of type {kind}, and type {got} was written")));
        }
        results.insert(name.clone(), value);
    }
    Ok(results)
}
