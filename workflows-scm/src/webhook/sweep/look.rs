//! One look at a log of deliveries.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use workflows_core::{
    DeliveryId, Error, ErrorKind, RepoConnection, Result, Verified,
    repo::{DeliveredPayload, DeliveryLog, LoggedDelivery},
    source::SourceContext,
    store::CursorMove,
};

use super::{
    super::{DeliveryHeaders, WebhookReceiver},
    position::{MOST_UNREAD, Position, SOON, Unread, earlier},
};
use crate::poll::later;

const OPERATION: &str = "sweep the delivery log";

/// How far the clocks of host and ledger may be apart.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// So many payloads are fetched together.
const TOGETHER: usize = 8;

/// After so many the cursor moves.
const STEP: usize = 100;

/// A payload that cannot be had is asked for again after these times, while those after it wait: they
/// may be about the same thing, and are to be taken in after it.
const AGAIN_AT_ONCE: [SignedDuration; 2] =
    [SignedDuration::from_secs(1), SignedDuration::from_secs(4)];

/// When so many in a row cannot be read, it is the host that fails.
const IN_A_ROW: usize = 16;

const GONE: &str = "the log has it no longer";

/// A page of the log is asked for so often in a row.
const PAGE_TRIES: u32 = 5;

/// What came of a look that got through.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Whether something had not arrived.
    pub(super) found: bool,
    /// What the look could not settle.
    pub(super) left: Option<Error>,
    /// When what could not be read is tried again.
    pub(super) again: Option<Timestamp>,
}

/// The log that is looked at.
#[derive(Debug)]
pub(super) enum Opened {
    Log(Arc<dyn DeliveryLog>),
    OfRepository(Arc<dyn RepoConnection>),
}

impl Opened {
    fn log(&self) -> Result<&dyn DeliveryLog> {
        match self {
            Self::Log(log) => Ok(&**log),
            Self::OfRepository(connection) => connection.delivery_log().ok_or_else(|| {
                Error::unsupported(OPERATION, "the connection offers no delivery log")
                    .with("repository", connection.repo())
            }),
        }
    }
}

pub(super) struct Look<'a> {
    context: &'a SourceContext,
    receiver: &'a WebhookReceiver,
    cursor: &'a str,
    log: &'a dyn DeliveryLog,
    position: Position,
    /// The position as it is in the ledger.
    stored: String,
}

/// Whether the cursor is where this look had it.
enum Moved {
    On,
    ByAnother,
}

