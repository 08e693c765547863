//! Registering webhooks of projects and groups.
//!
//! <https://docs.gitlab.com/api/project_webhooks/>, <https://docs.gitlab.com/api/group_webhooks/>

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use workflows_core::{
    Error, ErrorKind, Result,
    repo::{Webhook, WebhookAdmin},
};

use super::{
    GitLabDriver,
    api::Client,
    connection::GitLabProject,
    project_path::{ProjectPath, group},
};
use crate::{
    rest::{Priority, Route},
    webhook::{HookApi, ensure_one, is_signing_token, remove_all},
};

/// The webhooks of a project or a group.
///
/// A hook is known by its address. It is made to check the certificate of a server that is reached by
/// https, to have these events and no others, and to send this secret: one that begins with `whsec_`
/// signs, any other is sent along as it is. GitLab never tells a secret, so that it is set each time. Of
/// several hooks with one address the oldest stays: replicas that register at the same time end with
/// one. A hook that GitLab has disabled is made anew, which enables it.
///
/// Events are named as GitLab's API names them: `push_events`, `tag_push_events`,
/// `merge_requests_events`, `note_events`, `releases_events`, and so on.
#[derive(Debug, Clone)]
pub struct GitLabHooks {
    client: Client,
    base: Route,
}

/// The events that a workflow can wait for.
const USEFUL: [&str; 5] =
    ["push_events", "tag_push_events", "merge_requests_events", "note_events", "releases_events"];

/// A webhook as GitLab shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Hook {
    pub(super) id: u64,
    pub(super) url: String,
    #[serde(default)]
    enable_ssl_verification: bool,
    /// `executable`, `temporarily_disabled`, `disabled`.
    #[serde(default)]
    alert_status: Option<String>,
    #[serde(default)]
    disabled_until: Option<Timestamp>,
    #[serde(default)]
    push_events_branch_filter: Option<String>,
    /// The events, among other members.
    #[serde(flatten)]
    members: BTreeMap<String, Value>,
}

impl Hook {
    fn has(&self, event: &str) -> bool {
        self.members.get(event) == Some(&Value::Bool(true))
    }

    /// Why GitLab sends nothing to it, when it does not.
    pub(super) fn disabled(&self, now: Timestamp) -> Option<String> {
        if self.alert_status.as_deref() == Some("disabled") {
            return Some("GitLab has disabled it for good, after 40 failures in a row".to_owned());
        }
        let until = self.disabled_until.filter(|until| *until > now)?;
        Some(format!("GitLab has disabled it until {until}, after failures in a row"))
    }
}

impl GitLabDriver {
    /// The webhooks of a group, whose deliveries are about all of its projects and those of its
    /// subgroups.
    ///
    /// # Errors
    ///
    /// `Invalid` when it cannot be a group's path.
    pub fn group_hooks(&self, path: &str) -> Result<GitLabHooks> {
        let base = Route::new(["groups", group(path)?, "hooks"]);
        Ok(GitLabHooks { client: self.api().about((), Priority::Background), base })
    }

    /// The webhooks of a project, by its full path.
    ///
    /// # Errors
    ///
    /// `Invalid` when it cannot be a project's path.
    pub fn project_hooks(&self, path: &str) -> Result<GitLabHooks> {
        let base = Route::new(["projects", ProjectPath::parse(path)?.as_str(), "hooks"]);
        Ok(GitLabHooks { client: self.api().about((), Priority::Background), base })
    }

    /// The events that a workflow can wait for, as GitLab's API names them, for
    /// [`Webhook::events`](workflows_core::repo::Webhook::events).
    pub fn useful_events() -> impl Iterator<Item = &'static str> {
        USEFUL.into_iter()
    }
}

impl GitLabHooks {
    fn route(&self, id: u64) -> Result<Route> {
        self.base.clone().below(&id.to_string())
    }

    /// All of them.
    pub(super) async fn all(&self) -> Result<Vec<Hook>> {
        let route = self.base.clone().query("per_page", 100);
        self.client.pages::<Hook>("list webhooks", route).try_collect().await
    }
}

