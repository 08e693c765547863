//! Holding a workflow: its runs wait until it is released.
//!
//! A hold is a cursor of the ledger. It counts the runs that came to wait for it, so that a release
//! that was decided before a further run began to wait is refused and decided again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Result, RunState, Store, Tenant, WorkflowId,
    store::{CursorMove, Effects, NewWork, PageRequest, RunQuery, Stage, WorkKey},
};

/// That a workflow is held: its runs are planned, and wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Who holds it.
    pub by: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// How many runs have come to wait for it.
    #[serde(default)]
    pub waiting: u64,
}

/// What the ledger says about the hold of a workflow.
#[derive(Debug)]
pub(crate) struct HoldRecord {
    tenant: Tenant,
    cursor: String,
    recorded: Option<String>,
    hold: Option<Hold>,
}

impl HoldRecord {
    /// Reads whether a workflow is held.
    pub(crate) async fn read(
        store: &dyn Store,
        tenant: &Tenant,
        workflow: &WorkflowId,
    ) -> Result<Self> {
        let cursor = format!("hold/{workflow}");
        let recorded = store.cursor(tenant, &cursor).await?;
        // A released hold leaves an empty cursor.
        let hold = match recorded.as_deref() {
            None | Some("") => None,
            Some(text) => Some(serde_json::from_str(text).map_err(|error| {
                crate::Error::invalid("read a hold", error.to_string()).with("cursor", &cursor)
            })?),
        };
        Ok(Self { tenant: tenant.clone(), cursor, recorded, hold })
    }

    /// The hold, when there is one.
    pub(crate) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Records that a further run waits; refused when the hold changed since it was read.
    pub(crate) fn one_more_waits(&self) -> Option<CursorMove> {
        let hold = self.hold.as_ref()?;
        Some(self.to(Some(&Hold { waiting: hold.waiting.saturating_add(1), ..hold.clone() })))
    }

    fn to(&self, hold: Option<&Hold>) -> CursorMove {
        // A hold is plain text and numbers, which always have a JSON form.
        let to = hold.and_then(|hold| serde_json::to_string(hold).ok()).unwrap_or_default();
        CursorMove {
            tenant: self.tenant.clone(),
            name: self.cursor.clone(),
            from: self.recorded.clone(),
            to,
        }
    }
}

/// Whether a workflow is held.
pub(crate) async fn is_held(
    store: &dyn Store,
    tenant: &Tenant,
    workflow: &WorkflowId,
) -> Result<bool> {
    Ok(HoldRecord::read(store, tenant, workflow).await?.hold().is_some())
}

/// What holds a workflow. One that is held already gets the new reason.
pub(crate) async fn hold(
    store: &dyn Store,
    tenant: &Tenant,
    workflow: &WorkflowId,
    by: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Effects> {
    let record = HoldRecord::read(store, tenant, workflow).await?;
    let waiting = record.hold().map_or(0, |hold| hold.waiting);
    let hold = Hold { by: by.to_owned(), reason: reason.to_owned(), since: now, waiting };
    Ok(Effects { cursors: vec![record.to(Some(&hold))], ..Effects::default() })
}

/// What releases a workflow: its waiting runs are decided again. Nothing, when it is not held.
pub(crate) async fn unhold(
    store: &dyn Store,
    tenant: &Tenant,
    workflow: &WorkflowId,
) -> Result<Effects> {
    let record = HoldRecord::read(store, tenant, workflow).await?;
    let mut effects = Effects::default();
    if record.hold().is_none() {
        return Ok(effects);
    }
    effects.cursors.push(record.to(None));
    let mut page = PageRequest { limit: 1_000, after: None };
    loop {
        let query = RunQuery::of(tenant.clone())
            .workflow(Some(workflow.clone()))
            .states(vec![RunState::Planned, RunState::Queued])
            .page(page);
        let found = store.runs(query).await?;
        effects.work.extend(
            found
                .items
                .into_iter()
                .map(|run| NewWork::now(tenant.clone(), Stage::Schedule, WorkKey::run(run.key))),
        );
        match found.next {
            Some(next) => page.after = Some(next),
            None => return Ok(effects),
        }
    }
}
