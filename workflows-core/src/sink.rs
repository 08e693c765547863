//! Where runs execute: [`RunSink`].

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CloneCredential, Error, Result, RunKey, Tenant};

/// Where runs execute: Tekton on Kubernetes, processes of this machine, a private executor.
///
/// # Implementing
///
/// `ensure` is create-or-get by [`RunRequest::key`]: called twice, also from two processes at once,
/// or again after a lost answer, it makes one run. The engine assumes no namespace and no
/// synchronous creation; `NotFound` from [`state`](Self::state) does not mean that the run was never
/// created.
///
/// # Example
///
/// One whose runs have ended well when they are created.
///
/// ```
/// use std::{collections::BTreeSet, sync::Mutex};
///
/// use async_trait::async_trait;
/// use workflows_core::{
///     CancelMode, Error, Result, RunKey, RunPhase, RunSink,
///     sink::{EnsuredRun, RunRequest, RunStatus, SinkRun},
/// };
///
/// #[derive(Debug, Default)]
/// struct DryRun(Mutex<BTreeSet<RunKey>>);
///
/// #[async_trait]
/// impl RunSink for DryRun {
///     async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
///         let created = self.0.lock().unwrap().insert(request.key.clone());
///         Ok(EnsuredRun { created, handle: request.name.clone(), link: None })
///     }
///
///     async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
///         match self.0.lock().unwrap().contains(&run.key) {
///             true => Ok(RunStatus::new(RunPhase::Succeeded)),
///             false => Err(Error::not_found("look at a run", "nobody asked for it")),
///         }
///     }
///
///     async fn cancel(&self, _run: &SinkRun, _mode: CancelMode) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait RunSink: Debug + Send + Sync + 'static {
    /// Makes the run exist.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Unsupported` when this run can never be executed here (the run fails with the
    /// message); `Denied`; `RateLimited` and `Transient` are tried again by the engine.
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun>;

    /// How it stands. `NotFound` when it is not known here (any more).
    async fn state(&self, run: &SinkRun) -> Result<RunStatus>;

    /// Asks it to end. A run that has ended or is not known is success; a stronger mode may follow
    /// a weaker one.
    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()>;

    /// Puts a newer credential in the place of the one that a run was given. A run that has ended or
    /// is not known is success. By default nothing happens, for a sink whose runs cannot see it.
    async fn renew(&self, _run: &SinkRun, _given: &GivenCredential) -> Result<()> {
        Ok(())
    }

    /// The runs that changed, as they change, for as long as the stream is read; `None` when the
    /// engine has to ask. A stream may miss changes and repeat them: it is a hint.
    fn changes(&self) -> Option<BoxStream<'static, ChangedRun>> {
        None
    }

    /// The runs that are here, whatever the engine knows of them: what a ledger that was lost is
    /// rebuilt from. By default there are none, for a sink whose runs do not outlive the ledger.
    fn existing(&self) -> BoxStream<'static, Result<ExistingRun>> {
        futures::stream::empty().boxed()
    }

    /// Logs of steps, where the sink keeps them.
    fn logs(&self) -> Option<&dyn LogSource> {
        None
    }
}

/// A run that a sink has, with what it was created with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExistingRun {
    /// The PipelineRun, with the annotations that say which run's it is.
    pub pipeline_run: Value,
    /// As [`EnsuredRun::handle`].
    pub handle: Arc<str>,
    /// As [`EnsuredRun::link`].
    pub link: Option<String>,
    /// The credential that it was given last, where the sink still has it: by its end it is known when
    /// to renew it, and by its text what to keep out of logs.
    pub credential: Option<CloneCredential>,
}

impl ExistingRun {
    /// A run without a link and without a credential.
    pub fn new(pipeline_run: Value, handle: impl Into<Arc<str>>) -> Self {
        Self { pipeline_run, handle: handle.into(), link: None, credential: None }
    }

    /// Adds the credential that it was given.
    #[must_use]
    pub fn with_credential(mut self, credential: Option<CloneCredential>) -> Self {
        self.credential = credential;
        self
    }
}

/// That a run changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChangedRun {
    /// Its tenant.
    pub tenant: Tenant,
    /// Its key.
    pub key: RunKey,
}

/// A run that should exist.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunRequest {
    /// Its key: the identity under which `ensure` creates or gets.
    pub key: RunKey,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name: at most 63 characters, a DNS-1123 label, derived from the key.
    pub name: Arc<str>,
    /// The whole `tekton.dev/v1` PipelineRun.
    pub pipeline_run: Arc<Value>,
    /// A credential to clone the repository with, where the connection can mint one.
    pub credential: Option<CloneCredential>,
    /// The address that the credential is for, and no other: the repository's clone address.
    pub clone_url: Option<Arc<str>>,
}

impl RunRequest {
    /// A request without a credential.
    pub fn new(
        key: RunKey,
        tenant: Tenant,
        name: impl Into<Arc<str>>,
        pipeline_run: Value,
    ) -> Self {
        Self {
            key,
            tenant,
            name: name.into(),
            pipeline_run: Arc::new(pipeline_run),
            credential: None,
            clone_url: None,
        }
    }

