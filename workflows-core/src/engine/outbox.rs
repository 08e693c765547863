//! Delivering the notifications of the outbox: about one run to one notifier, in order.
//!
//! A notification is delivered at least once with the same key: a crash between the delivery and
//! its record makes it be delivered again, and the notifier can tell by the key.

use super::{backoff, core::Core};
use crate::{
    Delivered, Error, ErrorKind, NotificationView, Result,
    source::Connections,
    store::{Claim, Committed, Effects, NotificationState, OutboxNotification, WorkKey},
};

/// Delivers the next notification of a claim.
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Outbox { run, notifier } = &claim.work.key else {
        return core.commit(claim, Effects::default()).await;
    };
    let pending = core.store.outbox(&claim.work.tenant, run, notifier).await?;
    let more = pending.len() > 1;
    let Some(mut next) = pending.into_iter().next() else {
        return core.commit(claim, Effects::default()).await;
    };
    let now = core.clock.now();
    let again = match deliver(core, &next).await {
        Ok(delivered) => {
            next.state = NotificationState::Delivered;
            next.result = delivered.reference;
            core.metrics.notification(notifier, "delivered");
            more.then_some(now)
        }
        Err(error) if is_dead(core, &next, &error) => {
            tracing::warn!(%error, transition = %next.transition, "a notification was given up");
            next.state = NotificationState::Dead;
            next.result = Some(error.to_string());
            core.metrics.notification(notifier, "dead");
            more.then_some(now)
        }
        Err(error) => {
            tracing::info!(%error, transition = %next.transition, "a notification is tried again");
            next.result = Some(error.to_string());
            core.metrics.notification(notifier, "retried");
            let tried = next.attempts.saturating_add(1);
            Some(backoff::next_try(&error, tried, next.key.as_str(), now))
        }
    };
    next.attempts = next.attempts.saturating_add(1);
    next.tried_at = Some(now);
    let effects = Effects { delivered: vec![next], again, ..Effects::default() };
    core.commit(claim, effects).await
}

/// Faults that pass are tried again until the notification is too old; so is a refusal, for the
/// credentials may be mended meanwhile.
fn is_dead(core: &Core, notification: &OutboxNotification, error: &Error) -> bool {
    let age = core.clock.now().duration_since(notification.created_at);
    let may_pass = error.kind().is_retryable() || error.kind() == ErrorKind::Denied;
    !may_pass || age > core.options.notification_max_age
}

async fn deliver(core: &Core, notification: &OutboxNotification) -> Result<Delivered> {
    let name = (notification.tenant.clone(), notification.notifier.clone());
    let notifier = core.notifiers.get(&name).ok_or_else(|| {
        let known: Vec<&str> = core
            .notifiers
            .keys()
            .filter(|(tenant, _)| *tenant == notification.tenant)
            .map(|(_, name)| name.as_str())
            .collect();
        Error::not_found("find a notifier", "the tenant has no notifier of that name")
            .with("notifier", &notification.notifier)
            .with("known", if known.is_empty() { "none".into() } else { known.join(", ") })
    })?;
    let mut view = NotificationView {
        key: notification.key.clone(),
        transition: notification.transition,
        run: notification.view.clone(),
    };
    view.run.repo_url = repo_url(core, notification).await;
    core.call("deliver a notification", notifier.deliver(&view)).await
}

/// The repository's page, where it can be had: it is worth no failure.
async fn repo_url(core: &Core, notification: &OutboxNotification) -> Option<String> {
    let run = core.store.run(&notification.tenant, &notification.run).await.ok()??;
    let connection = core.connections.repository(&run.tenant, &run.repo.connection, &run.repo.name);
    let connection = core.call("connect to the repository", connection).await.ok()?;
    connection.links().web_url
}
