//! One run from its first task to its end: what may start, what is skipped, what is stopped, and
//! what it all comes to. The rules are those of
//! <https://tekton.dev/docs/pipelines/pipelines/> and
//! <https://tekton.dev/docs/pipelines/pipelineruns/>.
//!
//! Nothing here is kept but in the run's directory: taken up again after the engine was killed, the
//! same decisions follow from the same records.

use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{
    board::Board,
    files,
    run_directory::AttemptRecord,
    spec::Task,
    task::{self, PipelineScope, RunContext, Stop, Watcher},
    variables::{ParamValue, Subject},
};
use crate::{
    CancelMode, RunPhase, RunStatus,
    sink::{RunResult, TaskPhase},
};

/// What became of a task.
#[derive(Debug)]
enum Outcome {
    Ran(AttemptRecord),
    Skipped(Skip),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Skip {
    cause: SkipCause,
    message: String,
}

impl Skip {
    fn new(cause: SkipCause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SkipCause {
    /// Its own `when` said so: those that run after it run all the same.
    When,
    /// The run was cancelled before it started.
    Cancel,
    /// The time was up before it started.
    Time,
    /// Another task failed, or what it needs is not there.
    Circumstances,
}

const CANCELLED: &str = "the run was cancelled";

/// What is to be done with a task.
enum Verdict {
    Run,
    Skip(Skip),
    Fail(String),
}

struct Execution<'a> {
    run: &'a RunContext,
    board: &'a Board,
    cancel: watch::Receiver<Option<CancelMode>>,
    outcomes: Vec<Option<Outcome>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Tasks,
    Finally,
}

/// Executes a run to its end and records it. Returns when that was; `None` when it could not be
/// recorded. When the future is dropped, steps go on, and a later call takes them up.
pub(super) async fn execute(
    run: &Arc<RunContext>,
    board: &Board,
    cancel: watch::Receiver<Option<CancelMode>>,
) -> Option<Timestamp> {
    let outcomes = run.pipeline.tasks.iter().map(|_| None).collect();
    let mut execution = Execution { run, board, cancel, outcomes };
    let broken = execution.sections().await.err();
    let status = execution.finish(broken);
    let (directory, record) = (run.directory.clone(), status.clone());
    let recorded =
        files::off_thread(move || directory.record_status(&record).map_err(io::Error::other));
    let recorded = recorded.await;
    board.settle(&status);
    if let Err(error) = recorded {
        // It is found without an end, and comes to the same one, when the sink is opened again.
        tracing::error!(run = %run.record.key, %error, "the end of a run could not be recorded");
        board.announce();
        return None;
    }
    status.finished_at
}

struct TaskWatcher<'a> {
    board: &'a Board,
    task: usize,
}

impl Watcher for TaskWatcher<'_> {
    fn began(&self, started_at: Timestamp) {
        self.board.task_began(self.task, started_at);
    }

    fn step_ended(&self, step: usize, code: Option<i32>) {
        self.board.change_task(self.task, |status| {
            if let Some(status) = status.steps.get_mut(step) {
                status.exit_code = code;
            }
        });
    }
}

fn later(at: Timestamp, by: Option<SignedDuration>) -> Option<Timestamp> {
    by.and_then(|by| at.checked_add(by).ok())
}

