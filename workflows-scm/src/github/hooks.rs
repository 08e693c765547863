//! Registering webhooks of repositories and organisations.
//!
//! <https://docs.github.com/en/rest/repos/webhooks>, <https://docs.github.com/en/rest/orgs/webhooks>

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::TryStreamExt;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use workflows_core::{
    Error, ErrorKind, Result,
    repo::{Webhook, WebhookAdmin},
};

use super::{
    GitHubDriver, api::Client, authorization::Scope, connection::GitHubRepository,
    repo_path::RepoPath,
};
use crate::{
    rest::{Priority, Route},
    webhook::{HookApi, ensure_one, remove_all},
};

/// The webhooks of a repository or an organisation.
///
/// A hook is known by its address. It is made to deliver JSON, to check the certificate of a server
/// that is reached by https, to have these events and no others, and to sign with this secret. GitHub
/// never tells a secret, so that it is set each time. Of several hooks with one address the oldest
/// stays: replicas that register at the same time end with one.
#[derive(Debug, Clone)]
pub struct GitHubHooks {
    client: Client,
    base: Route,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Hook {
    id: u64,
    #[serde(default)]
    active: bool,
    #[serde(default)]
    events: BTreeSet<String>,
    #[serde(default)]
    config: HookConfig,
}

#[derive(Debug, Default, Deserialize)]
struct HookConfig {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    /// A string or a number.
    #[serde(default)]
    insecure_ssl: Option<Value>,
}

impl Hook {
    fn is_as(&self, wanted: &Webhook) -> bool {
        let verifies = match &self.config.insecure_ssl {
            Some(Value::String(text)) => text == "0",
            Some(Value::Number(number)) => number.as_u64() == Some(0),
            _ => true,
        };
        self.active
            && self.events == wanted.events
            && self.config.content_type.as_deref() == Some("json")
            && verifies
    }
}

impl GitHubDriver {
    /// The webhooks of an organisation, whose deliveries are about all of its repositories.
    ///
    /// # Errors
    ///
    /// `Invalid` when it cannot be an organisation's name.
    pub fn organization_hooks(&self, organization: &str) -> Result<GitHubHooks> {
        let owner = RepoPath::parse(&format!("{organization}/x"))?.owner;
        let base = Route::new(["orgs", &owner, "hooks"]);
        let client = self.api().about(Scope::Owner(owner), Priority::Background);
        Ok(GitHubHooks { client, base })
    }
}

impl GitHubHooks {
    fn route(&self, id: u64) -> Result<Route> {
        self.base.clone().below(&id.to_string())
    }
}

#[async_trait]
impl HookApi for GitHubHooks {
    type Hook = Hook;

    fn id(hook: &Hook) -> u64 {
        hook.id
    }

    fn is_as(hook: &Hook, wanted: &Webhook) -> bool {
        hook.is_as(wanted)
    }

    async fn at(&self, url: &str) -> Result<Vec<Hook>> {
        let route = self.base.clone().query("per_page", 100);
        let hooks = self.client.pages::<Hook>("list webhooks", route);
        let is_at = |hook: &Hook| hook.config.url.as_deref() == Some(url);
        let mut at: Vec<Hook> =
            hooks.try_filter(|hook| std::future::ready(is_at(hook))).try_collect().await?;
        at.sort_by_key(|hook| hook.id);
        Ok(at)
    }

    async fn create(&self, hook: &Webhook) -> Result<()> {
        let mut body = described(hook);
        body["name"] = "web".into();
        match self.client.post::<Hook>("create webhook", &self.base, &body).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Invalid && is_there(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn repair(&self, id: u64, hook: &Webhook) -> Result<Hook> {
        self.client.patch("repair webhook", &self.route(id)?, &described(hook)).await
    }

    async fn delete(&self, id: u64) -> Result<()> {
        match self.client.delete("remove webhook", &self.route(id)?).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }
}

fn is_there(error: &Error) -> bool {
    error.to_string().contains("already exists")
}

/// A hook as it is asked for.
fn described(hook: &Webhook) -> Value {
    json!({
        "active": true,
        "events": hook.events,
        "config": {
            "url": hook.url,
            "content_type": "json",
            "insecure_ssl": "0",
            "secret": hook.secret.expose_secret(),
        },
    })
}

#[async_trait]
impl WebhookAdmin for GitHubHooks {
    async fn ensure(&self, hook: &Webhook) -> Result<String> {
        ensure_one(self, hook).await
    }

    async fn remove(&self, url: &str) -> Result<()> {
        remove_all(self, url).await
    }
}

impl GitHubRepository {
    fn hooks(&self) -> GitHubHooks {
        let client = self.client(Priority::Background);
        GitHubHooks { client, base: self.route(["hooks"]) }
    }

    /// The ids of all hooks of the repository.
    pub(super) async fn hook_ids(&self) -> Result<Vec<u64>> {
        let hooks = self.hooks();
        let route = hooks.base.clone().query("per_page", 100);
        let listed = hooks.client.pages::<Hook>("list webhooks", route);
        listed.map_ok(|hook| hook.id).try_collect().await
    }
}

#[async_trait]
impl WebhookAdmin for GitHubRepository {
    async fn ensure(&self, hook: &Webhook) -> Result<String> {
        self.hooks().ensure(hook).await
    }

    async fn remove(&self, url: &str) -> Result<()> {
        self.hooks().remove(url).await
    }
}
