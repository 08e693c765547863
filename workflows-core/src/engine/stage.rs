//! One piece of work, from its claim to what came of it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tracing::Instrument;

use super::{
    answers, backoff, core::Core, dispatcher, matcher, metrics::error_label, observer, outbox,
    reporter, scheduler,
};
use crate::{
    Error, Result,
    store::{Claim, CommentKey, Committed, Release, Stage, WorkKey},
};

/// What became of a claim.
#[derive(Debug)]
pub(crate) struct Handled {
    /// Whether it came to something that was committed.
    pub(crate) committed: bool,
    /// Claims on what it made due.
    pub(crate) next: Vec<Claim>,
}

/// Does a claim's work, and gives the claim back when that failed or panicked.
pub(crate) async fn handle(core: &Core, claim: &Claim) -> Handled {
    let span = span(claim);
    let began = core.clock.now();
    let outcome = AssertUnwindSafe(work(core, claim).instrument(span.clone())).catch_unwind().await;
    let stage = claim.work.stage;
    let took = core.clock.now().duration_since(began);
    let (label, error) = match outcome {
        Ok(Ok(committed)) => {
            core.metrics.handled(stage, "ok", took);
            core.health.stage_succeeded(stage);
            core.committed.notify_waiters();
            return Handled { committed: true, next: committed.claims };
        }
        Ok(Err(error)) => (error_label(error.kind()), error),
        Err(_) => (
            "panicked",
            Error::transient("work on a stage", "the stage panicked; its claim was given back"),
        ),
    };
    core.metrics.handled(stage, label, took);
    give_back(core, claim, &error).instrument(span).await;
    Handled { committed: false, next: Vec::new() }
}

async fn work(core: &Core, claim: &Claim) -> Result<Committed> {
    match claim.work.stage {
        Stage::Dispatch => dispatcher::run(core, claim).await,
        Stage::Observe => observer::run(core, claim).await,
        Stage::Report => match &claim.work.key {
            WorkKey::Acknowledgement { event } => answers::acknowledge(core, claim, event).await,
            WorkKey::Comment { comment } => answers::keep_up_to_date(core, claim, comment).await,
            _ => reporter::run(core, claim).await,
        },
        Stage::Notify => outbox::run(core, claim).await,
        Stage::Schedule => scheduler::run(core, claim).await,
        Stage::Match => matcher::run(core, claim).await,
    }
}

async fn give_back(core: &Core, claim: &Claim, error: &Error) {
    let now = core.clock.now();
    let release = backoff::release(claim, error, now);
    let next = release.not_before.unwrap_or(now);
    match error.kind() {
        crate::ErrorKind::Conflict => {
            tracing::debug!(%error, attempts = claim.attempts, "decided again");
        }
        kind if kind.is_retryable() => {
            tracing::warn!(%error, attempts = claim.attempts, %next, "tried again later");
            core.health.stage_failed(claim.work.stage, error, next);
        }
        _ => {
            tracing::error!(%error, attempts = claim.attempts, %next, "a stage gave no outcome");
            core.health.stage_failed(claim.work.stage, error, next);
        }
    }
    // When the lease was lost, somebody else has the work.
    if let Err(error) = core.store.release(&claim.lease, release).await {
        tracing::debug!(%error, "a claim could not be given back");
    }
}

/// Gives back a claim on which work was broken off, since the drain is over: it is due at once.
/// It stays an attempt, for what it called may have taken effect.
pub(crate) async fn give_back_broken_off(core: &Core, claim: &Claim) {
    let error = claim.last_error.clone();
    let error = error.unwrap_or_else(|| "the engine stopped before it came to an end".to_owned());
    let release = Release { not_before: None, error: Some(error) };
    if let Err(error) = core.store.release(&claim.lease, release).await {
        tracing::debug!(%error, "a claim could not be given back");
    }
}

/// Gives back a claim that nobody worked on: it is due at once.
pub(crate) async fn give_back_untouched(core: &Core, claim: &Claim) {
    if let Err(error) = core.store.release(&claim.lease, Release::default()).await {
        tracing::debug!(%error, "a claim could not be given back");
    }
}

fn span(claim: &Claim) -> tracing::Span {
    let span = tracing::info_span!(
        "work",
        stage = claim.work.stage.as_str(),
        tenant = %claim.work.tenant,
        run = tracing::field::Empty,
        event = tracing::field::Empty,
        attempt = tracing::field::Empty,
        status = tracing::field::Empty,
        comment = tracing::field::Empty,
        notifier = tracing::field::Empty,
    );
    match &claim.work.key {
        WorkKey::Event { event, attempt } => {
            span.record("event", event.as_str());
            span.record("attempt", attempt.as_str());
        }
        WorkKey::Run { run } => {
            span.record("run", run.as_str());
        }
        WorkKey::Status { status } => {
            span.record("status", format!("{} {}", status.commit.short(), status.context));
        }
        WorkKey::Acknowledgement { event } => {
            span.record("event", event.as_str());
        }
        WorkKey::Comment { comment } => {
            let CommentKey { repo, pull_request, purpose } = comment;
            span.record("comment", format!("{} {pull_request} {}", repo.name, purpose.as_str()));
        }
        WorkKey::Outbox { run, notifier } => {
            span.record("run", run.as_str());
            span.record("notifier", notifier.as_str());
        }
    }
    span
}
