//! Removing what is not kept any longer.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{backoff, core::Core};
use crate::{
    Error, ErrorKind, Result, Tenant, WorkflowId,
    store::{CursorMove, PageRequest, Prune, Pruned, RunQuery, RunsToKeep},
    workflow::Retention,
};

/// Looks after retention every [`prune_interval`](super::EngineOptions::prune_interval) until the
/// engine stops. A failure is tried again at the next time.
pub(crate) async fn keep(core: Arc<Core>, stop: CancellationToken) {
    let mut rules = Rules::default();
    loop {
        let next = backoff::after(core.clock.now(), core.options.prune_interval);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = core.clock.sleep_until(next) => (),
        }
        if let Ok(backlogs) = core.store.backlog().await {
            backlogs.iter().for_each(|backlog| core.metrics.backlog(backlog));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            pruned = prune(&core, &mut rules) => match pruned {
                Ok(pruned) => {
                    core.metrics.pruned(&pruned);
                    tracing::debug!(
                        payloads = pruned.payloads,
                        events = pruned.events,
                        runs = pruned.runs,
                        "retention was looked after"
                    );
                }
                Err(error) => tracing::warn!(%error, "retention could not be looked after"),
            },
        }
    }
}

/// The cursor that keeps a tenant's rules, so that a start does not read its archive.
const CURSOR: &str = "retention";
/// A run may be committed so long after it was planned.
const LATE: SignedDuration = SignedDuration::from_hours(1);

/// What workflows say about the retention of their runs, as their newest run has it.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    of: BTreeMap<Tenant, Kept>,
}

/// What is known of a tenant, and the cursor's text that says so.
#[derive(Debug, Default)]
struct Kept {
    rules: TenantRules,
    text: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TenantRules {
    /// When the newest run was planned that was read.
    newest: Option<Timestamp>,
    workflows: Vec<(WorkflowId, Retention)>,
}

impl Rules {
    /// Reads the runs that were planned since this was last called by any engine on the ledger; the
    /// first time of all, every run.
    async fn read(&mut self, core: &Core) -> Result<()> {
        for tenant in core.tenants() {
            let kept = match self.of.remove(&tenant) {
                Some(kept) => kept,
                None => Kept::load(core, &tenant).await?,
            };
            let kept = kept.read(core, &tenant).await?;
            self.of.insert(tenant, kept);
        }
        Ok(())
    }

    fn runs_to_keep(&self, now: Timestamp) -> Vec<RunsToKeep> {
        let age = |retention: &Retention| {
            let age = retention.age.as_deref()?;
            let age = crate::workflow::parse_duration(age).ok()?;
            Some(backoff::before(now, age))
        };
        let of = self.of.iter();
        of.flat_map(|(tenant, kept)| {
            kept.rules.workflows.iter().map(|(workflow, retention)| RunsToKeep {
                tenant: tenant.clone(),
                workflow: workflow.clone(),
                runs: retention.runs,
                ended_since: age(retention),
            })
        })
        .collect()
    }
}

impl Kept {
    async fn load(core: &Core, tenant: &Tenant) -> Result<Self> {
        let text = core.store.cursor(tenant, CURSOR).await?;
        let rules = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Ok(Self { rules: rules.unwrap_or_default(), text })
    }

    async fn read(mut self, core: &Core, tenant: &Tenant) -> Result<Self> {
        let known = std::mem::take(&mut self.rules);
        let since = known.newest.map(|newest| backoff::before(newest, LATE));
        let mut query =
            RunQuery::of(tenant.clone()).since(since).page(PageRequest { limit: 500, after: None });
        let mut newest = known.newest;
        let mut said: BTreeMap<WorkflowId, Option<Retention>> = BTreeMap::new();
        loop {
            let page = core.store.runs(query.clone()).await?;
            for run in page.items {
                newest = newest.max(Some(run.created_at));
                said.entry(run.workflow).or_insert(run.retention);
            }
            let Some(next) = page.next else { break };
            query.page.after = Some(next);
        }
        for (workflow, retention) in known.workflows {
            said.entry(workflow).or_insert(Some(retention));
        }
        let workflows = said.into_iter().filter_map(|(workflow, said)| Some((workflow, said?)));
        self.rules = TenantRules { newest, workflows: workflows.collect() };
        self.keep(core, tenant).await?;
        Ok(self)
    }

    /// Puts the rules into the ledger. Where another engine was faster, its are as good.
    async fn keep(&mut self, core: &Core, tenant: &Tenant) -> Result<()> {
        let to = serde_json::to_string(&self.rules).map_err(|error| {
            Error::invalid("keep what workflows say about retention", error.to_string())
        })?;
        if self.text.as_ref() == Some(&to) || self.rules.newest.is_none() {
            return Ok(());
        }
        let (tenant, from) = (tenant.clone(), self.text.take());
        let moved =
            CursorMove { tenant: tenant.clone(), name: CURSOR.into(), from, to: to.clone() };
        self.text = match core.store.admit(Vec::new(), Some(moved)).await {
            Ok(_) => Some(to),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                core.store.cursor(&tenant, CURSOR).await?
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }
}

/// Removes everything that is not kept any longer. What a workflow says narrows what the platform
/// keeps, and cannot widen it.
pub(crate) async fn prune(core: &Core, rules: &mut Rules) -> Result<Pruned> {
    rules.read(core).await?;
    let now = core.clock.now();
    let options = &core.options;
    let mut prune = Prune::before(backoff::before(now, options.keep_events));
    prune.payloads_before = backoff::before(now, options.keep_payloads);
    prune.runs_before = backoff::before(now, options.keep_runs);
    prune.runs_per_workflow = rules.runs_to_keep(now);
    let mut whole = Pruned::default();
    loop {
        let pruned = core.store.prune(prune.clone()).await?;
        whole.payloads += pruned.payloads;
        whole.events += pruned.events;
        whole.runs += pruned.runs;
        if !pruned.more {
            return Ok(whole);
        }
    }
}
