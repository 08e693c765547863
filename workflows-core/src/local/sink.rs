//! [`LocalSink`] and how it is built.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Semaphore, broadcast, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::BroadcastStream;

use super::{
    board::Board,
    control_group, executor, files,
    log_limit::{self, LogLimits, RunLogs},
    logs::Logs,
    run_directory::{self, GitCredential, RunDirectory, RunRecord, io_error},
    spec::{self, VolumeKind, Volumes},
    stragglers,
    task::{Machine, RunContext},
};
use crate::{
    CancelMode, Error, ErrorKind, LogRef, Result, RunKey, RunPhase, RunSink, RunStatus,
    SharedClock, SystemClock, Tenant,
    git_files::percent_encode,
    sink::{ChangedRun, EnsuredRun, LogSource, RunRequest, SinkRun},
};

/// How long a stripped run's key and end are remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How a [`LocalSink`] is set up.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is built"]
pub struct LocalSinkBuilder {
    root: PathBuf,
    max_steps: NonZeroUsize,
    grace: SignedDuration,
    keep_runs: usize,
    logs: LogLimits,
    control_groups: bool,
    default_timeout: SignedDuration,
    clock: SharedClock,
    env: BTreeMap<String, String>,
    volumes: Volumes,
}

impl LocalSinkBuilder {
    /// At most so many steps run at a time, over all runs. By default as many as the machine can run
    /// in parallel.
    pub fn max_steps(mut self, steps: NonZeroUsize) -> Self {
        self.max_steps = steps;
        self
    }

    /// How long processes have to end by themselves between SIGTERM and SIGKILL. By default ten
    /// seconds.
    pub fn grace(mut self, grace: SignedDuration) -> Self {
        self.grace = grace;
        self
    }

    /// Of how many ended runs logs, results and workspaces are kept; 50 by default. Of those that
    /// ended earlier only the request and the end are, for 30 days, so that `ensure` does not run
    /// them again.
    pub fn keep_runs(mut self, runs: usize) -> Self {
        self.keep_runs = runs;
        self
    }

    /// How many bytes are kept of a step's log: its beginning and its end. By default 16 MiB; at least
    /// 64 KiB.
    pub fn max_step_log(mut self, bytes: u64) -> Self {
        self.logs.step = bytes;
        self
    }

    /// How many bytes are kept of all logs of a run; of a log that would bring them beyond that,
    /// 64 KiB are. By default 128 MiB.
    pub fn max_run_logs(mut self, bytes: u64) -> Self {
        self.logs.run = bytes;
        self
    }

    /// Makes no control groups for steps, also where it could: see the [module](super) for what then
    /// escapes.
    pub fn without_control_groups(mut self) -> Self {
        self.control_groups = false;
        self
    }

    /// The time limit of a run that names none in `timeouts.pipeline`; zero is none. By default one
    /// hour, as Tekton's.
    pub fn default_timeout(mut self, timeout: SignedDuration) -> Self {
        self.default_timeout = timeout;
        self
    }

    /// Where the time comes from, for time limits and for the record.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// An environment variable that every step gets, unless its own `env` says otherwise. By default
    /// there are `PATH`, the usual system directories, and `LANG`, `C.UTF-8`. `HOME` and `TMPDIR`
    /// are directories of each task. Nothing is inherited from this process.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Takes a variable, such as `PATH`, over from this process for every step, if it is set there.
    pub fn inherit_env(self, name: &str) -> Self {
        match std::env::var(name) {
            Ok(value) => self.env(name, value),
            Err(_) => self,
        }
    }

    /// A directory that stands for a claim, a config map or a secret of a tenant when a workspace is
    /// bound to it. The steps of every run of that tenant can then read and change it.
    pub fn volume(
        mut self,
        tenant: Tenant,
        kind: VolumeKind,
        name: impl Into<String>,
        directory: impl Into<PathBuf>,
    ) -> Self {
        self.volumes.insert((tenant, kind, name.into()), directory.into());
        self
    }

