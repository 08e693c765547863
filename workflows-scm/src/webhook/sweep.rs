//! Finding what never arrived in a host's own log of deliveries: [`DeliverySweep`].

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    DeliveryId, Error, ErrorKind, EventSource, Result, SourceName, Verified,
    repo::{DeliveredPayload, DeliveryLog, LoggedDelivery},
    source::SourceContext,
    store::CursorMove,
};

use super::{DeliveryHeaders, WebhookReceiver};
use crate::poll::{Pace, later};

/// Reads a host's log of deliveries, at start and then at an interval, and takes in those that the
/// ledger has not, as if they had arrived.
///
/// Hosts do not send a failed delivery again by themselves, but keep it for days (GitHub for three:
/// <https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/viewing-webhook-deliveries>),
/// also when the address could not be reached at all. So this finds what was sent while the program
/// was away, and it is enough alone, without any inbound port: make a receiver, give it to the sweep
/// and to no server, and choose a short interval.
///
/// A delivery from the log is the same one as when it arrives: it has the same id under the same
/// source. It is trusted because it was fetched over the host's authenticated API
/// ([`Verified::fetched`]); the log keeps no raw bytes to check a signature of.
///
/// One look costs a call for each page of the log since the last one, and one for each delivery that
/// the ledger does not have. When a look fails, the next one begins where the last good one ended.
/// The first look of a new ledger takes in what was sent from now on, or for as long before as
/// [`looking_back`](Self::looking_back) says.
#[derive(Debug, Clone)]
pub struct DeliverySweep {
    name: SourceName,
    receiver: WebhookReceiver,
    log: Log,
    pace: Pace,
    looking_back: SignedDuration,
}

#[derive(Debug, Clone)]
enum Log {
    Given(Arc<dyn DeliveryLog>),
    OfRepository(Arc<str>),
}

/// What was sent so long before the newest delivery that was looked at is looked at again: logs are
/// written after the fact.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// How far the clocks of host and ledger may be apart.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// So many payloads are fetched together.
const TOGETHER: usize = 8;

impl DeliverySweep {
    /// Reads a log, such as an App's, for a receiver. The source is called like the receiver, with
    /// `-log`.
    pub fn of_log(receiver: WebhookReceiver, log: Arc<dyn DeliveryLog>) -> Self {
        Self::new(receiver, Log::Given(log))
    }

    /// Reads the log of a repository's own hooks, by its full name, through the receiver's connection.
    pub fn of_repository(receiver: WebhookReceiver, repo: impl Into<Arc<str>>) -> Self {
        Self::new(receiver, Log::OfRepository(repo.into()))
    }

    fn new(receiver: WebhookReceiver, log: Log) -> Self {
        let name = match &log {
            Log::Given(_) => format!("{}-log", receiver.source()),
            Log::OfRepository(repo) => format!("{}-log/{repo}", receiver.source()),
        };
        let five_minutes = SignedDuration::from_mins(5);
        Self {
            name: name.into(),
            receiver,
            log,
            pace: Pace { shortest: five_minutes, longest: five_minutes },
            looking_back: SignedDuration::ZERO,
        }
    }

    /// Sets the interval. Default: 5 minutes. Without an inbound port, half a minute is good.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is shorter than a second.
    pub fn every(mut self, interval: SignedDuration) -> Result<Self> {
        if interval < SignedDuration::from_secs(1) {
            return Err(Error::invalid("set up a sweep", "the interval is shorter than a second")
                .with("interval", format!("{interval:#}")));
        }
        self.pace = Pace { shortest: interval, longest: interval };
        Ok(self)
    }

    /// Sets how far back the first look of a new ledger goes. Default: not at all.
    #[must_use]
    pub fn looking_back(mut self, by: SignedDuration) -> Self {
        self.looking_back = by.max(SignedDuration::ZERO);
        self
    }

    async fn sweep(&self, context: &SourceContext) -> Result<()> {
        let tenant = self.receiver.tenant();
        let cursor_name = self.name.to_string();
        let stored = context.publisher.cursor(tenant, &cursor_name).await?;
        let known = stored.as_deref().and_then(|text| serde_json::from_str::<Swept>(text).ok());
        let now = context.clock.now();
        let swept = known.clone().unwrap_or_else(|| {
            let floor = earlier(now, self.looking_back);
            Swept { floor, newest: floor }
        });
        let since = earlier(swept.newest, OVERLAP).max(swept.floor);

        let logged = self.logged(context, since).await?;
        let newest = logged.iter().map(|one| one.sent_at).max().unwrap_or(swept.newest);
        let missing = if logged.is_empty() {
            Vec::new()
        } else {
            let source = self.receiver.source();
            let since = earlier(since, SKEW);
            let known = context.publisher.delivered_since(tenant, source, since).await?;
            missing(logged, &known)
        };
        self.take_in(context, missing).await?;

        let to = Swept { floor: swept.floor, newest: newest.max(swept.newest) };
        if known.as_ref() == Some(&to) {
            return Ok(());
        }
        let to = serde_json::to_string(&to).map_err(|error| {
            Error::invalid("sweep the delivery log", "the cursor has no text").caused_by(error)
        })?;
        let cursor = CursorMove { tenant: tenant.clone(), name: cursor_name, from: stored, to };
        match context.publisher.publish_with_cursor(Vec::new(), cursor).await {
            // Another replica swept at the same time, and what it took in is taken in.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            moved => moved.map(drop),
        }
    }