impl<'a> Execution<'a> {
    async fn sections(&mut self) -> io::Result<()> {
        let run = self.run;
        let (pipeline, timeouts) = (&run.pipeline, run.pipeline.timeouts);
        let started_at = run.record.started_at;
        let whole = later(started_at, timeouts.pipeline);
        let left_for_finally = timeouts.finally.and_then(|finally| {
            timeouts.pipeline.and_then(|pipeline| pipeline.checked_sub(finally))
        });
        let tasks_limit = timeouts.tasks.or(left_for_finally);
        let tasks = later(started_at, tasks_limit).or(whole);
        self.section(Section::Tasks, 0..pipeline.finally_from, tasks).await;

        let clock = &run.machine.clock;
        let over = whole.is_some_and(|whole| clock.now() >= whole);
        let at_once = *self.cancel.borrow() == Some(CancelMode::AtOnce);
        let finally = pipeline.finally_from..pipeline.tasks.len();
        if finally.is_empty() {
            return Ok(());
        }
        let (directory, now) = (run.directory.clone(), clock.now());
        let begun = files::off_thread(move || {
            let known = directory.finally().map_err(io::Error::other)?;
            if let Some(record) = known {
                return Ok(Some(record.started_at));
            }
            if over || at_once {
                return Ok(None);
            }
            directory.record_finally(now).map_err(io::Error::other)?;
            io::Result::Ok(Some(now))
        });
        let Some(begun) = begun.await? else {
            let skip = match over {
                true => Skip::new(SkipCause::Time, "no time was left"),
                false => Skip::new(SkipCause::Cancel, CANCELLED),
            };
            for index in finally {
                self.skip(index, skip.clone());
            }
            return Ok(());
        };
        let limit = timeouts.finally.or_else(|| {
            let tasks = timeouts.tasks?;
            timeouts.pipeline?.checked_sub(tasks)
        });
        let deadline = [later(begun, limit), whole].into_iter().flatten().min();
        self.section(Section::Finally, finally, deadline).await;
        Ok(())
    }

