//! Running again: an event's triggers, or the latest runs of a commit.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Given, done};
use crate::{
    CommitId, Event, EventKey, EventKind, Result, Run, RunState,
    engine::matcher::{AttemptRequest, Selected},
    event::PullRequest,
    store::{
        CommandOutcome, DecisionQuery, Effects, EventQuery, NewWork, Outcome, PageRequest,
        RunQuery, Stage, WorkKey,
    },
};

/// Which of the latest runs are run again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Latest {
    /// Those that ended.
    Ended,
    /// Those that ended otherwise than well.
    Unsuccessful,
}

impl Latest {
    fn has(self, state: RunState) -> bool {
        match self {
            Self::Ended => true,
            Self::Unsuccessful => state != RunState::Succeeded,
        }
    }
}

impl fmt::Display for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => Ok(()),
            Self::Unsuccessful => f.write_str(" that did not succeed"),
        }
    }
}

impl Given<'_> {
    pub(super) async fn test(
        &self,
        pull_request: &PullRequest,
        workflow: Option<&str>,
        effects: &mut Effects,
    ) -> Result<CommandOutcome> {
        const STARTS: [&str; 5] = ["opened", "updated", "reopened", "retargeted", "ready"];
        let head = &pull_request.head.sha;
        let events = self.events_at(pull_request.number, head).await?;
        let mut of_it = events.iter().filter(|event| event.kind == EventKind::PULL_REQUEST);
        let starting =
            of_it.clone().find(|event| STARTS.iter().any(|action| event.has_action(action)));
        let Some(event) = starting.or_else(|| of_it.next()) else {
            return Ok(CommandOutcome::Failed {
                error: format!(
                    "no event of pull request {} at {head} is in the ledger",
                    pull_request.number
                ),
            });
        };
        let only = workflow.map(|name| vec![Selected { workflow: name.into(), trigger: None }]);
        self.again(&event.key, only, effects);
        Ok(done(match workflow {
            Some(name) => format!("{name} is tested at {head}"),
            None => format!("everything is tested at {head}"),
        }))
    }

    /// Which runs there are for a commit, and which events led to it.
    pub(super) async fn of_commit(&self, commit: &CommitId) -> Result<(RunQuery, Vec<Event>)> {
        let repo = Some(self.event.repo.id.clone());
        let tenant = &self.event.tenant;
        let runs = RunQuery::of(tenant.clone()).repo(repo.clone()).commit(Some(commit.clone()));
        let about = EventQuery::of(tenant.clone()).repo(repo).commit(Some(commit.clone()));
        Ok((runs, self.events(about).await?))
    }

    /// Runs again, of each trigger of a workflow, the latest run that a query finds when it is one
    /// of those asked for, and what could not be planned for one of the events.
    pub(super) async fn retest(
        &self,
        which: Latest,
        query: RunQuery,
        events: &[Event],
        workflow: Option<&str>,
        effects: &mut Effects,
    ) -> Result<CommandOutcome> {
        let wanted = |name: &str| workflow.is_none_or(|wanted| wanted == name);
        let mut latest: BTreeMap<(Arc<str>, Arc<str>), Run> = BTreeMap::new();
        for run in self.runs(query).await? {
            let key = (Arc::clone(&run.workflow.name), Arc::clone(&run.trigger));
            let newer = latest.get(&key).is_none_or(|known| known.order < run.order);
            if wanted(&run.workflow.name) && newer {
                latest.insert(key, run);
            }
        }
        let mut again: BTreeMap<EventKey, Vec<Selected>> = BTreeMap::new();
        for ((workflow, trigger), run) in &latest {
            if run.state.is_terminal() && which.has(run.state) {
                let selected =
                    Selected { workflow: Arc::clone(workflow), trigger: Some(Arc::clone(trigger)) };
                again.entry(run.event.clone()).or_default().push(selected);
            }
        }
        for event in events {
            for (workflow, trigger) in self.failed_to_plan(&event.key).await? {
                let key = (Arc::clone(&workflow), Arc::clone(&trigger));
                if wanted(&workflow) && !latest.contains_key(&key) {
                    let selected = Selected { workflow, trigger: Some(trigger) };
                    let of_event = again.entry(event.key.clone()).or_default();
                    if !of_event.contains(&selected) {
                        of_event.push(selected);
                    }
                }
            }
        }
        if again.is_empty() {
            return Ok(CommandOutcome::Failed {
                error: match workflow {
                    Some(name) => format!("no ended run of {name}{which} is known"),
                    None => format!("no ended run{which} is known"),
                },
            });
        }
        let mut names: Vec<String> = again
            .values()
            .flatten()
            .map(|one| format!("{}/{}", one.workflow, one.trigger.as_deref().unwrap_or("*")))
            .collect();
        names.sort();
        names.dedup();
        for (event, only) in again {
            self.again(&event, Some(only), effects);
        }
        Ok(done(format!("tested again: {}", names.join(", "))))
    }

    /// What could not be evaluated or planned in the last decisions about an event.
    async fn failed_to_plan(&self, event: &EventKey) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        let query = DecisionQuery::of(self.event.tenant.clone())
            .event(Some(event.clone()))
            .page(PageRequest { limit: 1, after: None });
        let batches = self.core.store.decisions(query).await?.items;
        let decisions = batches.into_iter().flat_map(|batch| batch.decisions);
        Ok(decisions
            .filter(|one| matches!(one.outcome, Outcome::Failed { .. }))
            .map(|one| (one.workflow.name, one.trigger))
            .collect())
    }

    pub(super) fn run_again(&self, run: &Run, effects: &mut Effects) -> CommandOutcome {
        let only = vec![Selected {
            workflow: Arc::clone(&run.workflow.name),
            trigger: Some(Arc::clone(&run.trigger)),
        }];
        self.again(&run.event, Some(only), effects);
        done(format!("run {} runs again", run.name))
    }

    /// Has an event decided in another attempt, whose id is this command's.
    pub(super) fn again(
        &self,
        event: &EventKey,
        only: Option<Vec<Selected>>,
        effects: &mut Effects,
    ) {
        let request =
            AttemptRequest { order: self.event.sequence, by: Some(Arc::clone(&self.by)), only };
        let key = WorkKey::Event { event: event.clone(), attempt: self.attempt.clone() };
        let work = NewWork::now(self.event.tenant.clone(), Stage::Match, key);
        effects.work.push(work.with_detail(request.detail()));
    }
}