    /// Opens the root, which is made when it is not there, and takes up the runs in it that have
    /// not ended.
    ///
    /// Must be called in a Tokio runtime, which then drives the runs.
    ///
    /// # Errors
    ///
    /// `Conflict` when another sink uses the root, `Transient` when files cannot be read or written.
    pub async fn build(self) -> Result<LocalSink> {
        let opened = self.clone();
        let (root, lock, runs, groups) = blocking(move || {
            let (root, lock, runs) = opened.open()?;
            let groups = if opened.control_groups { control_group::parent() } else { None };
            Ok((root, lock, runs, groups))
        })
        .await?;
        let machine = Machine {
            clock: self.clock.clone(),
            grace: self.grace,
            slots: Arc::new(Semaphore::new(self.max_steps.get().min(Semaphore::MAX_PERMITS))),
            env: self.env.into_iter().collect(),
            groups,
        };
        let shared = Arc::new(Shared {
            root,
            _lock: lock,
            machine: Arc::new(machine),
            volumes: self.volumes,
            default_timeout: self.default_timeout,
            keep_runs: self.keep_runs,
            logs: self.logs,
            changed: broadcast::channel(4096).0,
            active: Mutex::default(),
            ended: Mutex::default(),
        });
        let sink = LocalSink {
            logs: Arc::new(Logs(shared.clone())),
            drivers: Arc::new(Drivers { handles: Mutex::default() }),
            creating: Arc::default(),
            shared,
        };
        tracing::info!(
            root = %sink.shared.root.display(),
            control_groups = sink.has_control_groups(),
            "runs are executed as processes of this machine; images and service accounts are not used"
        );
        sink.take_up(runs).await?;
        Ok(sink)
    }

    fn open(&self) -> Result<(PathBuf, File, Vec<RunDirectory>)> {
        const OPERATION: &str = "open the directory of a local run sink";
        let failed = |error| io_error(OPERATION, &self.root, error);
        files::create_directory(&run_directory::runs(&self.root)).map_err(failed)?;
        let root = self.root.canonicalize().map_err(failed)?;
        if root.to_str().is_none() {
            return Err(
                Error::invalid(OPERATION, "its path is not UTF-8").with("path", root.display())
            );
        }
        // A sink that was just dropped or killed lets go in a moment.
        const ATTEMPTS: u32 = 100;
        for _ in 0..ATTEMPTS {
            if let Some(lock) = files::try_lock(&root.join("lock")).map_err(failed)? {
                let runs = run_directory::list(&root).map_err(failed)?;
                return Ok((root, lock, runs));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Error::conflict(OPERATION, "another sink uses it; give each its own")
            .with("path", root.display()))
    }
}

/// Executes PipelineRuns as processes of this machine: see the [module](super).
///
/// Clones are the same sink. When the last one is dropped, steps that run go on; a sink that is
/// opened on the same directory takes them up.
#[derive(Debug, Clone)]
pub struct LocalSink {
    shared: Arc<Shared>,
    logs: Arc<Logs>,
    drivers: Arc<Drivers>,
    /// Held while a run is looked for and made.
    creating: Arc<tokio::sync::Mutex<()>>,
}

/// The tasks that drive runs; they end with the sink.
#[derive(Debug)]
struct Drivers {
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Drivers {
    fn keep(&self, driver: JoinHandle<()>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|handle| !handle.is_finished());
        handles.push(driver);
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        for handle in self.handles.get_mut().unwrap_or_else(PoisonError::into_inner) {
            handle.abort();
        }
    }
}

/// What the parts of a sink share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) root: PathBuf,
    /// Released by the system when this process ends, in whatever way.
    _lock: File,
    machine: Arc<Machine>,
    volumes: Volumes,
    default_timeout: SignedDuration,
    keep_runs: usize,
    logs: LogLimits,
    changed: broadcast::Sender<ChangedRun>,
    active: Mutex<HashMap<RunKey, Active>>,
    ended: Mutex<Ended>,
}