    /// Runs the tasks of a section until each is decided.
    async fn section(
        &mut self,
        section: Section,
        tasks: Range<usize>,
        deadline: Option<Timestamp>,
    ) {
        let run = self.run;
        let clock = &run.machine.clock;
        let (stop, _) = watch::channel(None);
        let mut running = FuturesUnordered::new();
        let mut started: Vec<usize> = Vec::new();
        let mut out_of_time = deadline.is_some_and(|deadline| clock.now() >= deadline);
        let mut cancel_is_over = false;
        for index in tasks.clone() {
            if let Some(record) = self.recalled(index).await {
                self.ran(index, record);
            }
        }
        loop {
            self.set_stop(&stop, section, out_of_time);
            loop {
                let undecided: Vec<usize> = tasks
                    .clone()
                    .filter(|index| !started.contains(index))
                    .filter(|index| self.outcomes.get(*index).is_some_and(Option::is_none))
                    .collect();
                let mut decided_any = false;
                for index in undecided {
                    let Some(task) = run.pipeline.tasks.get(index) else { continue };
                    if !self.knows_needs(index) {
                        continue;
                    }
                    // What an earlier engine began is taken up, whatever became of the run. Reasons
                    // of a task's own come before those of the run, so that they stay the same.
                    let verdict = match run.directory.has_begun(&task.name) {
                        true => Verdict::Run,
                        false => match self.verdict(section, index, task) {
                            Verdict::Run if self.holds_back(section, out_of_time).is_some() => {
                                continue;
                            }
                            verdict => verdict,
                        },
                    };
                    match verdict {
                        Verdict::Skip(skip) => self.skip(index, skip),
                        Verdict::Fail(message) => self.fail(index, message),
                        Verdict::Run => {
                            started.push(index);
                            let scope = self.scope(task);
                            let watcher = TaskWatcher { board: self.board, task: index };
                            let stop = stop.subscribe();
                            running.push(async move {
                                (index, task::run(&scope, task, stop, &watcher).await)
                            });
                        }
                    }
                    decided_any = true;
                }
                if !decided_any {
                    break;
                }
            }
            if running.is_empty() {
                break;
            }
            let time_is_up = async {
                match deadline {
                    Some(deadline) if !out_of_time => clock.sleep_until(deadline).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((index, ended)) = running.next() => match ended {
                    Ok(record) => self.ran(index, record),
                    Err(error) => self.fail(index, format!("its directory: {error}")),
                },
                changed = self.cancel.changed(), if !cancel_is_over => {
                    cancel_is_over = changed.is_err();
                }
                () = time_is_up => out_of_time = true,
            }
        }
        let Some(skip) = self.holds_back(section, out_of_time) else { return };
        for index in tasks {
            if self.outcomes.get(index).is_some_and(Option::is_none) {
                self.skip(index, skip.clone());
            }
        }
    }

    /// How a task ended under an earlier engine. All such ends are known before anything starts, so
    /// that what held a task back then holds it back now.
    async fn recalled(&self, index: usize) -> Option<AttemptRecord> {
        let task = self.run.pipeline.tasks.get(index)?;
        let (directory, name, retries) =
            (self.run.directory.clone(), task.name.clone(), task.retries);
        let recall = files::off_thread(move || {
            for number in 0..=retries {
                match directory.attempt(&name, number).ended()? {
                    Some(ended) if number < retries && ended.may_be_tried_again() => {}
                    end => return Ok(end),
                }
            }
            io::Result::Ok(None)
        });
        // What cannot be read fails the task when it is taken up.
        recall.await.ok().flatten()
    }

    /// Tells the running tasks of a section to end, where they have to.
    fn set_stop(&self, stop: &watch::Sender<Option<Stop>>, section: Section, out_of_time: bool) {
        let cancelled = match (*self.cancel.borrow(), section) {
            (Some(CancelMode::AtOnce), _) => true,
            (Some(CancelMode::RunFinally), Section::Tasks) => true,
            (_, _) => false,
        };
        let wanted = match (cancelled, out_of_time) {
            (true, _) => Some(Stop::Cancelled),
            (false, true) => Some(Stop::TimedOut),
            (false, false) => None,
        };
        stop.send_if_modified(|known| {
            let changed = known.is_none() && wanted.is_some();
            if changed {
                *known = wanted;
            }
            changed
        });
    }

    /// Why no task of a section may start any more.
    fn holds_back(&self, section: Section, out_of_time: bool) -> Option<Skip> {
        // A failure first: it stays the reason whatever comes later, also for a later engine.
        if section == Section::Tasks {
            let failed = self.ended().find(|(_, record)| record.phase != TaskPhase::Succeeded);
            if let Some((task, record)) = failed {
                return Some(match record.phase {
                    TaskPhase::Cancelled => Skip::new(SkipCause::Cancel, CANCELLED),
                    _ => {
                        let message = format!("task {:?} failed", task.name);
                        Skip::new(SkipCause::Circumstances, message)
                    }
                });
            }
        }
        match (*self.cancel.borrow(), section) {
            (Some(CancelMode::AtOnce), _) | (Some(_), Section::Tasks) => {
                Some(Skip::new(SkipCause::Cancel, CANCELLED))
            }
            (_, _) if out_of_time => Some(Skip::new(SkipCause::Time, "the time was up")),
            (_, _) => None,
        }
    }

    /// Whether all that a task waits for is decided.
    fn knows_needs(&self, index: usize) -> bool {
        let decided = |index: usize| self.outcomes.get(index).is_some_and(Option::is_some);
        self.run.pipeline.needs.get(index).is_some_and(|needs| needs.all().all(decided))
    }

    /// Whether a task runs of which all that it waits for is decided.
    fn verdict(&self, section: Section, index: usize, task: &Task) -> Verdict {
        let Some(needs) = self.run.pipeline.needs.get(index) else { return Verdict::Run };
        let outcome = |index: usize| self.outcomes.get(index).and_then(Option::as_ref);
        let name =
            |index: usize| self.run.pipeline.tasks.get(index).map_or("", |task| task.name.as_str());
        let skip = |message: String| Verdict::Skip(Skip::new(SkipCause::Circumstances, message));
        for before in needs.results.iter().copied() {
            if let Some(Outcome::Skipped(_)) = outcome(before) {
                return skip(format!("it uses a result of {:?}, which was skipped", name(before)));
            }
        }
        for before in needs.after.iter().copied() {
            if let Some(Outcome::Skipped(skipped)) = outcome(before)
                && skipped.cause != SkipCause::When
            {
                return skip(format!("it runs after {:?}, which was skipped", name(before)));
            }
        }
        let scope = self.scope(task);
        if section == Section::Finally {
            let missing = task.variables().find_map(|variable| match &variable.subject {
                Subject::TaskResult { task, result } => {
                    let known = scope.results.get(task).is_some_and(|all| all.contains_key(result));
                    (!known).then(|| {
                        format!("it uses the result {result:?} of {task:?}, which is not there")
                    })
                }
                _ => None,
            });
            if let Some(missing) = missing {
                return skip(missing);
            }
        }
        for (place, when) in task.when.iter().enumerate() {
            let holds = when.input.text(&scope).and_then(|input| {
                let mut values = Vec::new();
                for value in &when.values {
                    values.extend(value.elements(&scope)?);
                }
                Ok(values.contains(&input) == when.is_in)
            });
            match holds {
                Ok(true) => {}
                Ok(false) => {
                    let message = format!("its condition {} does not hold", place + 1);
                    return Verdict::Skip(Skip::new(SkipCause::When, message));
                }
                Err(wrong) => return Verdict::Fail(format!("when: {wrong}")),
            }
        }
        Verdict::Run
    }

    fn ended(&self) -> impl Iterator<Item = (&Task, &AttemptRecord)> {
        self.run.pipeline.tasks.iter().zip(&self.outcomes).filter_map(|(task, outcome)| {
            match outcome {
                Some(Outcome::Ran(record)) => Some((task, record)),
                _ => None,
            }
        })
    }

    /// What a task can refer to, as things stand.
    fn scope(&self, task: &Task) -> PipelineScope<'a> {
        let tasks = self.run.pipeline.tasks.iter().zip(&self.outcomes);
        let mut states = BTreeMap::new();
        let mut all_states = "Succeeded";
        for (task, outcome) in tasks.take(self.run.pipeline.finally_from) {
            let state = match outcome {
                Some(Outcome::Ran(record)) if record.phase == TaskPhase::Succeeded => "Succeeded",
                Some(Outcome::Ran(_)) => "Failed",
                Some(Outcome::Skipped(_)) | None => "None",
            };
            states.insert(task.name.clone(), state);
            all_states = match (all_states, state) {
                ("Failed", _) | (_, "Failed") => "Failed",
                (_, "None") | ("Completed", _) => "Completed",
                (_, _) => "Succeeded",
            };
        }
        let results = self
            .ended()
            .map(|(task, record)| (task.name.clone(), record.results.clone()))
            .collect();
        PipelineScope { run: self.run, retries: task.retries, results, states, all_states }
    }

