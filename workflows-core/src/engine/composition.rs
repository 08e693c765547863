//! The engine itself: [`Engine`].

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    builder::EngineBuilder,
    core::Core,
    handle::EngineHandle,
    retention::{self, Rules},
    run_loop,
    schedule::ScheduleSource,
    stage,
    watched::{self, Watched},
};
use crate::{
    EventSource, Publisher, Result,
    source::{Interests, SourceContext},
    store::{ClaimRequest, Pruned, Stage},
};

/// The composition of all parts: what takes events in at one end and drives runs, statuses and
/// notifications at the other.
///
/// [`run`](Self::run) keeps it going. It can also be stepped: [`step`](Self::step) does the work of
/// one stage that is due now, one piece after the other, and returns. Everything that is under way
/// is in the ledger: an engine that is killed anywhere goes on where it was when it is started again,
/// and several engines may share one ledger that allows it.
#[derive(Debug, Clone)]
pub struct Engine {
    core: Arc<Core>,
    sources: Vec<Arc<dyn EventSource>>,
    interests: watch::Receiver<Arc<Interests>>,
    repositories: Vec<Watched>,
    leads: watch::Receiver<bool>,
}

impl Engine {
    /// Puts an engine together.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    pub(crate) fn new(
        core: Arc<Core>,
        sources: Vec<Arc<dyn EventSource>>,
        interests: watch::Receiver<Arc<Interests>>,
        repositories: Vec<Watched>,
        leads: watch::Receiver<bool>,
    ) -> Self {
        Self { core, sources, interests, repositories, leads }
    }

    /// What a program does with the engine while it runs.
    pub fn handle(&self) -> EngineHandle {
        EngineHandle::new(Arc::clone(&self.core))
    }

    /// Runs the event sources and all stages until `shutdown` is cancelled. Then no more work is
    /// taken, what is under way has [`EngineOptions::drain`](super::EngineOptions::drain) to come
    /// to its end, and the rest is given back to the ledger.
    ///
    /// Nothing that fails or panics in a source, a stage, or what they call ends the engine; it shows
    /// in [`EngineHandle::health`] and is tried again.
    pub async fn run(&self, shutdown: CancellationToken) {
        let book = Arc::clone(&self.core.definitions);
        let schedules: Arc<dyn EventSource> =
            Arc::new(ScheduleSource::new(Arc::clone(&self.core), book, self.leads.clone()));
        let sources = self.sources.iter().chain([&schedules]).map(|source| {
            let context = SourceContext::new(
                source.name(),
                Publisher::new(Arc::clone(&self.core.store)),
                self.interests.clone(),
                self.core.connections.clone(),
                Arc::clone(&self.core.secrets),
                Arc::clone(&self.core.clock),
                self.core.health.clone(),
            );
            (Arc::clone(source), context)
        });
        let repositories =
            watched::read(Arc::clone(&self.core), self.repositories.clone(), shutdown.clone());
        let stages = run_loop::run(Arc::clone(&self.core), sources.collect(), shutdown);
        tokio::join!(stages, repositories);
    }

    /// Does the work of a stage that is due now, one piece after the other, and returns how many
    /// pieces came to something that was committed. A piece that failed is given back, as in
    /// [`run`](Self::run), and is not counted.
    ///
    /// # Errors
    ///
    /// What [`Store::claim`](crate::Store::claim) returns.
    pub async fn step(&self, stage: Stage) -> Result<usize> {
        let mut committed = 0;
        let limit = u32::try_from(self.core.options.concurrency).unwrap_or(u32::MAX);
        let request = ClaimRequest::of(stage, limit).leased_for(self.core.options.lease);
        let claims = self.core.store.claim(request).await?.claims;
        for claim in claims {
            let handled = stage::handle(&self.core, &claim).await;
            for next in &handled.next {
                stage::give_back_untouched(&self.core, next).await;
            }
            committed += usize::from(handled.committed);
        }
        Ok(committed)
    }

    /// Steps all stages until none has work that is due and comes to something. Returns how many
    /// pieces did.
    ///
    /// Work that waits for an instant waits on: with a [`ManualClock`](crate::ManualClock), move the
    /// clock and call this again. A run that was created is looked at again after
    /// [`EngineOptions::observe_interval`](super::EngineOptions::observe_interval), for nobody
    /// listens to the changes of sinks here.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub async fn run_until_idle(&self) -> Result<usize> {
        let mut committed = 0;
        loop {
            let mut progress = 0;
            for stage in Stage::ALL {
                progress += self.step(stage).await?;
            }
            if progress == 0 {
                return Ok(committed);
            }
            committed += progress;
        }
    }

    /// Removes what is not kept any longer, as [`run`](Self::run) does every
    /// [`EngineOptions::prune_interval`](super::EngineOptions::prune_interval).
    ///
    /// # Errors
    ///
    /// `Transient` when the ledger cannot be read or written now.
    pub async fn prune(&self) -> Result<Pruned> {
        retention::prune(&self.core, &mut Rules::default()).await
    }
}
