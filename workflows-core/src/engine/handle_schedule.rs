//! What a program does with schedules.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    handle::EngineHandle,
    schedule::{self, ScheduleBook},
};
use crate::{Error, Event, Result, Tenant, WorkflowId};

/// When a schedule fires next, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ScheduleStatus {
    /// The tenant.
    pub tenant: Tenant,
    /// The workflow.
    pub workflow: WorkflowId,
    /// The trigger in it.
    pub trigger: Arc<str>,
    /// The next slot; `None` when there is none any more.
    pub next: Option<Timestamp>,
    /// Slots up to here have been seen to; `None` when it has not begun.
    pub seen_to: Option<Timestamp>,
    /// A slot that waits for its repository to answer.
    pub pending: Option<Timestamp>,
}

impl EngineHandle {
    /// The schedules of the workflows that are used now, with their next slots.
    ///
    /// # Errors
    ///
    /// `Transient` when the ledger cannot be read.
    pub async fn schedules(&self) -> Result<Vec<ScheduleStatus>> {
        let mut statuses = Vec::new();
        for scheduled in self.core.definitions.schedules() {
            let (next, position) = schedule::outlook(&self.core, &scheduled).await?;
            statuses.push(ScheduleStatus {
                tenant: scheduled.tenant,
                workflow: scheduled.workflow,
                trigger: scheduled.trigger,
                next,
                seen_to: position.as_ref().map(|position| position.after),
                pending: position.and_then(|position| position.pending),
            });
        }
        Ok(statuses)
    }

    /// Runs a schedule now, with the parameters of its slots: the commit is found as for a slot of
    /// this instant, whether it changed or not. `key` is the caller's idempotency key, `by` says
    /// who. Returns the event when it is stored.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such schedule or no such commit, and what the repository and the
    /// ledger fail with.
    pub async fn run_now(
        &self,
        tenant: &Tenant,
        workflow: &WorkflowId,
        trigger: &str,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let schedules = self.core.definitions.schedules();
        let scheduled = schedules.iter().find(|one| {
            one.tenant == *tenant && one.workflow == *workflow && *one.trigger == *trigger
        });
        let Some(scheduled) = scheduled else {
            return Err(Error::not_found(
                "run a schedule now",
                "no workflow that is used now has a schedule trigger of that name",
            )
            .with("workflow", workflow)
            .with("trigger", trigger));
        };
        self.admit(schedule::run_now(&self.core, scheduled, key, by).await?).await
    }
}