    fn skip(&mut self, index: usize, skip: Skip) {
        self.board.change_task(index, |status| {
            status.phase = TaskPhase::Skipped;
            status.message.clone_from(&skip.message);
        });
        self.decide(index, Outcome::Skipped(skip));
    }

    /// A task that failed without an attempt's record.
    fn fail(&mut self, index: usize, message: String) {
        let now = self.run.machine.clock.now();
        let record = AttemptRecord {
            phase: TaskPhase::Failed,
            message,
            interrupted: false,
            stopped_with_run: false,
            started_at: now,
            finished_at: now,
            results: BTreeMap::new(),
            steps: Vec::new(),
        };
        self.ran(index, record);
    }

    fn ran(&mut self, index: usize, record: AttemptRecord) {
        self.board.change_task(index, |status| {
            status.phase = record.phase;
            status.message.clone_from(&record.message);
            status.started_at.get_or_insert(record.started_at);
            status.finished_at = Some(record.finished_at);
            if !record.steps.is_empty() {
                status.steps.clone_from(&record.steps);
            }
        });
        self.decide(index, Outcome::Ran(record));
    }

    fn decide(&mut self, index: usize, outcome: Outcome) {
        if let Some(place) = self.outcomes.get_mut(index) {
            *place = Some(outcome);
        }
    }