/// A run that is being driven.
#[derive(Debug, Clone)]
struct Active {
    board: Arc<Board>,
    cancel: Arc<watch::Sender<Option<CancelMode>>>,
    directory: RunDirectory,
}

/// Runs that have ended, by when.
#[derive(Debug, Default)]
struct Ended {
    kept: BTreeSet<(Timestamp, PathBuf)>,
    stripped: BTreeSet<(Timestamp, PathBuf)>,
}

impl Shared {
    fn active(&self) -> MutexGuard<'_, HashMap<RunKey, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active_run(&self, key: &RunKey) -> Option<Active> {
        self.active().get(key).cloned()
    }

    fn directory(&self, key: &RunKey) -> RunDirectory {
        RunDirectory::of(&self.root, key)
    }

    /// Whether a run that is being driven has that step; of others it is not known.
    pub(super) fn has_step(&self, run: &SinkRun, step: &LogRef) -> bool {
        let Some(active) = self.active_run(&run.key) else { return true };
        active.board.status().tasks.iter().any(|task| {
            task.name == step.task && task.steps.iter().any(|known| known.name == step.step)
        })
    }

    /// Notes that a run has ended, and strips and removes older ones. Blocks.
    fn retire(&self, directory: &RunDirectory, at: Timestamp) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.kept.insert((at, directory.path().to_owned()));
        let mut strip = Vec::new();
        while ended.kept.len() > self.keep_runs {
            let Some(oldest) = ended.kept.pop_first() else { break };
            strip.push(RunDirectory::at(&oldest.1));
            ended.stripped.insert(oldest);
        }
        let mut remove = Vec::new();
        let now = self.machine.clock.now();
        while let Some(oldest) = ended.stripped.first()
            && now.duration_since(oldest.0) > REMEMBERED
            && let Some(oldest) = ended.stripped.pop_first()
        {
            remove.push(RunDirectory::at(&oldest.1));
        }
        drop(ended);
        let stripped = strip.iter().map(RunDirectory::strip);
        let removed = remove.iter().map(RunDirectory::remove);
        for result in stripped.chain(removed) {
            if let Err(error) = result {
                tracing::warn!(%error, "a run's directory could not be cleaned up");
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::transient("work on files", error.to_string()).caused_by(error)),
    }
}

