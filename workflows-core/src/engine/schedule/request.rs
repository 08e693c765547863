//! Running a schedule now, because somebody asks for it.

use jiff::Timestamp;

use super::{
    calendar::Calendar,
    slot::Slot,
    source::{Position, Scheduled, observe},
};
use crate::{Observation, Result, engine::core::Core};

/// Makes the observation of a slot that somebody asks for: the commit is found as it would be for
/// a slot of this instant, whether it changed or not. `key` is the caller's idempotency key.
///
/// # Errors
///
/// `NotFound` when there is no such commit, and what the repository fails with.
pub(crate) async fn run_now(
    core: &Core,
    scheduled: &Scheduled,
    key: &str,
    by: &str,
) -> Result<Observation> {
    let slot = Slot {
        workflow: scheduled.workflow.clone(),
        trigger: scheduled.trigger.clone(),
        slot: core.clock.now(),
        run_now: true,
        skipped_since: None,
        approximate: false,
        rejected: None,
    };
    let observation = observe(core, scheduled, slot, Some(key)).await?;
    Ok(observation.by(by))
}

/// When a schedule fires next, and its position.
pub(crate) async fn outlook(
    core: &Core,
    scheduled: &Scheduled,
) -> Result<(Option<Timestamp>, Option<Position>)> {
    let recorded = core.store.cursor(&scheduled.tenant, &scheduled.cursor()).await?;
    let position = recorded.as_deref().and_then(Position::read);
    let next = Calendar::of(&scheduled.schedule)?.next_after(core.clock.now());
    Ok((next, position))
}