#[async_trait]
impl HookApi for GitLabHooks {
    type Hook = Hook;

    fn id(hook: &Hook) -> u64 {
        hook.id
    }

    fn is_as(hook: &Hook, wanted: &Webhook) -> bool {
        let unwanted = |(name, value): (&String, &Value)| {
            name.ends_with("_events")
                && *value == Value::Bool(true)
                && !wanted.events.contains(name)
        };
        hook.enable_ssl_verification
            && hook.alert_status.as_deref().is_none_or(|status| status == "executable")
            && hook.push_events_branch_filter.as_deref().is_none_or(str::is_empty)
            && wanted.events.iter().all(|event| hook.has(event))
            && !hook.members.iter().any(unwanted)
    }

    async fn at(&self, url: &str) -> Result<Vec<Hook>> {
        let mut at = self.all().await?;
        at.retain(|hook| hook.url == url);
        at.sort_by_key(|hook| hook.id);
        Ok(at)
    }

    async fn create(&self, hook: &Webhook) -> Result<()> {
        let body = described(hook, &[])?;
        match self.client.post::<Hook>("create webhook", &self.base, &body).await {
            // Another replica was quicker.
            Err(error) if error.to_string().contains("already been taken") => Ok(()),
            made => made.map(drop),
        }
    }

    /// One that is disabled is removed and made anew: nothing else enables it at once.
    async fn repair(&self, id: u64, hook: &Webhook) -> Result<Hook> {
        const OPERATION: &str = "repair webhook";
        let route = self.route(id)?;
        let present: Hook = self.client.get(OPERATION, &route).await?;
        if present.alert_status.as_deref().is_some_and(|status| status != "executable") {
            self.delete(id).await?;
            return self.client.post(OPERATION, &self.base, &described(hook, &[])?).await;
        }
        let others: Vec<&str> = present
            .members
            .iter()
            .filter(|(name, value)| name.ends_with("_events") && value.is_boolean())
            .map(|(name, _)| name.as_str())
            .collect();
        self.client.put(OPERATION, &route, &described(hook, &others)?).await
    }

    async fn delete(&self, id: u64) -> Result<()> {
        match self.client.delete("remove webhook", &self.route(id)?).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }
}

/// A hook as it is asked for, without the events that it has and should not.
fn described(hook: &Webhook, present: &[&str]) -> Result<Value> {
    let mut body = json!({
        "url": hook.url, "enable_ssl_verification": true, "push_events_branch_filter": "",
    });
    let secret = hook.secret.expose_secret();
    let as_what = if is_signing_token(&hook.secret) { "signing_token" } else { "token" };
    body[as_what] = secret.into();
    // Without being told otherwise GitLab takes pushes.
    body["push_events"] = false.into();
    for event in present {
        body[*event] = false.into();
    }
    for event in &hook.events {
        let is_name = event.ends_with("_events")
            && event.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_name {
            return Err(Error::invalid(
                "ensure webhook",
                "events are named as GitLab's API names them, such as `push_events`",
            )
            .with("event", crate::printable::printable(event)));
        }
        body[event.as_str()] = true.into();
    }
    Ok(body)
}

#[async_trait]
impl WebhookAdmin for GitLabHooks {
    async fn ensure(&self, hook: &Webhook) -> Result<String> {
        ensure_one(self, hook).await
    }

    async fn remove(&self, url: &str) -> Result<()> {
        remove_all(self, url).await
    }
}

impl GitLabProject {
    pub(super) fn hooks(&self) -> GitLabHooks {
        let client = self.client(Priority::Background);
        GitLabHooks { client, base: self.route(["hooks"]) }
    }
}

#[async_trait]
impl WebhookAdmin for GitLabProject {
    async fn ensure(&self, hook: &Webhook) -> Result<String> {
        self.hooks().ensure(hook).await
    }

    async fn remove(&self, url: &str) -> Result<()> {
        self.hooks().remove(url).await
    }
}
