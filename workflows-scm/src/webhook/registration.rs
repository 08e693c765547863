//! Making sure that a host has exactly one webhook with an address.

use async_trait::async_trait;
use secrecy::ExposeSecret;
use workflows_core::{Error, Result, repo::Webhook};

/// The webhooks of a repository or a group of them, at a host.
#[async_trait]
pub(crate) trait HookApi: Send + Sync {
    /// A webhook as the host shows it.
    type Hook: Send + Sync;

    fn id(hook: &Self::Hook) -> u64;

    /// Whether it is as it is wanted, as far as the host shows.
    fn is_as(hook: &Self::Hook, wanted: &Webhook) -> bool;

    /// Those with an address, oldest first.
    async fn at(&self, url: &str) -> Result<Vec<Self::Hook>>;

    /// Makes one. That another replica was quicker is no error: which one stays is decided by what
    /// there is then.
    async fn create(&self, hook: &Webhook) -> Result<()>;

    /// Makes one as it is wanted; its secret, which no host tells, too.
    async fn repair(&self, id: u64, hook: &Webhook) -> Result<Self::Hook>;

    /// Removes one; that it is gone is no error.
    async fn delete(&self, id: u64) -> Result<()>;
}

const OPERATION: &str = "ensure webhook";

/// Makes sure that exactly one webhook with that address exists, and that it is as it is wanted. Of
/// several the oldest stays: replicas that register at the same time end with one.
pub(crate) async fn ensure_one<A: HookApi>(hooks: &A, wanted: &Webhook) -> Result<String> {
    if wanted.secret.expose_secret().is_empty() {
        return Err(Error::invalid(OPERATION, "a webhook needs a secret; set one"));
    }
    if wanted.events.is_empty() {
        return Err(Error::invalid(OPERATION, "a webhook needs at least one event"));
    }
    let mut there = hooks.at(&wanted.url).await?;
    let mut is_new = false;
    if there.is_empty() {
        hooks.create(wanted).await?;
        is_new = true;
        there = hooks.at(&wanted.url).await?;
    }
    let mut there = there.into_iter();
    let Some(kept) = there.next() else {
        return Err(Error::transient(OPERATION, "the webhook that was created is not listed yet"));
    };
    for surplus in there {
        hooks.delete(A::id(&surplus)).await?;
    }
    if is_new && A::is_as(&kept, wanted) {
        return Ok(A::id(&kept).to_string());
    }
    let repaired = hooks.repair(A::id(&kept), wanted).await?;
    if !A::is_as(&repaired, wanted) {
        return Err(Error::transient(
            OPERATION,
            "the host took the change and shows the webhook otherwise",
        )
        .with("hook", A::id(&repaired)));
    }
    // Another one than before, where a host repairs by making it anew.
    Ok(A::id(&repaired).to_string())
}

/// Removes every webhook with that address.
pub(crate) async fn remove_all<A: HookApi>(hooks: &A, url: &str) -> Result<()> {
    for hook in hooks.at(url).await? {
        hooks.delete(A::id(&hook)).await?;
    }
    Ok(())
}
