//! Webhooks at repositories: registered, and removed with their ScmConnection.

use std::{
    collections::BTreeSet, future::ready, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use workflows_core::{
    ConnectionName, Error, RepoConnection, Result, SecretStore, Tenant,
    repo::{Webhook, WebhookAdmin},
};

use super::{
    objects::{Kind, Object},
    served::Usable,
};
use crate::error::from_kube;

/// The finalizer by which an ScmConnection waits for its hooks to be removed.
pub(super) const FINALIZER: &str = "workflows.tekton.dev/webhooks";

/// How long an ScmConnection waits for its hooks to be removed, from when it was deleted. Then it goes
/// without: a hook that stays is refused by us, and is worth no object that cannot be deleted.
pub(super) const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// How long a try has that comes after that.
const LAST_TRY: Duration = Duration::from_secs(5);
/// How long the host has to answer for one repository, before others have their turn.
const ONE_TRY: Duration = Duration::from_secs(4);
/// So many repositories are asked at once.
const TOGETHER: usize = 8;

/// Makes sure that repositories have the hook.
///
/// # Errors
///
/// What went wrong at how many of them, and the first of it.
pub(super) async fn ensure(
    connection: &Usable,
    url: &str,
    repositories: &BTreeSet<String>,
    secrets: &dyn SecretStore,
) -> Result<()> {
    let Some(webhook) = &connection.spec.webhook else { return Ok(()) };
    let secret = secrets.get(&connection.owner, &webhook.secret).await?;
    let mut failures = Vec::new();
    for repo in repositories {
        let hook = Webhook {
            url: url.to_owned(),
            secret: secret.clone(),
            events: connection.built.hook_events.clone(),
        };
        let done = match connect(connection, repo).await {
            Ok(repository) => match admin(&*repository) {
                Ok(admin) => admin.ensure(&hook).await.map(drop),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            failures.push(error.with("repository", repo));
        }
    }
    let many = failures.len();
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Error::new(
            first.kind(),
            "register webhooks",
            format!("{many} of {} repositories have none; the first: {first}", repositories.len()),
        )),
    }
}

async fn connect(connection: &Usable, repo: &str) -> Result<Arc<dyn RepoConnection>> {
    let name = ConnectionName::new(connection.key.1.as_str());
    connection.built.driver.connect(&name, repo).await
}

fn admin(repository: &dyn RepoConnection) -> Result<&dyn WebhookAdmin> {
    repository.webhook_admin().ok_or_else(|| {
        Error::unsupported(
            "look after webhooks",
            "the host, or this credential, offers no webhooks",
        )
    })
}

async fn remove(connection: &Usable, repo: &str, url: &str) -> Result<()> {
    let repository = connect(connection, repo).await?;
    admin(&*repository)?.remove(url).await
}

/// Removes the hooks of a connection that is being deleted, for as long as it waits for that.
/// What cannot be removed in this time stays.
pub(super) async fn remove_all(
    connection: &Usable,
    url: &str,
    deleted_at: Timestamp,
    now: Timestamp,
) {
    let left = patience(deleted_at, now);
    let literal = connection.literal_repositories().map(str::to_owned);
    let repositories: BTreeSet<String> = connection.hooks.iter().cloned().chain(literal).collect();
    let removing = async {
        let mut left = repositories;
        loop {
            let tried = stream::iter(left).map(|repo| async move {
                (!is_done_with(connection, &repo, url).await).then_some(repo)
            });
            // Each has its turn, whatever the others say.
            left = tried.buffer_unordered(TOGETHER).filter_map(ready).collect().await;
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let is_removed = AssertUnwindSafe(tokio::time::timeout(left, removing)).catch_unwind().await;
    if !matches!(is_removed, Ok(Ok(()))) {
        tracing::warn!(
            namespace = connection.key.0,
            name = connection.key.1,
            panicked = is_removed.is_err(),
            "the webhooks were not removed in time and stay"
        );
    }
}

/// How long it still waits. The server's clock, by which it was deleted, may be elsewhere.
fn patience(deleted_at: Timestamp, now: Timestamp) -> Duration {
    let left = PATIENCE - now.duration_since(deleted_at);
    let left = Duration::try_from(left).unwrap_or_default();
    left.clamp(LAST_TRY, PATIENCE.unsigned_abs())
}

/// Whether the hook of a repository is removed, or cannot be.
async fn is_done_with(connection: &Usable, repo: &str, url: &str) -> bool {
    let removed = tokio::time::timeout(ONE_TRY, remove(connection, repo, url)).await;
    match removed {
        Ok(Ok(())) => true,
        Ok(Err(error)) if !error.kind().is_retryable() => {
            tracing::warn!(%error, repo, "its webhook cannot be removed and stays");
            true
        }
        Ok(Err(error)) => {
            tracing::info!(%error, repo, "its webhook is to be removed again");
            false
        }
        Err(_) => {
            tracing::info!(repo, "the host does not answer; its webhook is to be removed again");
            false
        }
    }
}

/// Sets or takes away the finalizer, and nobody else's.
///
/// # Errors
///
/// The API server's; `Conflict` when the object changed meanwhile.
pub(super) async fn set_finalizer(
    client: &Client,
    object: &Object,
    present: bool,
    now: Timestamp,
) -> Result<()> {
    let mut finalizers: Vec<&str> =
        object.finalizers.iter().map(String::as_str).filter(|one| *one != FINALIZER).collect();
    if present {
        finalizers.push(FINALIZER);
    }
    let patch = json!({"metadata": {
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        "finalizers": finalizers,
    }});
    let objects = Kind::ScmConnection.of(client, &object.namespace);
    match objects.patch(&object.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(from_kube("set a finalizer", error, now)),
    }
}

/// Where the deliveries for a connection go to.
pub(super) fn url(base: &str, owner: &Tenant, name: &str) -> String {
    format!("{}/hooks/{owner}/{name}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_a_minute_at_most_whatever_the_clocks_say() {
        let now = Timestamp::UNIX_EPOCH;
        for (deleted_before, expected) in [(0, 60), (20, 40), (59, 5), (3600, 5), (-3600, 60)] {
            let deleted_at = now - SignedDuration::from_secs(deleted_before);
            let left = patience(deleted_at, now);
            assert_eq!(left, Duration::from_secs(expected), "{deleted_before}");
        }
    }
}
