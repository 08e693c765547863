//! GitLab's log of webhook deliveries, which it keeps for seven days (GitLab 17.3 and later).
//!
//! <https://docs.gitlab.com/api/project_webhooks/#list-all-events-for-a-project-webhook>

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future, stream::BoxStream};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use workflows_core::{
    Error, Result,
    repo::{DeliveredPayload, DeliveryLog, LoggedDelivery},
};

use super::{
    GitLabDriver,
    api::Client,
    connection::{GitLabProject, Seen},
    events,
    project_path::group,
};
use crate::{
    rest::{Priority, Route},
    webhook::DeliveryHeaders,
};

/// The log of one webhook of a group.
///
/// Deliveries that never reached their address are in it, too. GitLab lists them with their payloads and
/// has no way to ask for one alone, so that payloads are kept for a while from the listing on.
#[derive(Debug, Clone)]
pub struct GitLabDeliveryLog {
    client: Client,
    base: Route,
    seen: Arc<Seen>,
}

#[derive(Debug, Deserialize)]
struct Logged {
    id: u64,
    #[serde(default)]
    request_headers: BTreeMap<String, String>,
    #[serde(default)]
    request_data: Option<Box<RawValue>>,
    #[serde(default)]
    response_headers: Option<BTreeMap<String, String>>,
    /// `200`, or a text.
    #[serde(default)]
    response_status: Option<String>,
}

impl Logged {
    /// When it was sent: when it was signed, or by the clock of who answered. GitLab does not tell.
    fn sent_at(&self) -> Option<Timestamp> {
        let of = |headers: &BTreeMap<String, String>, name: &str| {
            let (_, value) = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.clone())
        };
        let signed = of(&self.request_headers, "webhook-timestamp");
        let signed = signed.and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok());
        let answered = || {
            let date = of(self.response_headers.as_ref()?, "date")?;
            Some(jiff::fmt::rfc2822::parse(&date).ok()?.timestamp())
        };
        signed.or_else(answered)
    }

    fn payload(self) -> Option<DeliveredPayload> {
        let body = String::from(Box::<str>::from(self.request_data?)).into_bytes().into();
        Some(DeliveredPayload { headers: self.request_headers.into_iter().collect(), body })
    }
}

impl GitLabDriver {
    /// The log of a webhook of a group, by the hook's number.
    ///
    /// # Errors
    ///
    /// `Invalid` when it cannot be a group's path.
    pub fn group_deliveries(&self, path: &str, hook: u64) -> Result<GitLabDeliveryLog> {
        let base = Route::new(["groups", group(path)?, "hooks", &hook.to_string(), "events"]);
        let client = self.api().about((), Priority::Background);
        Ok(GitLabDeliveryLog { client, base, seen: Arc::clone(&self.seen) })
    }
}

impl GitLabDeliveryLog {
    /// Has GitLab send a delivery again, with the key that it had. It does so five times a minute.
    ///
    /// # Errors
    ///
    /// `NotFound` when the log keeps it no longer, and what every call may fail with.
    pub async fn resend(&self, id: &str) -> Result<()> {
        let route = self.base.clone().below(&number(id)?.to_string())?.below("resend")?;
        self.client.tell("resend", &route).await
    }

    fn pages(&self) -> BoxStream<'static, Result<Logged>> {
        self.client.pages("list deliveries", self.base.clone().query("per_page", 100))
    }
}

fn number(id: &str) -> Result<u64> {
    id.parse().map_err(|_| {
        Error::invalid("read a delivery", "it is no id of GitLab's log")
            .with("id", crate::printable::printable(id))
    })
}

#[async_trait]
impl DeliveryLog for GitLabDeliveryLog {
    /// Those that were not signed, and that nobody answered, count as sent with those after them.
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>> {
        let mut last = Timestamp::MAX;
        self.pages()
            .map_ok(move |one| {
                let sent_at = one.sent_at().unwrap_or(last);
                last = sent_at;
                (one, sent_at)
            })
            .try_take_while(move |(_, sent_at)| future::ready(Ok(*sent_at >= since)))
            .and_then(move |(one, sent_at)| async move {
                let headers = DeliveryHeaders::new(&one.request_headers);
                let body = one.request_data.as_ref().map_or("", |data| data.get());
                let logged = LoggedDelivery {
                    id: one.id.to_string(),
                    delivery: events::delivery_id(&headers, body.as_bytes()),
                    sent_at: if sent_at == Timestamp::MAX { self.client.now() } else { sent_at },
                    succeeded: one.response_status.as_deref().is_some_and(|status| {
                        status.parse::<u16>().is_ok_and(|code| (200..300).contains(&code))
                    }),
                    may_matter: true,
                };
                let key = (self.base.clone(), one.id);
                if let Some(payload) = one.payload() {
                    self.seen.deliveries.insert(key, payload).await;
                }
                Ok(logged)
            })
            .boxed()
    }

    async fn replay(&self, id: &str) -> Result<DeliveredPayload> {
        let wanted = number(id)?;
        if let Some(kept) = self.seen.deliveries.get(&(self.base.clone(), wanted)).await {
            return Ok(kept);
        }
        let mut pages = self.pages();
        while let Some(one) = pages.try_next().await? {
            if one.id == wanted
                && let Some(payload) = one.payload()
            {
                return Ok(payload);
            }
        }
        Err(Error::not_found("read a delivery", "the log keeps it no longer").with("id", id))
    }
}

/// The log of a project is that of all its webhooks: what several of them were told of is one event all
/// the same. Needs the role Maintainer.
#[async_trait]
impl DeliveryLog for GitLabProject {
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>> {
        let listed = async move {
            let mut all = Vec::new();
            for hook in self.hooks().all().await? {
                let log = self.log_of(hook.id);
                let mut of_hook: Vec<LoggedDelivery> = log.list(since).try_collect().await?;
                of_hook.iter_mut().for_each(|one| one.id = format!("{}/{}", hook.id, one.id));
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

impl GitLabProject {
    fn log_of(&self, hook: u64) -> GitLabDeliveryLog {
        let client = self.client(Priority::Background);
        let base = self.route(["hooks", &hook.to_string(), "events"]);
        GitLabDeliveryLog { client, base, seen: Arc::clone(&self.seen) }
    }
}
