//! Notifiers for Workflows.
//!
//! | notifier | feature | whom it tells |
//! | --- | --- | --- |
//! | [`LogNotifier`] | – | the log: a structured [`tracing`] event for each transition |
//! | [`TerminalNotifier`] | `terminal` | a terminal or any other writer, in lines |
//! | [`StatusNotifier`] | – | the commit of a run that the engine did not create |
//! | [`PipelineNotifier`] | – | whomever a pipeline tells, which is run for it |
//! | [`SlackNotifier`](slack::SlackNotifier) | `slack` | a channel of Slack |
//! | [`CloudEventsNotifier`] | `cloud-events` | programs, with CloudEvents of Tekton's types or CDEvents |
//! | [`WebhookNotifier`] | `webhook` | programs, with signed JSON |
//!
//! A notifier of your own implements [`Notifier`](workflows_core::Notifier); it needs nothing of this
//! crate. [`describe()`] has the sentence that these share. None of them needs an engine: a
//! program may call one with a [`RunView`](workflows_core::RunView) of any run.

#[cfg(feature = "cloud-events")]
mod cloud_events;
mod describe;
#[cfg(any(feature = "slack", feature = "webhook"))]
mod http;
mod log;
mod pipeline;
#[cfg(any(feature = "slack", feature = "webhook"))]
mod secret;
#[cfg(feature = "slack")]
pub mod slack;
mod status;
#[cfg(feature = "terminal")]
mod terminal;
#[cfg(feature = "webhook")]
mod webhook;

#[cfg(feature = "cloud-events")]
pub use self::cloud_events::{
    CloudEventFormat, CloudEventMode, CloudEventsBuilder, CloudEventsNotifier,
};
#[cfg(any(feature = "slack", feature = "webhook"))]
pub use self::secret::NotifierSecret;
#[cfg(feature = "terminal")]
pub use self::terminal::{Colors, TerminalNotifier};
#[cfg(feature = "webhook")]
pub use self::webhook::{WebhookBuilder, WebhookNotifier, WebhookSecret};
pub use self::{
    describe::describe, log::LogNotifier, pipeline::PipelineNotifier, status::StatusNotifier,
};
