//! Taking deliveries in: [`WebhookReceiver`].

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use metrics::counter;
use secrecy::SecretString;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    ConnectionName, DeliveryId, Error, ErrorKind, EventSource, Observation, RepoRef, Result,
    SecretRef, SourceName, SubjectClaim, Tenant, Verified,
    event::{NothingClaim, Payload, Seen},
    source::SourceContext,
    store::Admitted,
};

use super::{
    answer::{Answer, TakenAs},
    delivery::{DeliveredRepo, Delivery, DeliveryFormat, DeliveryHeaders, Told},
};

/// One route of webhook deliveries: one credential of one tenant, with its secrets.
///
/// It is a function of headers and bytes ([`receive`](Self::receive)), for whatever server a program
/// has; with the feature `webhook-axum` there is a router. And it is an [`EventSource`]: added to an
/// engine, it hands in what it receives. Clones are the same receiver, so that one goes to the engine
/// and one to the server. Deliveries that come before the engine runs wait for it, no longer than
/// [`patience`](Self::patience), for no host sends again by itself what it sent too early. Then, and
/// after the engine stopped, the answer is 503.
///
/// A delivery is verified with this route's secrets before a byte of it is parsed, is in the ledger
/// before it is answered with success, and what nothing can come of is recorded with the reason
/// ([`SubjectClaim::Nothing`]). Which repositories it may be about is for the format to say
/// ([`DeliveryFormat::serves`]).
///
/// Metrics: the counter `workflows_webhook_deliveries_total` with `source` and `taken`, which is
/// `event`, `duplicate`, `nothing`, `refused` (who sent it is unknown), `invalid`, `unready` or
/// `failed`.
#[derive(Debug, Clone)]
pub struct WebhookReceiver {
    route: Arc<Route>,
    state: Arc<State>,
}

#[derive(Debug, Clone)]
struct Route {
    name: SourceName,
    tenant: Tenant,
    connection: ConnectionName,
    format: Arc<dyn DeliveryFormat>,
    secrets: Vec<HookSecret>,
    max_bytes: usize,
    patience: SignedDuration,
}

#[derive(Debug)]
struct State {
    engine: watch::Sender<Engine>,
    /// Room for deliveries that are being handled, in kibibytes.
    room: Arc<Semaphore>,
}

/// What hands deliveries on.
#[derive(Debug, Clone)]
enum Engine {
    NotYet,
    Running(SourceContext),
    Stopped,
}

/// A secret that deliveries are signed with: by name out of the engine's secret store, asked for at
/// each delivery, or the value itself.
#[derive(Clone)]
pub enum HookSecret {
    /// By name.
    Named(SecretRef),
    /// The value.
    Held(SecretString),
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(reference) => f.debug_tuple("Named").field(reference).finish(),
            Self::Held(_) => f.debug_struct("Held").finish_non_exhaustive(),
        }
    }
}

impl From<SecretRef> for HookSecret {
    fn from(reference: SecretRef) -> Self {
        Self::Named(reference)
    }
}

impl From<SecretString> for HookSecret {
    fn from(value: SecretString) -> Self {
        Self::Held(value)
    }
}

/// All deliveries that are handled at one time may have so many kibibytes together.
const ROOM: usize = 256 << 10;

impl WebhookReceiver {
    /// The largest delivery that hosts send: GitHub's limit
    /// (<https://docs.github.com/en/webhooks/webhook-events-and-payloads>).
    pub const MAX_BYTES: usize = 25 << 20;

    /// A receiver of the default tenant, without a secret: it refuses everything until it has one.
    /// `name` is the name of the source; `connection` the one under which the engine knows the driver.
    pub fn new(
        name: impl Into<SourceName>,
        connection: impl Into<ConnectionName>,
        format: impl DeliveryFormat,
    ) -> Self {
        let route = Route {
            name: name.into(),
            tenant: Tenant::default(),
            connection: connection.into(),
            format: Arc::new(format),
            secrets: Vec::new(),
            max_bytes: Self::MAX_BYTES,
            patience: SignedDuration::from_secs(8),
        };
        let state = State {
            engine: watch::Sender::new(Engine::NotYet),
            room: Arc::new(Semaphore::new(ROOM)),
        };
        Self { route: Arc::new(route), state: Arc::new(state) }
    }

    /// Sets the tenant.
    #[must_use]
    pub fn of_tenant(self, tenant: Tenant) -> Self {
        self.set(|route| route.tenant = tenant)
    }

    /// Adds a secret. Of several, any may have signed a delivery, so that one can be replaced while
    /// deliveries come in: add the new one, set it at the host, remove the old one.
    #[must_use]
    pub fn secret(self, secret: impl Into<HookSecret>) -> Self {
        self.set(|route| route.secrets.push(secret.into()))
    }

    /// Sets the largest delivery in bytes. Default: [`MAX_BYTES`](Self::MAX_BYTES).
    #[must_use]
    pub fn max_bytes(self, bytes: usize) -> Self {
        self.set(|route| route.max_bytes = bytes)
    }