    async fn logged(
        &self,
        context: &SourceContext,
        since: Timestamp,
    ) -> Result<Vec<LoggedDelivery>> {
        match &self.log {
            Log::Given(log) => log.list(since).try_collect().await,
            Log::OfRepository(repo) => {
                let connection = self.connection(context, repo).await?;
                log_of(&*connection)?.list(since).try_collect().await
            }
        }
    }

    async fn replay(&self, context: &SourceContext, id: &str) -> Result<DeliveredPayload> {
        match &self.log {
            Log::Given(log) => log.replay(id).await,
            Log::OfRepository(repo) => {
                let connection = self.connection(context, repo).await?;
                log_of(&*connection)?.replay(id).await
            }
        }
    }

    async fn connection(
        &self,
        context: &SourceContext,
        repo: &str,
    ) -> Result<Arc<dyn workflows_core::RepoConnection>> {
        let (tenant, connection) = (self.receiver.tenant(), self.receiver.connection());
        context.connections.repository(tenant, connection, repo).await
    }

    /// Takes in deliveries, oldest first.
    async fn take_in(&self, context: &SourceContext, missing: Vec<LoggedDelivery>) -> Result<()> {
        let mut payloads = stream::iter(missing)
            .map(|one| async move { (self.replay(context, &one.id).await, one) })
            .buffered(TOGETHER);
        while let Some((payload, logged)) = payloads.next().await {
            let payload = match payload {
                Ok(payload) => payload,
                // The log keeps it no longer, so that nobody can have it.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    tracing::warn!(%error, delivery = %logged.delivery, "a delivery is lost");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let headers = DeliveryHeaders::new(payload.headers);
            let verified = Verified::fetched(payload.body);
            match self.receiver.take_in(context, &headers, &verified).await {
                Ok(taken) => {
                    let delivery = &logged.delivery;
                    tracing::info!(%delivery, what = %taken.what, "took in what had not arrived");
                }
                // It is recorded as what cannot be read.
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    tracing::warn!(%error, delivery = %logged.delivery, "a delivery is invalid");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How far the log was looked through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Swept {
    /// What was sent before is not looked at.
    floor: Timestamp,
    /// When the newest delivery was sent that was looked at.
    newest: Timestamp,
}

fn earlier(than: Timestamp, by: SignedDuration) -> Timestamp {
    than.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn log_of(connection: &dyn workflows_core::RepoConnection) -> Result<&dyn DeliveryLog> {
    connection.delivery_log().ok_or_else(|| {
        Error::unsupported("sweep the delivery log", "the connection offers no delivery log")
            .with("repository", connection.repo())
    })
}

/// Those that are not known, oldest first, each once: a redelivery has the id of the first one.
fn missing(mut logged: Vec<LoggedDelivery>, known: &HashSet<DeliveryId>) -> Vec<LoggedDelivery> {
    logged.sort_by(|a, b| a.sent_at.cmp(&b.sent_at).then_with(|| a.id.cmp(&b.id)));
    let mut listed = HashSet::new();
    logged.retain(|one| !known.contains(&one.delivery) && listed.insert(one.delivery.clone()));
    logged
}

#[async_trait]
impl EventSource for DeliverySweep {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let mut failures = 0_u32;
        loop {
            let swept = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                swept = self.sweep(&context) => swept,
            };
            let now = context.clock.now();
            let next = match swept {
                Ok(()) => {
                    failures = 0;
                    context.succeeded(self.name.as_str());
                    later(now, self.pace.shortest)
                }
                Err(error) => {
                    // A limit is no failure: it says until when.
                    let next = match error.kind() {
                        ErrorKind::RateLimited { until: Some(until) } => {
                            until.max(later(now, SignedDuration::from_secs(1)))
                        }
                        _ => {
                            failures = failures.saturating_add(1);
                            later(now, self.pace.after_failures(0, failures))
                        }
                    };
                    context.failed(self.name.as_str(), &error, next);
                    next
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = context.clock.sleep_until(next) => {}
            }
        }
    }
}
