//! What keeps the engine going: a loop for each stage, the sources, the sinks' changes, retention.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{backoff, core::Core, rebuild, retention, stage};
use crate::{
    Error, EventSource, RunSink, SinkName, Tenant,
    sink::ChangedRun,
    source::{ProgressSink, SourceContext},
    store::{Claim, ClaimRequest, Stage, WorkKey},
};

/// How long to wait after the ledger did not answer, and before a sink's stream of changes or a
/// source that failed is started again.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// How long giving back claims may take once the engine has stopped.
const LAST_WORDS: SignedDuration = SignedDuration::from_secs(5);

/// Runs the engine until `shutdown`, and what is under way to its end or to the end of the drain.
pub(crate) async fn run(
    core: Arc<Core>,
    sources: Vec<(Arc<dyn EventSource>, SourceContext)>,
    shutdown: CancellationToken,
) {
    // Boxed, or programs that embed the engine come near the compiler's limits.
    rebuild::rebuild(&core, &shutdown).boxed().await;
    let loops = TaskTracker::new();
    let workers = Arc::new(Workers::new(Arc::clone(&core), shutdown.clone()));
    for stage in Stage::ALL {
        loops.spawn(Arc::clone(&workers).serve(stage));
    }
    for (name, sink) in &core.sinks {
        loops.spawn(Arc::clone(&workers).follow_changes(name.clone(), Arc::clone(sink)));
    }
    loops.spawn(retention::keep(Arc::clone(&core), shutdown.clone()));
    let sources_tracker = TaskTracker::new();
    for (source, context) in sources {
        let abort = workers.abort.clone();
        let kept = keep_source(Arc::clone(&core), source, context, shutdown.clone());
        sources_tracker.spawn(async move {
            tokio::select! { () = kept => (), () = abort.cancelled() => () }
        });
    }

    shutdown.cancelled().await;
    loops.close();
    sources_tracker.close();
    let drained = async {
        sources_tracker.wait().await;
        loops.wait().await;
        workers.under_way.close();
        workers.under_way.wait().await;
    };
    let drain = core.options.drain.unsigned_abs();
    if tokio::time::timeout(drain, drained).await.is_err() {
        tracing::warn!("the drain is over; what is under way is given back");
        workers.abort.cancel();
        workers.under_way.close();
        let last = async {
            workers.under_way.wait().await;
            sources_tracker.wait().await;
        };
        let _ = tokio::time::timeout(LAST_WORDS.unsigned_abs(), last).await;
    }
}

