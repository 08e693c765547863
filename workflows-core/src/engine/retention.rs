//! Removing what is not kept any longer.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{backoff, core::Core};
use crate::{
    Result, Tenant, WorkflowId,
    store::{PageRequest, Prune, Pruned, RunQuery, RunsToKeep},
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

/// What workflows say about the retention of their runs, as their newest run has it.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    known: BTreeMap<(Tenant, WorkflowId), Retention>,
    /// Runs planned before this have been read.
    read_until: Option<Timestamp>,
}

impl Rules {
    /// Reads the runs that were planned since this was last called; the first time, all.
    async fn read(&mut self, core: &Core) -> Result<()> {
        let now = core.clock.now();
        for tenant in core.tenants() {
            let mut newest: BTreeMap<WorkflowId, Option<Retention>> = BTreeMap::new();
            let mut query = RunQuery::of(tenant.clone())
                .since(self.read_until)
                .page(PageRequest { limit: 500, after: None });
            loop {
                let page = core.store.runs(query.clone()).await?;
                for run in page.items {
                    newest.entry(run.workflow).or_insert(run.retention);
                }
                let Some(next) = page.next else { break };
                query.page.after = Some(next);
            }
            for (workflow, retention) in newest {
                let key = (tenant.clone(), workflow);
                match retention {
                    Some(retention) => self.known.insert(key, retention),
                    None => self.known.remove(&key),
                };
            }
        }
        self.read_until = Some(now);
        Ok(())
    }

    fn runs_to_keep(&self, now: Timestamp) -> Vec<RunsToKeep> {
        let age = |retention: &Retention| {
            let age = retention.age.as_deref()?;
            let age = crate::workflow::parse_duration(age).ok()?;
            Some(backoff::before(now, age))
        };
        self.known
            .iter()
            .map(|((tenant, workflow), retention)| RunsToKeep {
                tenant: tenant.clone(),
                workflow: workflow.clone(),
                runs: retention.runs,
                ended_since: age(retention),
            })
            .collect()
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
