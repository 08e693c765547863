//! Transitions as structured log events.

use async_trait::async_trait;
use workflows_core::{Delivered, NotificationView, Notifier, Result, Transition};

use crate::describe;

/// Emits a [`tracing`] event for each transition: `WARN` when a run failed, timed out, expired,
/// was refused or takes longer than usual, `DEBUG` for progress, `INFO` otherwise. The fields are `run`, `repository`,
/// `workflow`, `trigger`, `commit`, `transition` and `delivery`; a repeated delivery has the same
/// `delivery`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogNotifier;

#[async_trait]
impl Notifier for LogNotifier {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let run = &notification.run;
        let commit = run.commit.as_ref().map_or("", |commit| commit.as_str());
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(
                    run = %run.key,
                    repository = %run.repo,
                    workflow = %run.workflow,
                    trigger = %run.trigger,
                    commit,
                    transition = notification.transition.as_str(),
                    delivery = %notification.key,
                    "{}",
                    describe(notification.transition, run)
                )
            };
        }
        match notification.transition {
            Transition::Failed
            | Transition::StillFailing
            | Transition::RunningLong
            | Transition::TimedOut
            | Transition::Expired
            | Transition::Refused => emit!(warn),
            Transition::Progress => emit!(debug),
            _ => emit!(info),
        }
        Ok(Delivered::default())
    }
}
