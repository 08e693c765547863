//! What an event is matched with, each part made or fetched at most once.

use std::{
    fmt::Debug,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{ChangedFiles, Command, commands};
use crate::{Error, Event, Result, event::Payload};

/// What can be fetched about an event when a trigger hangs on it.
#[async_trait]
pub trait EventDetails: Debug + Send + Sync {
    /// The files that the event changed. Asked at most once for an event.
    ///
    /// # Errors
    ///
    /// A retryable kind makes the whole event be matched again later; any other is recorded with
    /// each trigger that hangs on it.
    async fn changed_files(&self) -> Result<ChangedFiles>;

    /// The raw payload; `None` when there was none or it is not kept any more. Asked at most once
    /// for an event.
    ///
    /// # Errors
    ///
    /// As [`changed_files`](Self::changed_files).
    async fn payload(&self) -> Result<Option<Payload>>;
}

/// An event about which nothing more can be had.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDetails;

#[async_trait]
impl EventDetails for NoDetails {
    async fn changed_files(&self) -> Result<ChangedFiles> {
        Err(Error::unsupported("list changed files", "the changed files of this event are unknown"))
    }

    async fn payload(&self) -> Result<Option<Payload>> {
        Ok(None)
    }
}

/// An event to be matched, and what belongs to it. One is made for an event and used for all sets
/// of triggers, so that nothing is fetched or parsed twice.
#[derive(Debug)]
pub struct MatchInput {
    event: Arc<Event>,
    details: Arc<dyn EventDetails>,
    view: OnceLock<Value>,
    commands: OnceLock<Vec<Command>>,
    changed_files: OnceCell<Fetched<ChangedFiles>>,
    payload: OnceCell<Fetched<Option<ParsedPayload>>>,
}

/// What was fetched, or why it can never be had.
type Fetched<T> = Result<T, String>;

/// A payload as expressions see it.
#[derive(Debug)]
pub struct ParsedPayload {
    /// The kept headers, by lower-case name.
    pub headers: Value,
    /// The body, or why it is not JSON.
    pub body: Result<Value, String>,
}

impl MatchInput {
    /// An event, and where more about it can be had.
    pub fn new(event: Arc<Event>, details: Arc<dyn EventDetails>) -> Self {
        Self {
            event,
            details,
            view: OnceLock::new(),
            commands: OnceLock::new(),
            changed_files: OnceCell::new(),
            payload: OnceCell::new(),
        }
    }

    /// The event.
    pub fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// The event as expressions see it.
    pub fn view(&self) -> &Value {
        self.view.get_or_init(|| self.event.view())
    }

    /// The commands of the comment, when it is one.
    pub fn commands(&self) -> &[Command] {
        self.commands.get_or_init(|| {
            self.event.comment.as_ref().map_or_else(Vec::new, |c| commands(&c.body))
        })
    }

    /// The changed files, or why they cannot be had.
    ///
    /// # Errors
    ///
    /// What the [`EventDetails`] failed with, when that may go through later.
    pub async fn changed_files(&self) -> Result<&Result<ChangedFiles, String>> {
        self.changed_files
            .get_or_try_init(|| async { settle(self.details.changed_files().await) })
            .await
    }

    /// The payload, or why it cannot be had.
    ///
    /// # Errors
    ///
    /// What the [`EventDetails`] failed with, when that may go through later.
    pub async fn payload(&self) -> Result<&Result<Option<ParsedPayload>, String>> {
        self.payload
            .get_or_try_init(|| async {
                let payload = settle(self.details.payload().await)?;
                Ok(payload.map(|payload| payload.as_ref().map(ParsedPayload::of)))
            })
            .await
    }
}

/// An error that may pass is the caller's to retry; any other is an answer.
fn settle<T>(fetched: Result<T>) -> Result<Fetched<T>> {
    match fetched {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind().is_retryable() => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

impl ParsedPayload {
    fn of(payload: &Payload) -> Self {
        let headers = payload
            .headers()
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect();
        let body = serde_json::from_slice(payload.body())
            .map_err(|error| format!("the payload is not JSON: {error}"));
        Self { headers: Value::Object(headers), body }
    }
}
