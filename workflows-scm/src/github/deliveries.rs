//! GitHub's log of webhook deliveries, which it keeps for three days (Enterprise Server: seven).
//!
//! <https://docs.github.com/en/rest/apps/webhooks>, <https://docs.github.com/en/rest/repos/webhooks>

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future, stream::BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use workflows_core::{
    Error, Result,
    repo::{DeliveredPayload, DeliveryLog, LoggedDelivery},
};

use super::{
    GitHubDriver, api::Client, authorization::Scope, connection::GitHubRepository,
    events::why_nothing, repo_path::RepoPath,
};
use crate::rest::{Priority, Route};

/// The log of one webhook: an App's, or one of a repository or an organisation.
///
/// Deliveries that never reached their address are in it, too, with their payloads.
#[derive(Debug, Clone)]
pub struct GitHubDeliveryLog {
    client: Client,
    base: Route,
    /// Which repositories are served, of a log that tells of many.
    driver: Option<GitHubDriver>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Logged {
    id: u64,
    guid: String,
    delivered_at: Timestamp,
    #[serde(default)]
    status_code: u16,
    event: String,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    repository_id: Option<u64>,
}

impl Logged {
    fn may_matter(&self, driver: Option<&GitHubDriver>) -> bool {
        let action = self.action.as_deref().unwrap_or("");
        why_nothing(&self.event, action).is_none()
            && !driver
                .zip(self.repository_id)
                .is_some_and(|(driver, number)| driver.is_foreign(number))
    }
}

#[derive(Debug, Deserialize)]
struct Detail {
    request: Request,
}

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
}

impl GitHubDriver {
    /// The log of the App's webhook. It needs nothing but the App's key.
    ///
    /// # Errors
    ///
    /// `Unsupported` when the driver has no App.
    pub fn app_deliveries(&self) -> Result<GitHubDeliveryLog> {
        if !self.api().authorizer().is_app() {
            return Err(Error::unsupported(
                "read the App's deliveries",
                "the driver's credential is no App; read the log of a repository's or an \
                 organisation's webhook",
            ));
        }
        let client = self.api().about(Scope::App, Priority::Background);
        let base = Route::new(["app", "hook", "deliveries"]);
        Ok(GitHubDeliveryLog { client, base, driver: Some(self.clone()) })
    }

    /// The log of a webhook of an organisation, by the hook's id.
    ///
    /// # Errors
    ///
    /// `Invalid` when it cannot be an organisation's name.
    pub fn organization_deliveries(
        &self,
        organization: &str,
        hook: u64,
    ) -> Result<GitHubDeliveryLog> {
        let owner = RepoPath::parse(&format!("{organization}/x"))?.owner;
        let base = Route::new(["orgs", &owner, "hooks", &hook.to_string(), "deliveries"]);
        let client = self.api().about(Scope::Owner(owner), Priority::Background);
        Ok(GitHubDeliveryLog { client, base, driver: Some(self.clone()) })
    }
}

impl GitHubDeliveryLog {
    /// Has GitHub send a delivery again, with the id that it had.
    ///
    /// # Errors
    ///
    /// `NotFound` when the log keeps it no longer, and what every call may fail with.
    pub async fn redeliver(&self, id: &str) -> Result<()> {
        self.client.tell("redeliver", &self.of(id)?.below("attempts")?).await
    }

    fn of(&self, id: &str) -> Result<Route> {
        let id: u64 = id.parse().map_err(|_| {
            let shown: String = id.chars().take(40).collect();
            Error::invalid("read a delivery", "it is no id of GitHub's log")
                .with("id", format!("{shown:?}"))
        })?;
        self.base.clone().below(&id.to_string())
    }
}

#[async_trait]
impl DeliveryLog for GitHubDeliveryLog {
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>> {
        let route = self.base.clone().query("per_page", 100);
        self.client
            .look_at_pages::<Logged>("list deliveries", route)
            .try_take_while(move |one| future::ready(Ok(one.delivered_at >= since)))
            .map_ok(|one| LoggedDelivery {
                may_matter: one.may_matter(self.driver.as_ref()),
                id: one.id.to_string(),
                delivery: one.guid.into(),
                sent_at: one.delivered_at,
                succeeded: (200..300).contains(&one.status_code),
            })
            .boxed()
    }

    async fn replay(&self, id: &str) -> Result<DeliveredPayload> {
        let detail: Detail = self.client.get("read a delivery", &self.of(id)?).await?;
        let payload = detail.request.payload.ok_or_else(|| {
            Error::not_found("read a delivery", "the log has no payload of it").with("id", id)
        })?;
        let body = String::from(Box::<str>::from(payload)).into_bytes().into();
        let headers = detail.request.headers.unwrap_or_default().into_iter().collect();
        Ok(DeliveredPayload { headers, body })
    }
}

/// The log of a repository is that of all its webhooks: what several of them were told of is one
/// event all the same. Needs the permission to see webhooks.
#[async_trait]
impl DeliveryLog for GitHubRepository {
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>> {
        let listed = async move {
            let mut all = Vec::new();
            for hook in self.hook_ids().await? {
                let log = self.log_of(hook);
                let mut of_hook: Vec<LoggedDelivery> = log.list(since).try_collect().await?;
                of_hook.iter_mut().for_each(|one| one.id = format!("{hook}/{}", one.id));
                all.extend(of_hook);
            }
            all.sort_by_key(|one| std::cmp::Reverse(one.sent_at));
            Ok(futures::stream::iter(all.into_iter().map(Ok)))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }

    async fn replay(&self, id: &str) -> Result<DeliveredPayload> {
        let parts = id.split_once('/').and_then(|(hook, id)| Some((hook.parse().ok()?, id)));
        let (hook, id) = parts.ok_or_else(|| {
            Error::invalid("read a delivery", "the id names a webhook and a delivery: 1/2")
        })?;
        self.log_of(hook).replay(id).await
    }
}

impl GitHubRepository {
    fn log_of(&self, hook: u64) -> GitHubDeliveryLog {
        let client = self.client(Priority::Background);
        let base = self.route(["hooks", &hook.to_string(), "deliveries"]);
        GitHubDeliveryLog { client, base, driver: None }
    }
}