    /// What it all comes to.
    fn finish(&mut self, broken: Option<io::Error>) -> RunStatus {
        let (results, missing_result) = self.results();
        let (phase, message) = self.phase(broken, missing_result);
        let now = self.run.machine.clock.now();
        self.board.ending(|status| {
            status.phase = phase;
            status.message = message;
            status.finished_at = Some(now);
            status.results = results;
        })
    }

    fn phase(&self, broken: Option<io::Error>, missing: Option<String>) -> (RunPhase, String) {
        let failure = |wanted: &dyn Fn(&AttemptRecord) -> bool| {
            self.ended()
                .find(|(_, record)| wanted(record))
                .map(|(task, record)| format!("task {:?}: {}", task.name, record.message))
        };
        let cancel = *self.cancel.borrow();
        let cut_short = cancel.is_some() && {
            let stopped = |outcome: &Option<Outcome>| match outcome {
                Some(Outcome::Ran(record)) => record.phase == TaskPhase::Cancelled,
                Some(Outcome::Skipped(skip)) => skip.cause == SkipCause::Cancel,
                None => true,
            };
            self.outcomes.iter().any(stopped)
        };
        if let Some(error) = broken {
            return (RunPhase::Failed, format!("the run's directory: {error}"));
        }
        if cut_short && cancel == Some(CancelMode::AtOnce) {
            return (RunPhase::Cancelled, "it was cancelled".into());
        }
        if let Some(message) = failure(&|record| record.interrupted) {
            return (RunPhase::Interrupted, message);
        }
        let out_of_time = |outcome: &Option<Outcome>| match outcome {
            Some(Outcome::Ran(record)) => {
                record.stopped_with_run && record.phase == TaskPhase::TimedOut
            }
            Some(Outcome::Skipped(skip)) => skip.cause == SkipCause::Time,
            None => false,
        };
        if self.outcomes.iter().any(out_of_time) {
            return (RunPhase::TimedOut, "it took longer than its timeouts allow".into());
        }
        let failed = |record: &AttemptRecord| {
            matches!(record.phase, TaskPhase::Failed | TaskPhase::TimedOut)
        };
        if let Some(message) = failure(&failed) {
            return (RunPhase::Failed, message);
        }
        if cut_short {
            return (RunPhase::Cancelled, "it was cancelled".into());
        }
        if let Some(missing) = missing {
            return (RunPhase::Failed, missing);
        }
        let ran = self.ended().count();
        let skipped = self.outcomes.len() - ran;
        (RunPhase::Succeeded, format!("{ran} tasks succeeded, {skipped} skipped"))
    }

    /// The pipeline's results: those whose tasks all succeeded. The second says which one cannot be
    /// had although they did.
    fn results(&self) -> (Vec<RunResult>, Option<String>) {
        let Some(first) = self.run.pipeline.tasks.first() else { return (Vec::new(), None) };
        let scope = self.scope(first);
        let mut results = Vec::new();
        let mut missing = None;
        for (name, template) in &self.run.pipeline.results {
            let mut variables = template.templates().into_iter().flat_map(|t| t.variables());
            let available = variables.all(|variable| match &variable.subject {
                Subject::TaskResult { task, .. } => {
                    scope.states.get(task).copied() == Some("Succeeded")
                }
                _ => true,
            });
            if !available {
                continue;
            }
            match template.value(&scope).map(|value: ParamValue| value.to_json()) {
                Ok(value) => results.push(RunResult { name: name.as_str().into(), value }),
                Err(wrong) => {
                    missing.get_or_insert_with(|| format!("result {name:?}: {wrong}"));
                }
            }
        }
        (results, missing)
    }
}
