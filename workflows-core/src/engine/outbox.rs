//! Delivering the notifications of the outbox: about one run to one notifier, in order.
//!
//! A notification is delivered at least once with the same key: a crash between the delivery and
//! its record makes it be delivered again, and the notifier is told that this may be so. A
//! destination that is closed ([`destinations`](super::destinations)) puts deliveries off without
//! trying them.

use std::sync::Arc;

use jiff::Timestamp;

use super::{backoff, core::Core, destinations::Admission};
use crate::{
    Delivered, Error, ErrorKind, Event, NotificationView, Notifier, Result,
    repo::CommitInfo,
    source::Connections,
    store::{
        Claim, Committed, DeliveryQuery, Effects, NotificationState, OutboxNotification,
        PageRequest, Release, WorkKey,
    },
};

/// So many notifications about a run are looked through for those that were delivered.
const EARLIER: u32 = 200;

/// Delivers the next notification of a claim.
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Outbox { run, notifier } = &claim.work.key else {
        return core.commit(claim, Effects::default()).await;
    };
    let tenant = &claim.work.tenant;
    let mut pending = core.store.outbox(tenant, run, notifier).await?.into_iter();
    let Some(mut next) = pending.next() else {
        return core.commit(claim, Effects::default()).await;
    };
    let waiting: Vec<_> = pending.collect();
    let more = !waiting.is_empty();
    let now = core.clock.now();
    let found = match core.notifiers.get(tenant, notifier) {
        Ok(found) => found,
        Err(error) => return settle(core, claim, next, more, Err(error)).await,
    };
    let pass = match core.notifiers.destinations.admit(tenant, notifier, now) {
        Admission::Now(pass) => pass,
        Admission::NotBefore(_) if is_too_old(core, &next, now) => {
            let why = core.notifiers.destinations.closed(tenant, notifier, now);
            let why = why.map_or_else(|| "it is busy".to_owned(), |(_, why)| why);
            let error = Error::invalid("deliver a notification", "its destination took nothing")
                .with("because", next.result.clone().unwrap_or(why));
            return settle(core, claim, next, more, Err(error)).await;
        }
        Admission::NotBefore(at) => {
            let release = Release { not_before: Some(at), error: None };
            core.store.release(&claim.lease, release).await?;
            return Ok(Committed::default());
        }
    };
    let mut view = NotificationView::new(
        next.key.clone(),
        next.transition,
        next.created_at,
        next.view.clone(),
    );
    // Of work that was claimed before and came to nothing, nobody knows how far it got.
    next.may_have_reached |= claim.attempts > 1;
    view.may_have_reached = next.may_have_reached;
    let delivered = delivered(core, &next).await?;
    view.earlier = delivered.iter().find_map(|one| one.result.clone());
    // One that is sent again comes before what was told meanwhile.
    let mut later: Vec<_> =
        delivered.iter().filter(|one| one.id > next.id).chain(&waiting).collect();
    later.sort_by_key(|one| one.id);
    view.followed_by = later.into_iter().map(|one| one.transition).collect();
    complete(core, &next, &*found, &mut view).await;
    let told = core.call("deliver a notification", found.deliver(&view)).await;
    match &told {
        Ok(_) => pass.delivered(),
        Err(error) => pass.failed(error, now),
    }
    settle(core, claim, next, more, told).await
}

/// Records what came of a notification.
async fn settle(
    core: &Core,
    claim: &Claim,
    mut told: OutboxNotification,
    more: bool,
    outcome: Result<Delivered>,
) -> Result<Committed> {
    let now = core.clock.now();
    told.may_have_reached |= outcome.as_ref().is_err_and(Error::may_have_done_some);
    let again = match outcome {
        Ok(delivered) => {
            told.state = NotificationState::Delivered;
            told.result = delivered.reference;
            core.metrics.notification(&told.notifier, "delivered");
            more.then_some(now)
        }
        Err(error) if is_dead(core, &told, &error, now) => {
            tracing::warn!(%error, transition = %told.transition, "a notification was given up");
            told.state = NotificationState::Dead;
            told.result = Some(error.to_string());
            core.metrics.notification(&told.notifier, "dead");
            more.then_some(now)
        }
        Err(error) => {
            tracing::info!(%error, transition = %told.transition, "a notification is tried again");
            told.result = Some(error.to_string());
            core.metrics.notification(&told.notifier, "retried");
            let tried = told.attempts.saturating_add(1);
            Some(backoff::next_try(&error, tried, told.key.as_str(), now))
        }
    };
    told.attempts = told.attempts.saturating_add(1);
    told.tried_at = Some(now);
    let effects = Effects { delivered: vec![told], again, ..Effects::default() };
    core.commit(claim, effects).await
}

/// Faults that pass are tried again until the notification is too old; so is a refusal, for the
/// credentials may be mended meanwhile.
fn is_dead(core: &Core, notification: &OutboxNotification, error: &Error, now: Timestamp) -> bool {
    let may_pass = error.kind().is_retryable() || error.kind() == ErrorKind::Denied;
    !may_pass || is_too_old(core, notification, now)
}

fn is_too_old(core: &Core, notification: &OutboxNotification, now: Timestamp) -> bool {
    now.duration_since(notification.created_at) > core.options.notification_max_age
}

/// What was delivered about the run to the notifier, the latest first.
async fn delivered(core: &Core, next: &OutboxNotification) -> Result<Vec<OutboxNotification>> {
    let query = DeliveryQuery::of(next.tenant.clone())
        .run(Some(next.run.clone()))
        .state(Some(NotificationState::Delivered))
        .page(PageRequest { limit: EARLIER, after: None });
    let mut delivered = core.store.notifications(query).await?.items;
    delivered.retain(|one| one.notifier == next.notifier);
    Ok(delivered)
}

/// Adds what the event, the repository and the commit tell, where it can be had: it is worth no
/// failure.
async fn complete(
    core: &Core,
    next: &OutboxNotification,
    notifier: &dyn Notifier,
    view: &mut NotificationView,
) {
    let run = &mut view.run;
    let Some(key) = &run.event else { return };
    let Ok(Some(event)) = core.store.event(&next.tenant, key).await else { return };
    if let Some(pull_request) = &event.pull_request {
        run.title.get_or_insert_with(|| pull_request.title.clone());
        run.author.get_or_insert_with(|| Arc::clone(&pull_request.author));
        run.pull_request_url = run.pull_request_url.take().or_else(|| pull_request.url.clone());
    }
    run.author = run.author.take().or_else(|| event.sender.clone());
    let repo = &event.repo;
    let connection = core.connections.repository(&event.tenant, &repo.connection, &repo.name);
    let Ok(connection) = core.call("connect to the repository", connection).await else { return };
    run.repo_url = run.repo_url.take().or_else(|| connection.links().web_url);
    if run.title.is_none() && notifier.wants_commit() {
        run.title = commit(core, &event, &*connection).await.map(|one| one.title.to_string());
    }
}

async fn commit(
    core: &Core,
    event: &Event,
    connection: &dyn crate::RepoConnection,
) -> Option<Arc<CommitInfo>> {
    let id = &event.head.as_ref()?.sha;
    let history = connection.history()?;
    let key = (event.tenant.clone(), event.repo.id.clone(), id.clone());
    let read = async { core.call("read a commit", history.commit(id)).await.map(Arc::new) };
    core.notifiers.commits.try_get_with(key, read).await.ok()
}
