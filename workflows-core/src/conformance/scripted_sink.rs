//! [`ScriptedSink`]: a run sink in memory whose runs do what a test says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use crate::{
    CancelMode, CloneCredential, Error, ErrorKind, LogRef, Result, RunKey, RunPhase, RunSink,
    RunStatus,
    sink::{ChangedRun, EnsuredRun, ExistingRun, GivenCredential, LogSource, RunRequest, SinkRun},
};

/// A [`RunSink`] in memory whose runs are driven by a test. Clones share everything.
///
/// A new run is `Running`, or what [`start_as`](Self::start_as) said; a cancel ends a run as
/// `Cancelled` at once, unless [`ignore_cancels`](Self::ignore_cancels) was called. Everything that
/// was asked of the sink is recorded.
///
/// ```
/// use workflows_core::{
///     RunKey, RunPhase, RunSink, Tenant,
///     conformance::ScriptedSink,
///     sink::{RunRequest, SinkRun},
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let sink = ScriptedSink::new();
/// let key = RunKey::from("k".to_owned());
/// let request =
///     RunRequest::new(key.clone(), Tenant::default(), "ci-1", serde_json::json!({"spec": {}}));
///
/// sink.lose_next_answer();
/// assert!(sink.ensure(&request).await.is_err());
/// assert!(!sink.ensure(&request).await.unwrap().created);
/// assert_eq!(sink.creations(&key), 1);
///
/// sink.set_phase(&key, RunPhase::Succeeded);
/// assert_eq!(sink.phase(&key), Some(RunPhase::Succeeded));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ScriptedSink {
    script: Arc<Mutex<Script>>,
    changed: broadcast::Sender<ChangedRun>,
    creations: Arc<watch::Sender<usize>>,
    held: Arc<watch::Sender<usize>>,
    streams_changes: bool,
}

#[derive(Debug)]
struct Script {
    runs: BTreeMap<RunKey, ScriptedRun>,
    created: Vec<RunRequest>,
    ensured: Vec<RunKey>,
    cancels: Vec<(RunKey, CancelMode)>,
    renewed: Vec<(RunKey, CloneCredential)>,
    start_as: RunPhase,
    ignore_cancels: bool,
    ensure_failures: VecDeque<EnsureFailure>,
    state_failures: VecDeque<Failure>,
    cancel_failures: VecDeque<Failure>,
    logs: BTreeMap<(RunKey, Arc<str>, Arc<str>), Bytes>,
}

#[derive(Debug)]
struct ScriptedRun {
    request: RunRequest,
    status: RunStatus,
}

#[derive(Debug)]
enum EnsureFailure {
    BeforeCreating(Failure),
    AfterCreating,
}

#[derive(Debug)]
struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    fn into_error(self, operation: &'static str) -> Error {
        Error::new(self.kind, operation, self.message)
    }
}

