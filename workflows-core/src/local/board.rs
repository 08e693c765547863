//! How a run that is executing stands, for whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::{run_directory::RunRecord, spec::Pipeline};
use crate::{
    RunPhase, RunStatus, TaskStatus,
    sink::{ChangedRun, StepStatus, TaskPhase},
};

#[derive(Debug)]
pub(super) struct Board {
    run: ChangedRun,
    state: Mutex<State>,
    changed: broadcast::Sender<ChangedRun>,
}

#[derive(Debug)]
struct State {
    status: RunStatus,
    /// In the order of the document.
    tasks: Vec<TaskStatus>,
}

impl State {
    fn status(&self) -> RunStatus {
        let mut status = self.status.clone();
        status.tasks.clone_from(&self.tasks);
        // Those that have not started come last; a stable sort keeps the document's order.
        status.tasks.sort_by_key(|task| (task.started_at.is_none(), task.started_at));
        status
    }
}

impl Board {
    pub(super) fn new(
        record: &RunRecord,
        pipeline: &Pipeline,
        changed: broadcast::Sender<ChangedRun>,
    ) -> Self {
        let mut status = RunStatus::new(RunPhase::Running);
        status.started_at = Some(record.started_at);
        let tasks = pipeline.tasks.iter().map(|task| TaskStatus {
            name: task.name.as_str().into(),
            phase: TaskPhase::Pending,
            message: String::new(),
            started_at: None,
            finished_at: None,
            link: None,
            steps: task
                .steps
                .iter()
                .map(|step| StepStatus { name: step.name.as_str().into(), exit_code: None })
                .collect(),
        });
        let state = State { status, tasks: tasks.collect() };
        Self {
            run: ChangedRun { tenant: record.tenant.clone(), key: record.key.clone() },
            state: Mutex::new(state),
            changed,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> RunStatus {
        self.state().status()
    }

    /// An attempt of a task has begun: its steps have yet to run.
    pub(super) fn task_began(&self, task: usize, at: Timestamp) {
        self.change_task(task, |status| {
            status.phase = TaskPhase::Running;
            status.started_at = Some(at);
            status.steps.iter_mut().for_each(|step| step.exit_code = None);
        });
    }

    pub(super) fn change_task(&self, task: usize, change: impl FnOnce(&mut TaskStatus)) {
        if let Some(status) = self.state().tasks.get_mut(task) {
            change(status);
        }
        self.announce();
    }

    /// What it comes to when it ends so. Nobody sees it before [`settle`](Self::settle): first it is
    /// recorded and the credential removed.
    pub(super) fn ending(&self, end: impl FnOnce(&mut RunStatus)) -> RunStatus {
        let mut status = self.status();
        end(&mut status);
        status
    }

    /// The run has ended so.
    pub(super) fn settle(&self, ended: &RunStatus) {
        self.state().status = ended.clone();
    }

    pub(super) fn announce(&self) {
        // Nobody has to listen.
        let _ = self.changed.send(self.run.clone());
    }
}