    /// Adds a credential.
    #[must_use]
    pub fn with_credential(mut self, credential: Option<CloneCredential>) -> Self {
        self.credential = credential;
        self
    }

    /// Sets the address that the credential is for.
    #[must_use]
    pub fn with_clone_url(mut self, clone_url: impl Into<Arc<str>>) -> Self {
        self.clone_url = Some(clone_url.into());
        self
    }
}

/// A credential of a run, and what it is for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GivenCredential {
    /// The credential.
    pub credential: CloneCredential,
    /// The address that it is for, and no other: the repository's clone address.
    pub clone_url: Arc<str>,
}

impl GivenCredential {
    /// A credential for this address.
    pub fn new(credential: CloneCredential, clone_url: impl Into<Arc<str>>) -> Self {
        Self { credential, clone_url: clone_url.into() }
    }
}

/// What `ensure` found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsuredRun {
    /// Whether this call created it.
    pub created: bool,
    /// The sink's own name for it, handed back in every later call; opaque to the engine.
    pub handle: Arc<str>,
    /// Where people can watch it.
    pub link: Option<String>,
}

/// A run as later calls name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkRun {
    /// Its key.
    pub key: RunKey,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name.
    pub name: Arc<str>,
    /// What `ensure` returned; `None` when its answer was lost.
    pub handle: Option<Arc<str>>,
}

/// How a run ends when it is asked to, in Tekton's terms (`spec.status` of a PipelineRun, see
/// <https://tekton.dev/docs/pipelines/pipelineruns/#cancelling-a-pipelinerun>).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum CancelMode {
    /// Running tasks end by themselves, no new ones start, `finally` runs: `StoppedRunFinally`.
    AfterRunningTasks,
    /// Running tasks are stopped, `finally` runs: `CancelledRunFinally`.
    RunFinally,
    /// Everything stops: `Cancelled`.
    AtOnce,
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RunStatus {
    /// The phase.
    pub phase: RunPhase,
    /// One line: why it is in this phase.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Its tasks, in the order in which they started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskStatus>,
    /// The pipeline's results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<RunResult>,
}

impl RunStatus {
    /// A status of which only the phase is known.
    pub fn new(phase: RunPhase) -> Self {
        Self {
            phase,
            message: String::new(),
            started_at: None,
            finished_at: None,
            tasks: Vec::new(),
            results: Vec::new(),
        }
    }
}

/// The phase of a run as its sink sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunPhase {
    /// It exists and has not started.
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It was stopped.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// It was taken away or broken off before it ended.
    Interrupted,
}

impl RunPhase {
    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Its name in the pipeline.
    pub name: Arc<str>,
    /// How it stands.
    pub phase: TaskPhase,
    /// Why, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Where people can watch it: an `http` or `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Its steps, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPhase {
    /// It waits for others.
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It was stopped.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// It did not have to run.
    Skipped,
}

/// One step of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its exit code, when it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// A result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Its name.
    pub name: Arc<str>,
    /// A string, an array of strings or an object of strings.
    pub value: Value,
}

/// Where the logs of steps are.
#[async_trait]
pub trait LogSource: Debug + Send + Sync {
    /// The bytes that a step has written, oldest first; with `follow`, also those to come, until
    /// the step ends.
    fn stream(
        &self,
        run: &SinkRun,
        step: &LogRef,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes>>;

    /// The last bytes that a step has written, at most `max_bytes`.
    async fn tail(&self, run: &SinkRun, step: &LogRef, max_bytes: usize) -> Result<Bytes> {
        last_bytes(self.stream(run, step, false), max_bytes).await
    }
}

/// The last bytes of a log, at most `max_bytes`, whatever its length.
///
/// # Errors
///
/// The stream's.
pub async fn last_bytes(mut log: BoxStream<'_, Result<Bytes>>, max_bytes: usize) -> Result<Bytes> {
    let mut tail = Vec::new();
    while let Some(chunk) = log.try_next().await? {
        tail.extend_from_slice(&chunk);
        if tail.len() > 2 * max_bytes {
            tail.drain(..tail.len() - max_bytes);
        }
    }
    let from = tail.len().saturating_sub(max_bytes);
    Ok(Bytes::from(tail.split_off(from)))
}

/// Which step's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogRef {
    /// The task's name in the pipeline.
    pub task: Arc<str>,
    /// The step's name.
    pub step: Arc<str>,
}

impl std::str::FromStr for CancelMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "afterRunningTasks" => Ok(Self::AfterRunningTasks),
            "runFinally" => Ok(Self::RunFinally),
            "atOnce" => Ok(Self::AtOnce),
            other => Err(Error::invalid(
                "read a cancel mode",
                "expected afterRunningTasks, runFinally or atOnce",
            )
            .with("text", format!("{other:?}"))),
        }
    }
}
