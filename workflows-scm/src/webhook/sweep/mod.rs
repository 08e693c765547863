//! Finding what never arrived in a host's own log of deliveries: [`DeliverySweep`].

mod look;
mod position;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, ErrorKind, EventSource, Result, SourceName, repo::DeliveryLog, source::SourceContext,
};

use self::{
    look::{Look, Looked, Opened},
    position::{SOON, earlier},
};
use super::WebhookReceiver;
use crate::poll::{Pace, later};

/// Reads a host's log of deliveries, at start and then at an interval, and takes in those that the
/// ledger has not, as if they had arrived. After the first look, and after each that found something,
/// the next one comes half a minute later: hosts log a delivery when it was answered or given up,
/// and what kept one from arriving may last.
///
/// Hosts do not send a failed delivery again by themselves, but keep it for days (GitHub for three:
/// <https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/viewing-webhook-deliveries>),
/// also when the address could not be reached at all. So this finds what was sent while the program
/// was away, and it is enough alone, without any inbound port: make a receiver, give it to the sweep
/// and to no server, and choose a short interval.
///
/// A delivery from the log is the same one as when it arrives: it has the same id under the same
/// source. It is trusted because it was fetched over the host's authenticated API
/// ([`Verified::fetched`](workflows_core::Verified::fetched)); the log keeps no raw bytes to check a signature of.
///
/// One look costs a call for each page of the log since the last one, and one for each delivery that
/// the ledger does not have and of which something may come. They are taken in oldest first, and the
/// cursor moves with them, so that the next look begins where the last one ended. One that the host
/// fails to show is asked for again, at first at once and then later and later, while the others go on;
/// health tells of it. One that the host keeps no longer is recorded as lost.
///
/// Of a new ledger, what was sent since the source began counts, also while the log could not be had,
/// or for as long before as [`looking_back`](Self::looking_back) says.
#[derive(Debug, Clone)]
pub struct DeliverySweep {
    name: SourceName,
    receiver: WebhookReceiver,
    log: Log,
    pace: Pace,
    looking_back: SignedDuration,
}

/// When the log is looked at again after the first look, and after one that found something. Hosts
/// wait ten seconds for an answer before they log that none came.
const SOON_AGAIN: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, Clone)]
enum Log {
    Given(Arc<dyn DeliveryLog>),
    OfRepository(Arc<str>),
}

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

    async fn open(&self, context: &SourceContext) -> Result<Opened> {
        match &self.log {
            Log::Given(log) => Ok(Opened::Log(Arc::clone(log))),
            Log::OfRepository(repo) => {
                let (tenant, connection) = (self.receiver.tenant(), self.receiver.connection());
                let connection = context.connections.repository(tenant, connection, repo).await?;
                Ok(Opened::OfRepository(connection))
            }
        }
    }

    /// Has the ledger note from when on the log counts, unless it has: from now on, or for as long
    /// before as [`looking_back`](Self::looking_back) says. The host is not asked.
    ///
    /// [`run`](EventSource::run) does so first of all. A program that tells others that it is ready does
    /// it before, so that what they send from then on is found even when it ends at once.
    ///
    /// # Errors
    ///
    /// `Transient` when the ledger cannot be written now.
    pub async fn begin(&self, context: &SourceContext) -> Result<()> {
        let floor = earlier(context.clock.now(), self.looking_back);
        look::noted(context, &self.receiver, self.name.as_str(), floor).await.map(drop)
    }

    async fn sweep(&self, context: &SourceContext, floor: Timestamp) -> Result<Looked> {
        let name = self.name.as_str();
        let noted = look::noted(context, &self.receiver, name, floor).await?;
        let log = self.open(context).await?;
        Look::begin(context, &self.receiver, name, &log, noted)?.run().await
    }
}

#[async_trait]
impl EventSource for DeliverySweep {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let floor = earlier(context.clock.now(), self.looking_back);
        let mut failures = 0_u32;
        let mut is_first = true;
        loop {
            let swept = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                swept = self.sweep(&context, floor) => swept,
            };
            let now = context.clock.now();
            let next = match swept {
                Ok(Looked { found, left, again }) => {
                    failures = 0;
                    let calm = if is_first || found { SOON_AGAIN } else { SignedDuration::MAX };
                    is_first = false;
                    let next = later(now, self.pace.shortest.min(calm));
                    let next = again.map_or(next, |again| again.min(next));
                    match left {
                        None => context.succeeded(self.name.as_str()),
                        Some(error) => context.failed(self.name.as_str(), &error, next),
                    }
                    next
                }
                Err(error) => {
                    // A limit is no failure: it says until when.
                    let next = match error.kind() {
                        ErrorKind::RateLimited { until: Some(until) } => {
                            until.max(later(now, SignedDuration::from_secs(1)))
                        }
                        _ => {
                            failures = failures.saturating_add(1);
                            later(now, SOON.after_failures(0, failures))
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
