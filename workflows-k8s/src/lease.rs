//! Which of several replicas does what one suffices for: [`LeaseHolder`].

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use workflows_core::{Result, SharedClock, SystemClock};

use crate::error::from_kube;

/// Holds a Lease of the cluster, or waits for it.
///
/// It saves work that several replicas would do each: correctness hangs on the ledger, never on it.
/// A replica that was frozen may believe for a while that it still holds the Lease; what it does then
/// the ledger folds into what the other one did.
///
/// A Lease is free when it was not renewed for its length, by the clock of who looks at it, so that
/// clocks need not agree. It needs `leases` (get, create, update).
#[derive(Clone)]
pub struct LeaseHolder {
    client: Client,
    namespace: Arc<str>,
    name: Arc<str>,
    holder: Arc<str>,
    length: SignedDuration,
    clock: SharedClock,
    holds: watch::Sender<bool>,
}

impl fmt::Debug for LeaseHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseHolder")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

/// What was seen of the Lease last.
#[derive(Debug, Default)]
struct Seen {
    version: String,
    since: Option<Timestamp>,
    renewed: Option<Timestamp>,
}

impl LeaseHolder {
    /// Holds the Lease of that namespace and name as `holder`, such as the pod's name, which no other
    /// replica has.
    pub fn new(
        client: Client,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
        holder: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            name: name.into(),
            holder: holder.into(),
            length: SignedDuration::from_secs(15),
            clock: Arc::new(SystemClock),
            holds: watch::channel(false).0,
        }
    }

    /// Sets how long the Lease is held without being renewed. Default: 15 seconds.
    #[must_use]
    pub fn length(mut self, length: SignedDuration) -> Self {
        self.length = length.max(SignedDuration::from_secs(1));
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Whether this replica holds it.
    pub fn holds(&self) -> watch::Receiver<bool> {
        self.holds.subscribe()
    }

    /// Takes the Lease when it is free and renews it, until it is told to stop; then gives it back.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut seen = Seen::default();
        loop {
            let step = tokio::time::timeout(self.limit(), self.step(&mut seen));
            let holds = tokio::select! {
                () = shutdown.cancelled() => break,
                stepped = step => match stepped {
                    Ok(Ok(holds)) => holds,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, lease = %self.name, "the lease could not be looked at");
                        self.still_holds(&seen)
                    }
                    Err(_) => self.still_holds(&seen),
                },
            };
            self.tell(holds);
            let now = self.clock.now();
            let next = now.checked_add(self.length / 3).unwrap_or(now);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.clock.sleep_until(next) => {}
            }
        }
        let held = *self.holds.borrow();
        self.tell(false);
        if !held {
            return;
        }
        match tokio::time::timeout(self.limit(), self.give_back()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(%error, lease = %self.name, "the lease was not given back, and ends by itself");
            }
            Err(_) => {
                tracing::info!(lease = %self.name, "the lease was not given back in time, and ends by itself");
            }
        }
    }

    /// An answer that comes later than that is of no use.
    fn limit(&self) -> Duration {
        Duration::try_from(self.length / 3).unwrap_or(Duration::from_secs(1))
    }

    fn tell(&self, holds: bool) {
        self.holds.send_if_modified(|told| std::mem::replace(told, holds) != holds);
    }

    /// Whether it is held for some time yet, when it could not be renewed.
    fn still_holds(&self, seen: &Seen) -> bool {
        let spent = seen.renewed.map(|renewed| self.clock.now().duration_since(renewed));
        *self.holds.borrow() && spent.is_some_and(|spent| spent < self.length * 2 / 3)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Looks once: takes it, renews it, or leaves it to its holder.
    async fn step(&self, seen: &mut Seen) -> Result<bool> {
        let now = self.clock.now();
        let failed = |error| from_kube("hold a lease", error, now);
        let leases = self.leases();
        let Some(mut lease) = leases.get_opt(&self.name).await.map_err(failed)? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.to_string()), ..ObjectMeta::default() },
                spec: Some(self.spec(None, now)),
            };
            return match leases.create(&PostParams::default(), &lease).await {
                Ok(_) => {
                    seen.renewed = Some(now);
                    Ok(true)
                }
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(failed(error)),
            };
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if version != seen.version {
            seen.version = version;
            seen.since = Some(now);
        }
        let before = lease.spec.take().unwrap_or_default();
        let holder = before.holder_identity.as_deref().unwrap_or_default();
        let is_ours = holder == &*self.holder;
        let length = before
            .lease_duration_seconds
            .map_or(self.length, |seconds| SignedDuration::from_secs(i64::from(seconds)));
        let is_free = holder.is_empty()
            || seen.since.is_some_and(|since| now.duration_since(since) >= length);
        if !is_ours && !is_free {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(&before), now));
        match leases.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(written) => {
                seen.version = written.metadata.resource_version.unwrap_or_default();
                seen.since = Some(now);
                seen.renewed = Some(now);
                Ok(true)
            }
            // Another one was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let is_ours =
            before.is_some_and(|before| before.holder_identity.as_deref() == Some(&*self.holder));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        let acquired = before.filter(|_| is_ours).and_then(|before| before.acquire_time.clone());
        LeaseSpec {
            holder_identity: Some(self.holder.to_string()),
            lease_duration_seconds: i32::try_from(self.length.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions + i32::from(!is_ours && before.is_some())),
            ..LeaseSpec::default()
        }
    }

    /// Lets another one have it at once.
    async fn give_back(&self) -> Result<()> {
        let now = self.clock.now();
        let failed = |error| from_kube("give a lease back", error, now);
        let leases = self.leases();
        let Some(mut lease) = leases.get_opt(&self.name).await.map_err(failed)? else {
            return Ok(());
        };
        let is_ours = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref())
            == Some(&*self.holder);
        if !is_ours {
            return Ok(());
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        leases.replace(&self.name, &PostParams::default(), &lease).await.map_err(failed)?;
        Ok(())
    }
}