/// How far the log was looked through, as the ledger has it. What it does not have is noted first of
/// all, so that what is sent from `floor` on counts whatever comes before the log can be read.
pub(super) async fn noted(
    context: &SourceContext,
    receiver: &WebhookReceiver,
    cursor: &str,
    floor: Timestamp,
) -> Result<(Position, String)> {
    let (publisher, tenant) = (&context.publisher, receiver.tenant());
    let mut conflict = None;
    // Another replica may note it at the same time.
    for _ in 0..2 {
        let stored = publisher.cursor(tenant, cursor).await?;
        if let Some(text) = &stored {
            match serde_json::from_str(text) {
                Ok(position) => return Ok((position, text.clone())),
                Err(_) => {
                    tracing::warn!(cursor, "the cursor cannot be read; the log is taken for new");
                }
            }
        }
        let position = Position::from(floor);
        let to = text_of(&position)?;
        let name = cursor.to_owned();
        let moved = CursorMove { tenant: tenant.clone(), name, from: stored, to: to.clone() };
        match publisher.publish_with_cursor(Vec::new(), moved).await {
            Ok(_) => return Ok((position, to)),
            Err(error) if error.kind() == ErrorKind::Conflict => conflict = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(conflict.unwrap_or_else(|| Error::conflict(OPERATION, "the cursor moves")))
}

fn text_of(position: &Position) -> Result<String> {
    serde_json::to_string(position)
        .map_err(|error| Error::invalid(OPERATION, "the cursor has no text").caused_by(error))
}

impl<'a> Look<'a> {
    pub(super) fn begin(
        context: &'a SourceContext,
        receiver: &'a WebhookReceiver,
        cursor: &'a str,
        log: &'a Opened,
        (position, stored): (Position, String),
    ) -> Result<Self> {
        Ok(Self { context, receiver, cursor, log: log.log()?, position, stored })
    }

    pub(super) async fn run(mut self) -> Result<Looked> {
        self.read_again().await?;
        let (logged, mut left) = self.listed().await?;
        let newest = logged.iter().map(|one| one.sent_at).max();
        let missing = self.missing(logged).await?;
        let found = !missing.is_empty();
        let taken = self.take_in(missing).await;
        if let (Ok(Moved::On), Some(newest)) = (&taken, newest) {
            self.position.settled(newest);
        }
        let moved = match taken {
            Ok(Moved::ByAnother) => return Ok(Looked::default()),
            Ok(Moved::On) => self.store().await,
            Err(error) => {
                self.store().await?;
                return Err(error);
            }
        };
        moved?;
        if let Some(first) = self.position.unread.first() {
            let text = "deliveries cannot be read at present; they are tried again one by one";
            let error = Error::transient(OPERATION, text)
                .with("deliveries", self.position.unread.len())
                .with("the first", &first.delivery);
            left.get_or_insert(error);
        }
        Ok(Looked { found, left, again: self.position.next_try() })
    }

    /// Tries those again that could not be read, each in its own time.
    async fn read_again(&mut self) -> Result<()> {
        let now = self.context.clock.now();
        let due = |one: &&Unread| one.next <= now;
        let due: Vec<Unread> = self.position.unread.iter().filter(due).cloned().collect();
        for mut one in due {
            match self.log.replay(&one.id).await {
                Ok(payload) => self.hand_in(&one.delivery, payload).await?,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.lose(&one.delivery, GONE, &error).await?;
                }
                Err(error) if is_for_all(&error) => return Err(error),
                Err(error) if one.is_hopeless(now) => {
                    self.lose(&one.delivery, "it could never be read", &error).await?;
                }
                Err(error) => {
                    tracing::warn!(%error, delivery = %one.delivery, "a delivery cannot be read yet");
                    one.failed_again(now);
                    self.position.forget(&one.delivery);
                    self.position.unread.push(one);
                    continue;
                }
            }
            self.position.forget(&one.delivery);
        }
        Ok(())
    }

    /// What the log has since the last look, newest first, and what kept the rest of it away. A page
    /// that cannot be had is asked for again, and not those before it.
    async fn listed(&self) -> Result<(Vec<LoggedDelivery>, Option<Error>)> {
        let mut listing = self.log.list(self.position.since());
        let (mut logged, mut failures, mut failed) = (Vec::new(), 0, None);
        loop {
            let error = match listing.next().await {
                Some(Ok(one)) => {
                    (failures, failed) = (0, None);
                    logged.push(one);
                    continue;
                }
                None => return failed.map_or(Ok((logged, None)), Err),
                Some(Err(error)) => error,
            };
            let now = self.context.clock.now();
            let until = match error.kind() {
                ErrorKind::RateLimited { until: Some(until) } => {
                    until.max(later(now, SignedDuration::from_secs(1)))
                }
                kind if kind.is_retryable() && failures < PAGE_TRIES => {
                    failures += 1;
                    later(now, SOON.after_failures(0, failures))
                }
                // Nothing can be had of what is beyond it, and nothing is gained by not taking in
                // what was listed.
                ErrorKind::Invalid if !logged.is_empty() => return Ok((logged, Some(error))),
                _ => return Err(error),
            };
            self.context.failed(self.cursor, &error, until);
            self.context.clock.sleep_until(until).await;
            failed = Some(error);
        }
    }

    /// Those that have to be fetched, oldest first, each once: a redelivery has the id of the first one,
    /// and of several the last is the one that the log keeps longest.
    async fn missing(&self, logged: Vec<LoggedDelivery>) -> Result<Vec<LoggedDelivery>> {
        if logged.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.known_since(self.position.since()).await?;
        let mut places: HashMap<DeliveryId, usize> = HashMap::new();
        let mut missing: Vec<LoggedDelivery> = Vec::new();
        let mut logged = logged;
        logged.sort_by(|a, b| a.sent_at.cmp(&b.sent_at).then_with(|| a.id.cmp(&b.id)));
        for one in logged {
            if !one.may_matter
                || known.contains(&one.delivery)
                || self.position.is_unread(&one.delivery)
            {
                continue;
            }
            match places.get(&one.delivery).and_then(|place| missing.get_mut(*place)) {
                Some(first) => first.id = one.id,
                None => {
                    places.insert(one.delivery.clone(), missing.len());
                    missing.push(one);
                }
            }
        }
        Ok(missing)
    }

    /// What the ledger has of that time.
    async fn known_since(&self, since: Timestamp) -> Result<HashSet<DeliveryId>> {
        let publisher = &self.context.publisher;
        let (tenant, source) = (self.receiver.tenant(), self.receiver.source());
        publisher.delivered_since(tenant, source, earlier(since, SKEW)).await
    }

    /// Takes deliveries in, oldest first. One that cannot be read is remembered, and the others go on.
    async fn take_in(&mut self, missing: Vec<LoggedDelivery>) -> Result<Moved> {
        let (log, clock) = (self.log, &self.context.clock);
        let mut payloads = stream::iter(missing)
            .map(|one| async move {
                let mut waits = AGAIN_AT_ONCE.iter();
                loop {
                    match log.replay(&one.id).await {
                        Err(error) if error.kind().is_retryable() && !is_for_all(&error) => {
                            let Some(wait) = waits.next() else { return (Err(error), one) };
                            clock.sleep_until(later(clock.now(), *wait)).await;
                        }
                        read => return (read, one),
                    }
                }
            })
            .buffered(TOGETHER);
        let mut row: Vec<(LoggedDelivery, Error)> = Vec::new();
        let mut settled = 0;
        while let Some((read, one)) = payloads.next().await {
            match read {
                Ok(payload) => {
                    self.remember(&mut row);
                    self.hand_in(&one.delivery, payload).await?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.remember(&mut row);
                    self.lose(&one.delivery, GONE, &error).await?;
                }
                Err(error) if is_for_all(&error) => return Err(error),
                Err(error) => {
                    row.push((one, error));
                    let is_full = self.position.unread.len() + row.len() > MOST_UNREAD;
                    if (row.len() >= IN_A_ROW || is_full)
                        && let Some((_, error)) = row.pop()
                    {
                        return Err(error);
                    }
                    continue;
                }
            }
            self.position.settled(one.sent_at);
            settled += 1;
            if settled % STEP == 0
                && let Moved::ByAnother = self.store().await?
            {
                return Ok(Moved::ByAnother);
            }
        }
        self.remember(&mut row);
        Ok(Moved::On)
    }

    fn remember(&mut self, row: &mut Vec<(LoggedDelivery, Error)>) {
        let now = self.context.clock.now();
        for (one, error) in row.drain(..) {
            tracing::warn!(%error, delivery = %one.delivery, "a delivery cannot be read yet");
            self.position.remember(one, now);
        }
    }

    async fn hand_in(&self, delivery: &DeliveryId, payload: DeliveredPayload) -> Result<()> {
        let headers = DeliveryHeaders::new(payload.headers);
        let verified = Verified::fetched(payload.body);
        match self.receiver.take_in(self.context, &headers, &verified).await {
            Ok(taken) => {
                tracing::info!(%delivery, what = %taken.what, "took in what had not arrived");
                Ok(())
            }
            // It is recorded as what cannot be read.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::warn!(%error, %delivery, "a delivery is invalid");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Nobody can have it any more: that is recorded, too.
    async fn lose(&self, delivery: &DeliveryId, why: &str, error: &Error) -> Result<()> {
        tracing::warn!(%error, %delivery, why, "a delivery is lost");
        let reason = format!("it is lost: {why}: {error}");
        self.receiver.record_lost(self.context, delivery.clone(), reason).await
    }

    /// Moves the cursor to what is settled.
    async fn store(&mut self) -> Result<Moved> {
        let to = text_of(&self.position)?;
        if self.stored == to {
            return Ok(Moved::On);
        }
        let cursor = CursorMove {
            tenant: self.receiver.tenant().clone(),
            name: self.cursor.to_owned(),
            from: Some(self.stored.clone()),
            to: to.clone(),
        };
        match self.context.publisher.publish_with_cursor(Vec::new(), cursor).await {
            Ok(_) => {
                self.stored = to;
                Ok(Moved::On)
            }
            // Another replica sweeps at the same time, and what it took in is taken in.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(Moved::ByAnother),
            Err(error) => Err(error),
        }
    }
}

/// Whether the host would say the same of any other delivery.
fn is_for_all(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RateLimited { .. } | ErrorKind::Unsupported)
}