/// The pieces of work that are under way in this process.
struct Workers {
    core: Arc<Core>,
    slots: [Arc<Semaphore>; Stage::ALL.len()],
    under_way: TaskTracker,
    /// Runs that are being looked at, and whether a change of theirs was told meanwhile.
    observed: Mutex<HashMap<(Tenant, WorkKey), bool>>,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Workers {
    fn new(core: Arc<Core>, stop: CancellationToken) -> Self {
        let slots = Stage::ALL.map(|_| Arc::new(Semaphore::new(core.options.concurrency.max(1))));
        Self {
            core,
            slots,
            under_way: TaskTracker::new(),
            observed: Mutex::default(),
            stop,
            abort: CancellationToken::new(),
        }
    }

    fn slots(&self, stage: Stage) -> Arc<Semaphore> {
        Arc::clone(&self.slots[stage as usize])
    }

    /// A free place in a stage, waiting for one; `None` when the engine stops.
    async fn slot(&self, stage: Stage) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            slot = self.slots(stage).acquire_owned() => slot.ok(),
        }
    }

    /// Claims work of a stage and starts it, until the engine stops.
    async fn serve(self: Arc<Self>, stage: Stage) {
        let most = self.core.options.concurrency.div_ceil(2).max(1);
        let mut silent_ledger = None;
        while let Some(first) = self.slot(stage).await {
            let mut free = vec![first];
            while free.len() < most
                && let Ok(slot) = self.slots(stage).try_acquire_owned()
            {
                free.push(slot);
            }
            let wanted = free.len();
            let request = ClaimRequest::of(stage, u32::try_from(wanted).unwrap_or(u32::MAX))
                .leased_for(self.core.options.lease);
            let claimed = match self.core.store.claim(request).await {
                Ok(claimed) => {
                    if let Some(error) = silent_ledger.take() {
                        self.core.health.stage_is_over(stage, &error);
                    }
                    claimed
                }
                Err(error) => {
                    let next = backoff::after(self.core.clock.now(), PAUSE);
                    tracing::warn!(%error, %stage, "no work could be claimed");
                    self.core.health.stage_failed(stage, &error, next);
                    silent_ledger = Some(error);
                    drop(free);
                    self.pause_until(next).await;
                    continue;
                }
            };
            let got = claimed.claims.len();
            for (claim, slot) in claimed.claims.into_iter().zip(free) {
                self.start(claim, slot);
            }
            if got == wanted {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.core.store.woken(stage) => (),
                () = sleep_until(&self.core, claimed.next_due) => (),
            }
        }
    }

    async fn pause_until(&self, instant: Timestamp) {
        tokio::select! {
            () = self.stop.cancelled() => (),
            () = self.core.clock.sleep_until(instant) => (),
        }
    }

    fn start(self: &Arc<Self>, claim: Claim, slot: OwnedSemaphorePermit) {
        let this = Arc::clone(self);
        self.under_way.spawn(async move {
            let key = (claim.work.tenant.clone(), claim.work.key.clone());
            let observes = claim.work.stage == Stage::Observe;
            if observes {
                this.observed().insert(key.clone(), false);
            }
            let next = this.work(&claim).await;
            drop(slot);
            if observes && this.observed().remove(&key) == Some(true) {
                let again = Arc::clone(&this);
                this.under_way.spawn(async move { again.observe(key).await });
            }
            this.hand_over(next).await;
        });
    }

    fn observed(&self) -> std::sync::MutexGuard<'_, HashMap<(Tenant, WorkKey), bool>> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on a claim while keeping its lease. When the lease is lost or the drain is over, the
    /// work is dropped where it stands: whoever has the claim next does it again. A dispatch whose
    /// lease is lost comes to its end, which is near and refused, to undo what it has done.
    async fn work(&self, claim: &Claim) -> Vec<Claim> {
        let stage = claim.work.stage;
        tokio::select! {
            biased;
            handled = stage::handle(&self.core, claim) => handled.next,
            () = lost_lease(&self.core, claim) => {
                self.core.metrics.handled(stage, "lease_lost", SignedDuration::ZERO);
                tracing::warn!(%stage, work = claim.lease.id, "a lease was lost");
                Vec::new()
            }
            () = self.abort.cancelled() => {
                stage::give_back_broken_off(&self.core, claim).await;
                Vec::new()
            }
        }
    }

    /// Starts what a stage made due, where there is a free place; the queue has the rest.
    async fn hand_over(self: &Arc<Self>, claims: Vec<Claim>) {
        for claim in claims {
            match self.slots(claim.work.stage).try_acquire_owned() {
                Ok(slot) if !self.stop.is_cancelled() => self.start(claim, slot),
                _ => stage::give_back_untouched(&self.core, &claim).await,
            }
        }
    }

    /// Reads a sink's changes until the engine stops.
    async fn follow_changes(self: Arc<Self>, name: SinkName, sink: Arc<dyn RunSink>) {
        while !self.stop.is_cancelled() {
            let Some(mut changes) = sink.changes() else { return };
            loop {
                let change = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    change = changes.next() => change,
                };
                let Some(ChangedRun { tenant, key }) = change else { break };
                self.observe((tenant, WorkKey::run(key))).await;
            }
            tracing::debug!(sink = %name, "the stream of changes ended and is opened again");
            self.pause_until(backoff::after(self.core.clock.now(), PAUSE)).await;
        }
    }

    /// Looks at a run at once. A change that is told while the run is being looked at makes it be
    /// looked at once more.
    async fn observe(self: &Arc<Self>, key: (Tenant, WorkKey)) {
        if let Some(told) = self.observed().get_mut(&key) {
            *told = true;
            return;
        }
        let Some(slot) = self.slot(Stage::Observe).await else { return };
        let request = ClaimRequest::of(Stage::Observe, 1)
            .leased_for(self.core.options.lease)
            .only(key.0, key.1);
        match self.core.store.claim(request).await {
            Ok(claimed) => {
                if let Some(claim) = claimed.claims.into_iter().next() {
                    self.start(claim, slot);
                }
            }
            // The change was a hint; the run is looked at when it is due.
            Err(error) => tracing::debug!(%error, "a change could not be followed"),
        }
    }
}

async fn sleep_until(core: &Core, instant: Option<Timestamp>) {
    match instant {
        Some(instant) => core.clock.sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Returns when the work on a claim is to be dropped because its lease was lost.
async fn lost_lease(core: &Core, claim: &Claim) {
    keep_lease(core, claim).await;
    if claim.work.stage == Stage::Dispatch {
        std::future::pending::<()>().await;
    }
}

/// Extends a claim's lease whenever half of it has passed. Returns when it was lost.
async fn keep_lease(core: &Core, claim: &Claim) {
    let lease = core.options.lease;
    loop {
        core.clock.sleep_until(backoff::after(core.clock.now(), lease / 2)).await;
        match core.store.extend(&claim.lease, lease).await {
            Err(error) if error.kind() == crate::ErrorKind::Conflict => return,
            Err(error) => tracing::debug!(%error, "a lease could not be extended"),
            Ok(_) => {}
        }
    }
}

/// Runs a source until the engine stops, again when it failed in passing or panicked, and not again
/// when it says that it can never work.
async fn keep_source(
    core: Arc<Core>,
    source: Arc<dyn EventSource>,
    context: SourceContext,
    stop: CancellationToken,
) {
    const WHOLE: &str = "source";
    let name = source.name();
    let mut failures = 0;
    while !stop.is_cancelled() {
        let running = source.run(context.clone(), stop.child_token());
        let error = match AssertUnwindSafe(running).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::transient("run a source", "the source panicked"),
        };
        failures += 1;
        let now = core.clock.now();
        if !error.kind().is_retryable() {
            tracing::error!(source = %name, %error, "a source cannot work; the engine runs on");
            core.health.failed(&name, WHOLE, &error, Timestamp::MAX);
            return;
        }
        let next = backoff::next_try(&error, failures, name.as_str(), now);
        tracing::warn!(source = %name, %error, %next, "a source failed and is started again");
        core.health.failed(&name, WHOLE, &error, next);
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep_until(next) => (),
        }
    }
}