    /// Sets how long it may take to answer a delivery: to read its body, to wait for room and for the
    /// engine to run, and to store it, all together. Default: 8 seconds; GitHub waits for 10.
    #[must_use]
    pub fn patience(self, patience: SignedDuration) -> Self {
        self.set(|route| route.patience = patience)
    }

    fn set(mut self, change: impl FnOnce(&mut Route)) -> Self {
        change(Arc::make_mut(&mut self.route));
        self
    }

    /// The name of the source.
    pub fn source(&self) -> &SourceName {
        &self.route.name
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.route.tenant
    }

    pub(super) fn connection(&self) -> &ConnectionName {
        &self.route.connection
    }

    #[cfg(feature = "webhook-axum")]
    pub(super) fn limit(&self) -> usize {
        self.route.max_bytes
    }

    fn allowed_time(&self) -> Duration {
        self.route.patience.unsigned_abs()
    }

    /// Until when a delivery that comes now is to be answered.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.allowed_time()
    }

    /// Takes a delivery in. It never fails: what went wrong is the answer.
    pub async fn receive(&self, headers: &DeliveryHeaders, body: Bytes) -> Answer {
        let deadline = self.deadline();
        match self.make_room(body.len(), deadline).await {
            Ok(room) => self.receive_holding(room, headers, body, deadline).await,
            Err(answer) => self.counted(answer),
        }
    }

    /// As [`receive`](Self::receive), with the room for the bytes held already.
    pub(super) async fn receive_holding(
        &self,
        room: OwnedSemaphorePermit,
        headers: &DeliveryHeaders,
        body: Bytes,
        deadline: Instant,
    ) -> Answer {
        let answer = self.answer(headers, body, deadline).await;
        drop(room);
        self.counted(answer)
    }

    pub(super) fn counted(&self, answer: Answer) -> Answer {
        let source = self.route.name.to_string();
        let taken = answer.taken().as_str();
        counter!("workflows_webhook_deliveries_total", "source" => source, "taken" => taken)
            .increment(1);
        answer
    }

    /// Holds room for a delivery of so many bytes.
    pub(super) async fn make_room(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Answer> {
        if bytes > self.route.max_bytes {
            return Err(Answer::too_large(self.route.max_bytes));
        }
        let wanted = (bytes / 1024 + 1).min(ROOM);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.state.room).acquire_many_owned(wanted);
        match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Answer::unready("too many deliveries are being handled")),
        }
    }

    async fn answer(&self, headers: &DeliveryHeaders, body: Bytes, deadline: Instant) -> Answer {
        if self.route.secrets.is_empty() {
            return Answer::refused("no secret is configured for this webhook; set one");
        }
        let handled = async {
            let Some(context) = self.context().await else {
                return Answer::unready("the engine does not run");
            };
            let secrets = match self.secrets(&context).await {
                Ok(secrets) => secrets,
                Err(error) => {
                    tracing::error!(%error, source = %self.route.name, "no webhook secret");
                    return Answer::unready("the webhook's secret cannot be had now");
                }
            };
            match self.route.format.verify(headers, body, &secrets) {
                Ok(verified) => self.answer_verified(&context, headers, &verified).await,
                Err(error) => {
                    tracing::debug!(%error, source = %self.route.name, "a delivery was refused");
                    Answer::refused(error.message())
                }
            }
        };
        tokio::time::timeout_at(deadline, handled)
            .await
            .unwrap_or_else(|_| Answer::unready("the engine or its ledger took too long"))
    }

    async fn answer_verified(
        &self,
        context: &SourceContext,
        headers: &DeliveryHeaders,
        verified: &Verified,
    ) -> Answer {
        match self.take_in(context, headers, verified).await {
            Ok(taken) => {
                context.succeeded(self.route.name.as_str());
                Answer::taken_in(taken)
            }
            Err(error) => match error.kind() {
                ErrorKind::Invalid | ErrorKind::Unsupported => {
                    tracing::warn!(%error, source = %self.route.name, "a delivery is invalid");
                    Answer::invalid(&error.to_string())
                }
                _ => {
                    tracing::error!(%error, source = %self.route.name, "a delivery was not stored");
                    let now = context.clock.now();
                    context.failed(self.route.name.as_str(), &error, now);
                    Answer::unready("it could not be stored")
                }
            },
        }
    }

    /// Takes in a delivery that is vouched for. One that cannot be read is recorded, too, so that a
    /// sweep of the host's log does not come back to it for ever.
    pub(super) async fn take_in(
        &self,
        context: &SourceContext,
        headers: &DeliveryHeaders,
        verified: &Verified,
    ) -> Result<Taken> {
        let format = &self.route.format;
        let delivery = match format.decode(headers, verified) {
            Ok(delivery) => delivery,
            Err(error) => {
                let (id, what) = format.label(headers, verified.body());
                let reason = format!("it cannot be read: {error}");
                let observation = self.observation(None, id, nothing(&what, reason));
                context.publisher.publish(vec![observation]).await?;
                return Err(error);
            }
        };
        let served = delivery.repo.as_ref().is_none_or(|repo| format.serves(&repo.name));
        let claims = match &delivery.told {
            _ if !served => {
                let reason = "the connection does not serve this repository".to_owned();
                vec![nothing(&delivery.what, reason)]
            }
            Told::Claims(claims) => claims.clone(),
            Told::AccessChanged(change) => {
                format.access_changed(change).await;
                vec![nothing(&delivery.what, "what the credential reaches has changed".to_owned())]
            }
            Told::Nothing(reason) => vec![nothing(&delivery.what, reason.clone())],
        };
        self.publish(context, headers, verified, &delivery, claims).await
    }

    /// Records that a delivery cannot be had any more.
    pub(super) async fn record_lost(
        &self,
        context: &SourceContext,
        delivery: DeliveryId,
        reason: String,
    ) -> Result<()> {
        let observation = self.observation(None, delivery, nothing(&"lost".into(), reason));
        context.publisher.publish(vec![observation]).await.map(drop)
    }

    async fn publish(
        &self,
        context: &SourceContext,
        headers: &DeliveryHeaders,
        verified: &Verified,
        delivery: &Delivery,
        claims: Vec<SubjectClaim>,
    ) -> Result<Taken> {
        let payload = Payload::new(headers.iter(), verified.body().clone());
        let reason = claims.iter().find_map(|claim| match claim {
            SubjectClaim::Nothing(claim) => Some(claim.reason.clone()),
            _ => None,
        });
        let observations = claims.into_iter().map(|claim| {
            let mut observation =
                self.observation(delivery.repo.as_ref(), delivery.id.clone(), claim);
            observation.sender.clone_from(&delivery.sender);
            observation.occurred_at = delivery.occurred_at;
            if !matches!(observation.claim, SubjectClaim::Nothing(_)) {
                observation.payload = Some(payload.clone());
            }
            observation
        });
        let admitted = context.publisher.publish(observations.collect()).await?;
        Ok(Taken { what: Arc::clone(&delivery.what), admitted, nothing: reason })
    }

    fn observation(
        &self,
        repo: Option<&DeliveredRepo>,
        delivery: DeliveryId,
        claim: SubjectClaim,
    ) -> Observation {
        let Route { name, tenant, connection, .. } = &*self.route;
        let (id, full_name) = match repo {
            Some(repo) => (repo.id.clone(), Arc::clone(&repo.name)),
            None => (NO_REPOSITORY.into(), NO_REPOSITORY.into()),
        };
        let repo = RepoRef { connection: connection.clone(), id, name: full_name };
        Observation::new(tenant.clone(), repo, name.clone(), delivery, Seen::Told, claim)
    }

    /// Waits for the engine to run; none when it has stopped.
    async fn context(&self) -> Option<SourceContext> {
        let mut engine = self.state.engine.subscribe();
        let engine = engine.wait_for(|engine| !matches!(engine, Engine::NotYet)).await;
        match engine.as_deref() {
            Ok(Engine::Running(context)) => Some(context.clone()),
            _ => None,
        }
    }

    /// The secrets that there are now. One that is named and gone is none.
    async fn secrets(&self, context: &SourceContext) -> Result<Vec<SecretString>> {
        let mut found = Vec::with_capacity(self.route.secrets.len());
        for secret in &self.route.secrets {
            match secret {
                HookSecret::Held(value) => found.push(value.clone()),
                HookSecret::Named(reference) => {
                    match context.secrets.get(&self.route.tenant, reference).await {
                        Ok(value) => found.push(value),
                        Err(error) if error.kind() == ErrorKind::NotFound => {
                            tracing::warn!(%error, "a webhook secret is not there");
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The name and id of the repository in the record of a delivery that is about none.
const NO_REPOSITORY: &str = "-";

fn nothing(what: &Arc<str>, reason: String) -> SubjectClaim {
    SubjectClaim::Nothing(Box::new(NothingClaim { what: Arc::clone(what), reason }))
}

/// What came of a delivery that is in the ledger.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) what: Arc<str>,
    pub(super) admitted: Vec<Admitted>,
    pub(super) nothing: Option<String>,
}

impl Taken {
    pub(super) fn as_what(&self) -> TakenAs {
        if self.admitted.iter().any(|one| one.event().is_some()) {
            TakenAs::Event
        } else if self.nothing.is_some() {
            TakenAs::Nothing
        } else {
            TakenAs::Duplicate
        }
    }
}

#[async_trait]
impl EventSource for WebhookReceiver {
    fn name(&self) -> SourceName {
        self.route.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        if self.route.secrets.is_empty() {
            return Err(Error::invalid(
                "receive webhooks",
                "no secret is configured, so that every delivery would be refused; add one with \
                 `secret`",
            )
            .with("source", &self.route.name));
        }
        self.state.engine.send_replace(Engine::Running(context));
        shutdown.cancelled().await;
        self.state.engine.send_replace(Engine::Stopped);
        // Those that are being handled end first.
        let all = u32::try_from(ROOM).unwrap_or(u32::MAX);
        let drained = self.state.room.acquire_many(all);
        let _ = tokio::time::timeout(self.allowed_time(), drained).await;
        Ok(())
    }
}
