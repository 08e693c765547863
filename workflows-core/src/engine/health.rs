//! How the engine gets on: [`Health`]. Health is progress: when each part last got through.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Capabilities, ConnectionName, Error, NotifierName, SinkName, SourceName, Tenant,
    source::ProgressSink,
    store::{Backlog, Stage},
};

/// How the engine gets on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// When this was put together.
    pub at: Timestamp,
    /// What the event sources tell, by source and thing.
    pub sources: Vec<SourceHealth>,
    /// The stages, in the order of the flow.
    pub stages: Vec<StageHealth>,
    /// The connections, and what each offers.
    pub connections: Vec<ConnectionHealth>,
    /// The sinks by name.
    pub sinks: Vec<SinkHealth>,
    /// The notifiers, by tenant and name.
    pub notifiers: Vec<NotifierHealth>,
}

impl Health {
    /// What needs somebody's attention, in words: sources and stages whose last try failed,
    /// and notifiers whose destinations take nothing.
    pub fn problems(&self) -> Vec<String> {
        let sources = self.sources.iter().filter_map(|one| {
            let error = one.progress.last_error.as_ref().filter(|_| one.progress.is_failing())?;
            Some(format!("source {} ({}): {}", one.source, one.what, error.message))
        });
        let stages = self.stages.iter().filter_map(|one| {
            let error = one.progress.last_error.as_ref().filter(|_| one.progress.is_failing())?;
            Some(format!("stage {}: {}", one.backlog.stage, error.message))
        });
        let notifiers = self.notifiers.iter().filter_map(|one| {
            let error = one.last_error.as_ref()?;
            Some(format!("notifier {} of {}: {error}", one.notifier, one.tenant))
        });
        sources.chain(stages).chain(notifiers).collect()
    }
}

/// When something last got through, and when it last did not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Progress {
    /// When it last got through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// The last failure; it stays when a later try got through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
    /// How often it got through since the engine was built.
    pub successes: u64,
    /// How often it did not.
    pub failures: u64,
    /// When it is tried again, when the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// With what.
    pub message: String,
}

impl Progress {
    /// Whether the last try failed.
    pub fn is_failing(&self) -> bool {
        self.next_try.is_some()
    }

    fn succeeded(&mut self, at: Timestamp) {
        self.last_success = Some(at);
        self.successes += 1;
        self.next_try = None;
    }

    fn failed(&mut self, at: Timestamp, error: &Error, next: Timestamp) {
        self.last_error = Some(Failure { at, message: error.to_string() });
        self.failures += 1;
        self.next_try = Some(next);
    }
}

/// How one source gets on with one thing, such as a repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SourceHealth {
    /// The source.
    pub source: SourceName,
    /// The thing, in the source's own words.
    pub what: String,
    /// How it gets on.
    #[serde(flatten)]
    pub progress: Progress,
}

/// How a stage gets on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StageHealth {
    /// How much work waits in the ledger.
    #[serde(flatten)]
    pub backlog: Backlog,
    /// How this process gets on with it.
    #[serde(flatten)]
    pub progress: Progress,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConnectionHealth {
    /// The tenant.
    pub tenant: Tenant,
    /// Its name.
    pub connection: ConnectionName,
    /// The host.
    pub host: String,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The directory that workflows are read from; `None` when its repositories define none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<String>,
}

/// A sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SinkHealth {
    /// Its name.
    pub sink: SinkName,
    /// Whether it executes what names no sink.
    pub default: bool,
    /// Whether it tells of changes, rather than being asked for them.
    pub tells_changes: bool,
    /// Whether it keeps logs.
    pub logs: bool,
}

/// A notifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NotifierHealth {
    /// The tenant.
    pub tenant: Tenant,
    /// Its name.
    pub notifier: NotifierName,
    /// Until when it is left alone by this process, because deliveries failed or were told to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_until: Option<Timestamp>,
    /// With what they failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Where sources and stages tell how they get on.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    clock: crate::SharedClock,
    state: Mutex<BoardState>,
}

#[derive(Debug, Default)]
struct BoardState {
    sources: BTreeMap<(SourceName, String), Progress>,
    stages: BTreeMap<Stage, Progress>,
}

impl HealthBoard {
    pub(crate) fn new(clock: crate::SharedClock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stage_succeeded(&self, stage: Stage) {
        let now = self.clock.now();
        self.state().stages.entry(stage).or_default().succeeded(now);
    }

    pub(crate) fn stage_failed(&self, stage: Stage, error: &Error, next: Timestamp) {
        let now = self.clock.now();
        self.state().stages.entry(stage).or_default().failed(now, error, next);
    }

    /// What a stage failed with is over, though there may be no work to show it; a failure that
    /// came after it is not.
    pub(crate) fn stage_is_over(&self, stage: Stage, error: &Error) {
        if let Some(progress) = self.state().stages.get_mut(&stage)
            && progress.last_error.as_ref().is_some_and(|last| last.message == error.to_string())
        {
            progress.next_try = None;
        }
    }

    pub(crate) fn sources(&self) -> Vec<SourceHealth> {
        let state = self.state();
        let of = |((source, what), progress): (&(SourceName, String), &Progress)| SourceHealth {
            source: source.clone(),
            what: what.clone(),
            progress: progress.clone(),
        };
        state.sources.iter().map(of).collect()
    }

    pub(crate) fn stage(&self, backlog: Backlog) -> StageHealth {
        let progress = self.state().stages.get(&backlog.stage).cloned().unwrap_or_default();
        StageHealth { backlog, progress }
    }
}

impl ProgressSink for HealthBoard {
    fn succeeded(&self, source: &SourceName, what: &str, at: Timestamp) {
        let key = (source.clone(), what.to_owned());
        self.state().sources.entry(key).or_default().succeeded(at);
    }

    fn failed(&self, source: &SourceName, what: &str, error: &Error, next: Timestamp) {
        let key = (source.clone(), what.to_owned());
        let now = self.clock.now();
        self.state().sources.entry(key).or_default().failed(now, error, next);
    }
}