/// While it lives, [`ScriptedSink::ensure`](RunSink::ensure) waits before it creates anything.
#[derive(Debug)]
#[must_use = "calls are held only while this lives"]
pub struct Hold(Arc<watch::Sender<usize>>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

impl Default for ScriptedSink {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedSink {
    /// A sink without runs, with a stream of changes.
    pub fn new() -> Self {
        Self {
            script: Arc::new(Mutex::new(Script {
                runs: BTreeMap::new(),
                created: Vec::new(),
                ensured: Vec::new(),
                cancels: Vec::new(),
                renewed: Vec::new(),
                start_as: RunPhase::Running,
                ignore_cancels: false,
                ensure_failures: VecDeque::new(),
                state_failures: VecDeque::new(),
                cancel_failures: VecDeque::new(),
                logs: BTreeMap::new(),
            })),
            changed: broadcast::channel(4096).0,
            creations: Arc::new(watch::Sender::new(0)),
            held: Arc::new(watch::Sender::new(0)),
            streams_changes: true,
        }
    }

    /// A sink whose [`changes`](RunSink::changes) is `None`, so that it has to be asked.
    pub fn polled() -> Self {
        Self { streams_changes: false, ..Self::new() }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, key: &RunKey) {
        let script = self.script();
        let Some(request) = script.created.iter().find(|request| request.key == *key) else {
            return;
        };
        // Nobody listening is fine: the stream is a hint.
        let _ = self
            .changed
            .send(ChangedRun { tenant: request.tenant.clone(), key: request.key.clone() });
    }

    // --- what the test makes it do -------------------------------------------------------------

    /// The phase of runs that are created from now on. A terminal one makes a run that has ended
    /// before anybody looks.
    pub fn start_as(&self, phase: RunPhase) {
        self.script().start_as = phase;
    }

    /// Puts a run into a phase and announces the change. Other parts of its status stay.
    ///
    /// # Panics
    ///
    /// When there is no such run: the test's assumption is wrong.
    pub fn set_phase(&self, key: &RunKey, phase: RunPhase) {
        let mut script = self.script();
        let run = script.runs.get_mut(key).unwrap_or_else(|| panic!("no run {key} was created"));
        run.status.phase = phase;
        drop(script);
        self.tell(key);
    }

    /// Replaces a run's whole status and announces the change.
    ///
    /// # Panics
    ///
    /// When there is no such run: the test's assumption is wrong.
    pub fn set_status(&self, key: &RunKey, status: RunStatus) {
        let mut script = self.script();
        let run = script.runs.get_mut(key).unwrap_or_else(|| panic!("no run {key} was created"));
        run.status = status;
        drop(script);
        self.tell(key);
    }

    /// Sets a run's phase without telling anybody, as a sink whose announcement was lost.
    ///
    /// # Panics
    ///
    /// When there is no such run: the test's assumption is wrong.
    pub fn set_phase_silently(&self, key: &RunKey, phase: RunPhase) {
        let mut script = self.script();
        let run = script.runs.get_mut(key).unwrap_or_else(|| panic!("no run {key} was created"));
        run.status.phase = phase;
    }

    /// Announces a change of a run that was created, whether or not there is one.
    pub fn announce(&self, key: &RunKey) {
        self.tell(key);
    }

    /// Takes a run away, as a pruner would: its state becomes `NotFound`. Announces it.
    pub fn take_away(&self, key: &RunKey) {
        self.script().runs.remove(key);
        self.tell(key);
    }

    /// Forgets every run, and all that was asked of it so far.
    pub fn forget_everything(&self) {
        let mut script = self.script();
        script.runs.clear();
        script.created.clear();
        script.ensured.clear();
        script.cancels.clear();
        script.renewed.clear();
        script.logs.clear();
    }

    /// What a step has written so far.
    pub fn set_log(&self, key: &RunKey, step: &LogRef, bytes: impl Into<Bytes>) {
        let place = (key.clone(), step.task.clone(), step.step.clone());
        self.script().logs.insert(place, bytes.into());
    }

    /// The next `ensure` that is not yet told to fail fails so, and creates nothing.
    pub fn fail_next_ensure(&self, kind: ErrorKind, message: impl Into<String>) {
        let failure = Failure { kind, message: message.into() };
        self.script().ensure_failures.push_back(EnsureFailure::BeforeCreating(failure));
    }

    /// The next `ensure` that is not yet told to fail creates its run, and its answer is lost: the
    /// caller sees `Transient`.
    pub fn lose_next_answer(&self) {
        self.script().ensure_failures.push_back(EnsureFailure::AfterCreating);
    }

    /// The next `state` that is not yet told to fail fails so.
    pub fn fail_next_state(&self, kind: ErrorKind, message: impl Into<String>) {
        self.script().state_failures.push_back(Failure { kind, message: message.into() });
    }

    /// The next `cancel` that is not yet told to fail fails so and is not recorded.
    pub fn fail_next_cancel(&self, kind: ErrorKind, message: impl Into<String>) {
        self.script().cancel_failures.push_back(Failure { kind, message: message.into() });
    }

    /// Cancels are recorded from now on, and change nothing.
    pub fn ignore_cancels(&self) {
        self.script().ignore_cancels = true;
    }

    /// Holds back every `ensure` until the answer is dropped.
    pub fn hold_ensures(&self) -> Hold {
        self.held.send_modify(|held| *held += 1);
        Hold(self.held.clone())
    }

    // --- what the test sees --------------------------------------------------------------------

    /// The phase of a run; `None` when it does not exist (any more).
    pub fn phase(&self, key: &RunKey) -> Option<RunPhase> {
        self.script().runs.get(key).map(|run| run.status.phase)
    }

    /// How many times a run with that key was created: more than once only when it was taken away
    /// in between.
    pub fn creations(&self, key: &RunKey) -> usize {
        self.script().created.iter().filter(|request| request.key == *key).count()
    }

    /// Every request that created a run, in order.
    pub fn created(&self) -> Vec<RunRequest> {
        self.script().created.clone()
    }

    /// The key of every call of `ensure`, in order, failed ones too.
    pub fn ensured(&self) -> Vec<RunKey> {
        self.script().ensured.clone()
    }

    /// Every accepted call of `cancel`, in order, also of runs that are not known.
    pub fn cancels(&self) -> Vec<(RunKey, CancelMode)> {
        self.script().cancels.clone()
    }

    /// Every credential that took the place of an earlier one, in order.
    pub fn renewed(&self) -> Vec<(RunKey, CloneCredential)> {
        self.script().renewed.clone()
    }

    /// Returns when at least `count` runs have been created, with all of their requests.
    pub async fn until_created(&self, count: usize) -> Vec<RunRequest> {
        let mut creations = self.creations.subscribe();
        // The sender lives in `self`, so waiting ends only with the condition.
        let _ = creations.wait_for(|created| *created >= count).await;
        self.created()
    }
}

#[async_trait]
impl RunSink for ScriptedSink {
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
        const OPERATION: &str = "ensure a run";
        self.script().ensured.push(request.key.clone());
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| *held == 0).await;

        let mut script = self.script();
        let failure = script.ensure_failures.pop_front();
        if let Some(EnsureFailure::BeforeCreating(failure)) = failure {
            return Err(failure.into_error(OPERATION).with("run", &request.key));
        }
        let created = match script.runs.get(&request.key) {
            Some(run) if run.request.pipeline_run != request.pipeline_run => {
                return Err(
                    Error::invalid(OPERATION, "another run has this key").with("run", &request.key)
                );
            }
            Some(_) => false,
            None => {
                let status = RunStatus::new(script.start_as);
                let run = ScriptedRun { request: request.clone(), status };
                script.runs.insert(request.key.clone(), run);
                script.created.push(request.clone());
                true
            }
        };
        drop(script);
        if created {
            self.creations.send_modify(|count| *count += 1);
            self.tell(&request.key);
        }
        if let Some(EnsureFailure::AfterCreating) = failure {
            return Err(
                Error::transient(OPERATION, "the answer was lost").with("run", &request.key)
            );
        }
        let handle = format!("scripted/{}", request.name).into();
        Ok(EnsuredRun { created, handle, link: None })
    }

    async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
        const OPERATION: &str = "read a run's state";
        let mut script = self.script();
        if let Some(failure) = script.state_failures.pop_front() {
            return Err(failure.into_error(OPERATION).with("run", &run.key));
        }
        match script.runs.get(&run.key) {
            Some(known) => Ok(known.status.clone()),
            None => Err(Error::not_found(OPERATION, "there is no such run").with("run", &run.key)),
        }
    }

    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()> {
        let mut script = self.script();
        if let Some(failure) = script.cancel_failures.pop_front() {
            return Err(failure.into_error("cancel a run").with("run", &run.key));
        }
        script.cancels.push((run.key.clone(), mode));
        let ignore = script.ignore_cancels;
        let Some(known) = script.runs.get_mut(&run.key) else { return Ok(()) };
        if ignore || known.status.phase.is_terminal() {
            return Ok(());
        }
        known.status.phase = RunPhase::Cancelled;
        drop(script);
        self.tell(&run.key);
        Ok(())
    }

    async fn renew(&self, run: &SinkRun, given: &GivenCredential) -> Result<()> {
        self.script().renewed.push((run.key.clone(), given.credential.clone()));
        Ok(())
    }

    fn existing(&self) -> BoxStream<'static, Result<ExistingRun>> {
        let script = self.script();
        let existing: Vec<_> = script
            .runs
            .values()
            .map(|run| {
                let RunRequest { key, name, pipeline_run, credential, .. } = &run.request;
                let mut renewed = script.renewed.iter().rev();
                let renewed = renewed.find(|(of, _)| of == key).map(|(_, renewed)| renewed);
                let existing =
                    ExistingRun::new((**pipeline_run).clone(), format!("scripted/{name}"));
                Ok(existing.with_credential(renewed.or(credential.as_ref()).cloned()))
            })
            .collect();
        futures::stream::iter(existing).boxed()
    }

    fn changes(&self) -> Option<BoxStream<'static, ChangedRun>> {
        self.streams_changes.then(|| {
            BroadcastStream::new(self.changed.subscribe())
                // A reader that lagged has missed changes, which a hint may do.
                .filter_map(|change| async { change.ok() })
                .boxed()
        })
    }

    fn logs(&self) -> Option<&dyn LogSource> {
        Some(self)
    }
}

impl LogSource for ScriptedSink {
    fn stream(
        &self,
        run: &SinkRun,
        step: &LogRef,
        _follow: bool,
    ) -> BoxStream<'static, Result<Bytes>> {
        let place = (run.key.clone(), step.task.clone(), step.step.clone());
        let answer = self.script().logs.get(&place).cloned().ok_or_else(|| {
            Error::not_found("read a log", "the step has written nothing")
                .with("task", &step.task)
                .with("step", &step.step)
        });
        futures::stream::once(async { answer }).boxed()
    }
}
