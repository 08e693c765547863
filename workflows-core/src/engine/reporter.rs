//! Driving statuses on commits to what they should show.
//!
//! What should show is computed from the run whenever the reporter looks, and the host is told only
//! when that differs from what it was told last. So a repeated call changes nothing, a crash between
//! the call and its record makes one more call, and after an outage the host is told the present
//! state, not the history.

use jiff::SignedDuration;

use super::{backoff, core::Core, presentation, run_identity::ADOPTED};
use crate::{
    Error, ErrorKind, Result,
    repo::{EarlierReport, ReportedStatus, Status, StatusState},
    source::Connections,
    store::{
        Claim, Committed, Effects, ShownStatus, StatusKey, StatusRecord, StatusSubject, WorkKey,
    },
};

/// For how long a host may not know a commit. It may tell of one before all of it knows that one,
/// and hosts that come back from an outage do not know much at first.
const UNKNOWN: SignedDuration = SignedDuration::from_hours(6);

/// Drives the status of a claim to what it should show.
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Status { status: key } = &claim.work.key else {
        return core.commit(claim, Effects::default()).await;
    };
    let Some(record) = core.store.status(key).await? else {
        return core.commit(claim, Effects::default()).await;
    };
    let Some(Wanted { status: wanted, may_show_already }) = wanted(core, &record).await? else {
        return core.commit(claim, Effects::default()).await;
    };
    let digest = presentation::digest(&wanted);
    let order = record.desire.order;
    let now = core.clock.now();
    if let Some(shown) = &record.shown {
        let own = shown.order == order;
        let shows_it = *shown.digest == *digest;
        let shows_later = shown.state.rank() > wanted.state.rank();
        if own && (shows_it || shows_later) {
            return core.commit(claim, Effects::default()).await;
        }
        let due = backoff::after(shown.at, core.options.progress_interval);
        if own && shown.state == StatusState::InProgress && wanted.state == shown.state && due > now
        {
            let effects = Effects { again: Some(due), ..Effects::default() };
            return core.commit(claim, effects).await;
        }
    }
    let show = |id: String| ShownStatus {
        digest: digest.as_str().into(),
        state: wanted.state,
        order,
        id,
        at: now,
    };
    let known = record.shown.as_ref().map(|shown| shown.id.clone()).filter(|id| !id.is_empty());
    let earlier = EarlierReport {
        id: known.as_deref(),
        // What was given up may have reached the host, too.
        may_have_reached: may_show_already || claim.attempts > 1 || record.error.is_some(),
    };
    let mut after = record.clone();
    after.updated_at = now;
    match report(core, key, &wanted, earlier).await {
        Ok(reported) => {
            after.shown = Some(show(reported.id));
            after.error = None;
            core.metrics.status("shown");
        }
        Err(error) if error.kind() == ErrorKind::Conflict => {
            // The host shows something later. It is not asked again until the run changes.
            after.shown = Some(show(known.unwrap_or_default()));
            after.error = Some(error.to_string());
            core.metrics.status("kept");
        }
        Err(error) if is_given_up(core, claim, &error) => {
            tracing::warn!(%error, "a status cannot be shown");
            after.error = Some(error.to_string());
            core.metrics.status("given_up");
        }
        Err(error) if error.kind().is_retryable() => return Err(error),
        Err(error) => {
            return Err(Error::transient("show a status", error.to_string()).caused_by(error));
        }
    }
    core.commit(claim, Effects { reported: vec![after], ..Effects::default() }).await
}

/// What a status should show now.
struct Wanted {
    status: Status,
    /// Whether a ledger that was lost may have shown it.
    may_show_already: bool,
}

/// `None` when its run is not kept any more.
async fn wanted(core: &Core, record: &StatusRecord) -> Result<Option<Wanted>> {
    let key = &record.desire.key;
    match &record.desire.subject {
        StatusSubject::Run { run } => {
            let run = core.store.run(&key.tenant, run).await?;
            Ok(run.map(|run| Wanted {
                status: presentation::of_run(key, &run),
                may_show_already: run.remarks.contains_key(ADOPTED),
            }))
        }
        StatusSubject::Note { state, title, summary, actions } => {
            let status = presentation::of_note(key, *state, title, summary, actions);
            Ok(Some(Wanted { status, may_show_already: false }))
        }
    }
}

async fn report(
    core: &Core,
    key: &StatusKey,
    status: &Status,
    earlier: EarlierReport<'_>,
) -> Result<ReportedStatus> {
    let connection = core.connections.repository(&key.tenant, &key.repo.connection, &key.repo.name);
    let connection = core.call("connect to the repository", connection).await?;
    let reporter = connection.status_reporter().ok_or_else(|| {
        Error::unsupported(
            "show a status",
            "the repository's host has no place for statuses; the archive tells how runs stand",
        )
        .with("connection", &key.repo.connection)
    })?;
    core.call("show a status", reporter.report(status, earlier)).await
}

/// What cannot be shown is recorded as such until the run changes again. Faults that pass are tried
/// again for a long time; so is a refusal, for the credentials may be mended meanwhile.
fn is_given_up(core: &Core, claim: &Claim, error: &Error) -> bool {
    let tried = backoff::tried_for(claim, error.kind(), core.clock.now());
    match error.kind() {
        ErrorKind::NotFound => tried > UNKNOWN.min(core.options.status_max_age),
        kind if kind.is_retryable() || kind == ErrorKind::Denied => {
            tried > core.options.status_max_age
        }
        _ => true,
    }
}
