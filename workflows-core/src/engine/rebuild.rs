//! A ledger that is new, or was lost, is rebuilt from the runs that sinks have.
//!
//! It happens once for a ledger, before sources are heard: a run that is under way is known again by
//! what its PipelineRun carries, its status comes to its end, and what comes next finds it in its
//! concurrency groups.

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::{backoff, command::Command, core::Core, run_identity, stage};
use crate::{
    ErrorKind, Result, Run, SinkName, Tenant,
    sink::ExistingRun,
    store::{ClaimRequest, CursorMove, Stage},
};

/// The cursor that says that it was done.
const DONE: &str = "engine/rebuilt";
/// How long to wait before it is tried again.
const PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Rebuilds the ledger where that was not done yet, again and again until it is or the engine stops.
pub(super) async fn rebuild(core: &Core, stop: &CancellationToken) {
    while let Err(error) = once(core).await {
        tracing::warn!(%error, "the ledger is not rebuilt from the sinks' runs yet");
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep_until(backoff::after(core.clock.now(), PAUSE)) => (),
        }
    }
}

async fn once(core: &Core) -> Result<()> {
    let tenant = Tenant::default();
    if core.store.cursor(&tenant, DONE).await?.is_some() {
        return Ok(());
    }
    let mut told = 0_usize;
    for (name, sink) in &core.sinks {
        let mut existing = sink.existing();
        while let Some(run) = existing.try_next().await? {
            told += usize::from(tell(core, name, run).await?);
        }
    }
    if told > 0 {
        while decide(core).await? {}
    }
    let done = CursorMove { tenant, name: DONE.to_owned(), from: None, to: told.to_string() };
    match core.store.admit(Vec::new(), Some(done)).await {
        // Another process has done it, too.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
        other => other.map(drop),
    }
}

/// Tells the ledger of a run that it does not know.
async fn tell(core: &Core, sink: &SinkName, existing: ExistingRun) -> Result<bool> {
    let handle = existing.handle.clone();
    let Some(run) = run_identity::read(sink, existing, core.clock.now()) else {
        tracing::debug!(%handle, "it does not tell whose run it is");
        return Ok(false);
    };
    if core.store.run(&run.tenant, &run.key).await?.is_some() {
        return Ok(false);
    }
    let Run { tenant, repo, key, .. } = run.clone();
    let command = Command::Adopt { run: Box::new(run) };
    let observation = command.observed(tenant, repo, key.as_str(), Command::SOURCE);
    match core.store.admit(vec![observation], None).await {
        Err(error) if error.kind() == ErrorKind::Invalid => {
            tracing::warn!(%error, run = %key, "a run cannot be taken up");
            Ok(false)
        }
        admitted => admitted.map(|_| true),
    }
}

/// Decides what was told, as far as it is due. Returns whether there was something.
async fn decide(core: &Core) -> Result<bool> {
    let limit = u32::try_from(core.options.concurrency).unwrap_or(u32::MAX);
    let request = ClaimRequest::of(Stage::Match, limit).leased_for(core.options.lease);
    let claims = core.store.claim(request).await?.claims;
    for claim in &claims {
        for next in stage::handle(core, claim).await.next {
            stage::give_back_untouched(core, &next).await;
        }
    }
    Ok(!claims.is_empty())
}
