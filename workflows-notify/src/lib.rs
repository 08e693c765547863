//! Notifiers for Workflows.
//!
//! - [`TerminalNotifier`] (feature `terminal`): a line for each transition on any writer, with the
//!   last lines of a failing step, and progress on long runs.
//! - [`LogNotifier`]: a structured [`tracing`] event for each transition.
//!
//! A notifier of your own implements [`Notifier`](workflows_core::Notifier); it needs nothing of this
//! crate. [`describe`] has the sentence that these two share.

mod describe;
mod log;
#[cfg(feature = "terminal")]
mod terminal;

#[cfg(feature = "terminal")]
pub use self::terminal::{Colors, TerminalNotifier};
pub use self::{describe::describe, log::LogNotifier};
