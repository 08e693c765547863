//! How long runs usually take.

use jiff::SignedDuration;

use super::core::Core;
use crate::{
    Result, Run, RunState,
    store::{PageRequest, RunQuery},
};

/// So many successes are looked at, the newest.
const LOOKED_AT: u32 = 10;
/// Of fewer nothing can be said.
const AT_LEAST: usize = 3;
/// How much longer than twice the usual time a run must run, so that a second more of a run of one
/// second is not told.
const BEYOND: SignedDuration = SignedDuration::from_mins(1);

/// How long a run of this workflow and trigger usually takes, when this one runs for more than
/// twice as long, and for a minute more.
pub(crate) async fn exceeded(core: &Core, run: &Run) -> Result<Option<SignedDuration>> {
    let Some(started_at) = run.started_at else { return Ok(None) };
    let running = core.clock.now().duration_since(started_at);
    if running <= BEYOND {
        return Ok(None);
    }
    let query = RunQuery::of(run.tenant.clone())
        .repo(Some(run.repo.id.clone()))
        .workflow(Some(run.workflow.clone()))
        .trigger(Some(run.trigger.to_string()))
        .states(vec![RunState::Succeeded])
        .page(PageRequest { limit: LOOKED_AT, after: None });
    let mut took: Vec<SignedDuration> = core
        .store
        .runs(query)
        .await?
        .items
        .iter()
        .filter_map(|one| Some(one.finished_at?.duration_since(one.started_at?)))
        .collect();
    took.sort_unstable();
    let usual = took.get(took.len() / 2).copied().filter(|_| took.len() >= AT_LEAST);
    Ok(usual.filter(|usual| running > *usual * 2 + BEYOND))
}