impl LocalSink {
    /// A sink that keeps its runs below that directory, which no other sink uses.
    pub fn builder(root: impl Into<PathBuf>) -> LocalSinkBuilder {
        let env = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LANG", "C.UTF-8"),
        ];
        LocalSinkBuilder {
            root: root.into(),
            max_steps: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            grace: SignedDuration::from_secs(10),
            keep_runs: 50,
            logs: LogLimits::default(),
            control_groups: true,
            default_timeout: SignedDuration::from_hours(1),
            clock: Arc::new(SystemClock),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            volumes: Volumes::new(),
        }
    }

    /// The directory of a run: its logs and workspaces are below it.
    pub fn run_directory(&self, key: &RunKey) -> PathBuf {
        self.shared.directory(key).path().to_owned()
    }

    /// Whether each step's processes are held in a control group, from which none escapes when the
    /// step ends: see the [module](super).
    pub fn has_control_groups(&self) -> bool {
        self.shared.machine.groups.is_some()
    }

    /// Forgets a run that has ended, with all that it left. None is success.
    ///
    /// # Errors
    ///
    /// `Conflict` when it has not ended.
    pub async fn forget(&self, key: &RunKey) -> Result<()> {
        const OPERATION: &str = "forget a run";
        let directory = self.shared.directory(key);
        let _creating = self.creating.lock().await;
        if self.shared.active_run(key).is_some() {
            return Err(
                Error::conflict(OPERATION, "it has not ended: cancel it first").with("run", key)
            );
        }
        let shared = self.shared.clone();
        blocking(move || {
            let path = directory.path().to_owned();
            directory.remove().map_err(|error| io_error(OPERATION, &path, error))?;
            let mut ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.kept.retain(|(_, known)| *known != path);
            ended.stripped.retain(|(_, known)| *known != path);
            Ok(())
        })
        .await
    }

    /// Takes up the runs of an earlier sink.
    async fn take_up(&self, directories: Vec<RunDirectory>) -> Result<()> {
        let mut unended = Vec::new();
        let shared = self.shared.clone();
        let found = blocking(move || {
            let mut found = Vec::new();
            for directory in directories {
                match directory.status() {
                    Ok(Some(status)) => {
                        let at = status.finished_at.unwrap_or(Timestamp::UNIX_EPOCH);
                        shared.retire(&directory, at);
                    }
                    Ok(None) => found.push((directory.running_steps(), directory)),
                    Err(error) => {
                        tracing::warn!(%error, "the end of a run cannot be read");
                    }
                }
            }
            Ok(found)
        });
        // Steps that run hold slots before any other can start.
        for (steps, directory) in found.await? {
            let mut slots = BTreeMap::new();
            for step in steps {
                if let Ok(slot) = self.shared.machine.slots.clone().try_acquire_owned() {
                    slots.insert(step, slot);
                }
            }
            unended.push((directory, slots));
        }
        for (directory, slots) in unended {
            if let Err(error) = self.drive(directory.clone(), slots).await {
                tracing::error!(
                    %error,
                    directory = %directory.path().display(),
                    "a run that had not ended cannot be taken up"
                );
                let mut status = RunStatus::new(RunPhase::Interrupted);
                status.message = format!("it could not be taken up: {error}");
                status.finished_at = Some(self.shared.machine.clock.now());
                blocking(move || {
                    for step in directory.running_steps() {
                        stragglers::end(&step, None);
                    }
                    directory.record_status(&status)
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Reads a run from its directory and drives it to its end.
    async fn drive(
        &self,
        directory: RunDirectory,
        slots: BTreeMap<PathBuf, tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<()> {
        let read = directory.clone();
        let (record, cancel, kept) = blocking(move || {
            let record = read.run()?.ok_or_else(|| {
                Error::invalid("take up a run", "it has no record of its request")
            })?;
            let kept = read.steps().map(|step| log_limit::kept(&step)).sum();
            Ok((record, read.cancel()?.map(|cancel| cancel.mode), kept))
        })
        .await?;
        let pipeline = spec::read(
            &record.pipeline_run,
            &record.tenant,
            &self.shared.volumes,
            self.shared.default_timeout,
        )?;
        let key = record.key.clone();
        let board = Arc::new(Board::new(&record, &pipeline, self.shared.changed.clone()));
        let (sender, receiver) = watch::channel(cancel);
        let active =
            Active { board: board.clone(), cancel: Arc::new(sender), directory: directory.clone() };
        self.shared.active().insert(key.clone(), active);
        let context = Arc::new(RunContext {
            record,
            directory: directory.clone(),
            pipeline,
            machine: self.shared.machine.clone(),
            logs: Arc::new(RunLogs::new(self.shared.logs, kept)),
            adopted: Mutex::new(slots),
        });
        let shared = self.shared.clone();
        let driver = tokio::spawn(async move {
            let ended = executor::execute(&context, &board, receiver).await;
            // While its end is not in its directory, it is known only here.
            let Some(at) = ended else { return };
            shared.active().remove(&key);
            board.announce();
            let retired = tokio::task::spawn_blocking(move || shared.retire(&directory, at));
            // It only fails when the runtime goes away.
            let _ = retired.await;
        });
        self.drivers.keep(driver);
        Ok(())
    }

    /// Makes a run, or finds it. Runs to its end even when nobody waits for the answer.
    async fn create_or_get(&self, request: RunRequest) -> Result<EnsuredRun> {
        const OPERATION: &str = "ensure a local run";
        if !spec::is_label(&request.name) {
            return Err(Error::invalid(OPERATION, "a run's name is a DNS label")
                .with("name", format!("{:?}", request.name)));
        }
        let _creating = self.creating.lock().await;
        let directory = self.shared.directory(&request.key);
        let read = directory.clone();
        let known = blocking(move || {
            let known = if read.exists() { read.run()? } else { None };
            Ok(known.map(|record| (record, read.has_ended())))
        })
        .await?;
        let created = match known {
            Some((record, _))
                if record.key != request.key || record.pipeline_run != request.pipeline_run =>
            {
                return Err(Error::invalid(OPERATION, "another run has this key")
                    .with("run", &request.key)
                    .with("name of the other", &record.name));
            }
            Some((_, ended)) => {
                if !ended && self.shared.active_run(&request.key).is_none() {
                    self.drive(directory.clone(), BTreeMap::new()).await?;
                }
                false
            }
            None => {
                self.create(&directory, &request).await?;
                self.drive(directory.clone(), BTreeMap::new()).await?;
                true
            }
        };
        let path = directory.path().to_string_lossy();
        Ok(EnsuredRun {
            created,
            handle: path.as_ref().into(),
            link: Some(format!("file://{}", percent_encode(path.as_bytes(), "/"))),
        })
    }

    async fn create(&self, directory: &RunDirectory, request: &RunRequest) -> Result<()> {
        spec::read(
            &request.pipeline_run,
            &request.tenant,
            &self.shared.volumes,
            self.shared.default_timeout,
        )?;
        let credential = match (&request.credential, &request.clone_url) {
            (None, _) => None,
            (Some(credential), url) => {
                let files = credential.git_files(url.as_deref().unwrap_or_default())?;
                Some(GitCredential::new(files))
            }
        };
        let record = RunRecord {
            key: request.key.clone(),
            tenant: request.tenant.clone(),
            name: request.name.clone(),
            uid: run_directory::uid(&request.key),
            started_at: self.shared.machine.clock.now(),
            pipeline_run: request.pipeline_run.clone(),
        };
        let directory = directory.clone();
        blocking(move || directory.create(&record, credential.as_ref()).map(|_| ())).await
    }
}

#[async_trait]
impl RunSink for LocalSink {
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
        let (sink, request) = (self.clone(), request.clone());
        let made = tokio::spawn(async move { sink.create_or_get(request).await });
        match made.await {
            Ok(made) => made,
            Err(error) => Err(Error::transient("ensure a local run", error.to_string())),
        }
    }

    async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
        if let Some(active) = self.shared.active_run(&run.key) {
            return Ok(active.board.status());
        }
        let directory = self.shared.directory(&run.key);
        let status = blocking(move || directory.status()).await?;
        // Its end was recorded before it left the list of those that run.
        status.ok_or_else(|| {
            Error::not_found("read a local run's state", "there is no such run")
                .with("run", &run.key)
        })
    }

    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()> {
        let Some(active) = self.shared.active_run(&run.key) else { return Ok(()) };
        let directory = active.directory.clone();
        let sender = active.cancel.clone();
        blocking(move || {
            let mut recorded = Ok(());
            sender.send_if_modified(|known| {
                if known.is_some_and(|known| known >= mode) {
                    return false;
                }
                // Recorded before anything is stopped: what is found stopped was meant to be.
                recorded = directory.record_cancel(mode);
                if recorded.is_ok() {
                    *known = Some(mode);
                }
                recorded.is_ok()
            });
            match recorded {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
        .await
    }

    fn changes(&self) -> Option<BoxStream<'static, ChangedRun>> {
        let changes = BroadcastStream::new(self.shared.changed.subscribe());
        // Who lags misses changes, which a hint may do.
        Some(changes.filter_map(|change| async { change.ok() }).boxed())
    }

    fn logs(&self) -> Option<&dyn LogSource> {
        Some(self.logs.as_ref())
    }
}
