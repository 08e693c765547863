//! Why something ran or did not: everything that the ledger has about an event or a commit, together.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::core::Core;
use crate::{
    AttemptId, CommitId, Error, Event, EventKey, RepoId, Result, Run, RunKey, RunState, Tenant,
    matching::expand_described,
    store::{
        CommandDecision, CommandOutcome, Decision, DecisionQuery, DeliveryQuery, EventQuery,
        ObservationQuery, OutboxNotification, Outcome, PageRequest, RecordedObservation, RunQuery,
        StatusQuery, StatusRecord, StatusSubject,
    },
};

/// Everything that the ledger has about some events: how each was heard of, what every trigger said
/// to it and why, which runs came of it, and what was shown and told of them.
///
/// It has a JSON form for programs, and reads as a text for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What is explained, in words.
    pub about: String,
    /// The events, in the order in which they were taken in.
    pub events: Vec<ExplainedEvent>,
    /// What the commits of the events show.
    pub statuses: Vec<StatusRecord>,
}

/// What the ledger has about one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedEvent {
    /// The event.
    pub event: Event,
    /// What brought it, and what repeated it, oldest first; of the latest thousand observations of
    /// its repository.
    pub observations: Vec<RecordedObservation>,
    /// What was decided about it, oldest first.
    pub decided: Vec<Decided>,
    /// The runs that it caused, oldest first.
    pub runs: Vec<ExplainedRun>,
}

/// What was decided about an event at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// The attempt; empty for the first.
    pub attempt: AttemptId,
    /// When.
    pub at: jiff::Timestamp,
    /// What each trigger said, those that an index ruled out together among them.
    pub decisions: Vec<Decision>,
    /// What came of commands.
    pub commands: Vec<CommandDecision>,
    /// The definitions and the policy that were used, and other remarks.
    pub judged_by: std::collections::BTreeMap<String, String>,
}

/// What the ledger has about one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedRun {
    /// The run.
    pub run: Run,
    /// What was told of it, oldest first.
    pub notifications: Vec<OutboxNotification>,
}

/// The most that is read of anything for one explanation.
const MOST: u32 = 1_000;

fn page() -> PageRequest {
    PageRequest { limit: MOST, after: None }
}

/// Explains one event.
pub(crate) async fn event(core: &Core, tenant: &Tenant, key: &EventKey) -> Result<Explanation> {
    let Some(event) = core.store.event(tenant, key).await? else {
        return Err(Error::not_found(
            "explain an event",
            "the ledger has no such event (any more)",
        )
        .with("event", key));
    };
    explain(core, tenant, about_event(key), vec![event]).await
}

fn about_event(key: &EventKey) -> String {
    format!("event {key}")
}

/// Explains everything that led to a commit of a repository.
pub(crate) async fn commit(
    core: &Core,
    tenant: &Tenant,
    repo: &RepoId,
    commit: &CommitId,
) -> Result<Explanation> {
    let query = EventQuery::of(tenant.clone())
        .repo(Some(repo.clone()))
        .commit(Some(commit.clone()))
        .page(page());
    let mut events = core.store.events(query).await?.items;
    events.reverse();
    let repo = events.first().map_or(repo.as_str(), |event| &event.repo.name);
    explain(core, tenant, format!("commit {commit} of repository {repo}"), events).await
}

async fn explain(
    core: &Core,
    tenant: &Tenant,
    about: String,
    events: Vec<Event>,
) -> Result<Explanation> {
    let mut explained = Vec::with_capacity(events.len());
    let mut commits: Vec<(RepoId, CommitId)> = Vec::new();
    for event in events {
        if let Some(head) = &event.head {
            let commit = (event.repo.id.clone(), head.sha.clone());
            if !commits.contains(&commit) {
                commits.push(commit);
            }
        }
        explained.push(explain_event(core, event).await?);
    }
    let mut statuses = Vec::new();
    for (repo, commit) in commits {
        let query =
            StatusQuery::of(tenant.clone()).repo(Some(repo)).commit(Some(commit)).page(page());
        statuses.extend(core.store.statuses(query).await?.items);
    }
    Ok(Explanation { about, events: explained, statuses })
}

async fn explain_event(core: &Core, event: Event) -> Result<ExplainedEvent> {
    let tenant = &event.tenant;
    let query = ObservationQuery::of(tenant.clone()).repo(Some(event.repo.id.clone())).page(page());
    let mut observations = core.store.observations(query).await?.items;
    observations.retain(|one| {
        one.event.as_ref() == Some(&event.key)
            || (one.event.is_none()
                && one.subject == event.subject
                && event.key.as_str().contains(&format!("/{}/", one.state)))
    });
    observations.reverse();

    let query = DecisionQuery::of(tenant.clone()).event(Some(event.key.clone())).page(page());
    let mut decided = Vec::new();
    for batch in core.store.decisions(query).await?.items.into_iter().rev() {
        let mut decisions = batch.decisions;
        for guard in &batch.guards {
            if let Some(described) = core.store.trigger_set(tenant, &guard.set).await? {
                let expanded = expand_described(&described, guard);
                decisions.extend(expanded.into_iter().map(|(workflow, trigger, rejected)| {
                    Decision { workflow, trigger, outcome: Outcome::Rejected(rejected) }
                }));
            }
        }
        decided.push(Decided {
            attempt: batch.attempt,
            at: batch.at,
            decisions,
            commands: batch.commands,
            judged_by: batch.judged_by,
        });
    }

    let query = RunQuery::of(tenant.clone()).event(Some(event.key.clone())).page(page());
    let mut runs = Vec::new();
    for run in core.store.runs(query).await?.items.into_iter().rev() {
        let query = DeliveryQuery::of(tenant.clone()).run(Some(run.key.clone())).page(page());
        let mut notifications = core.store.notifications(query).await?.items;
        notifications.reverse();
        runs.push(ExplainedRun { run, notifications });
    }
    Ok(ExplainedEvent { event, observations, decided, runs })
}

impl Explanation {
    /// The run with that key, when it is among those explained.
    pub fn run(&self, key: &RunKey) -> Option<&ExplainedRun> {
        self.events.iter().flat_map(|event| &event.runs).find(|one| one.run.key == *key)
    }

    fn is_of_one_event(&self) -> bool {
        matches!(&*self.events, [one] if self.about == about_event(&one.event.key))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One event says itself which it is.
        if !self.is_of_one_event() {
            writeln!(f, "{}", printable(&self.about))?;
        }
        if self.events.is_empty() {
            writeln!(f, "  The ledger has no event about it.")?;
        }
        self.events.iter().try_for_each(|event| write!(f, "{event}"))?;
        for status in &self.statuses {
            let desire = &status.desire;
            let wanted = match &desire.subject {
                StatusSubject::Run { run } => format!("how run {} stands", run.short()),
                StatusSubject::Note { state, title, .. } => format!("{state:?}: {title}"),
            };
            let shown = match (&status.shown, &status.error) {
                (_, Some(error)) => format!("cannot be shown: {error}"),
                (Some(shown), None) => format!("shows {:?}", shown.state),
                (None, None) => "is not shown yet".to_owned(),
            };
            let line = format!(
                "status {} on {}: {wanted}; {shown}",
                desire.key.context,
                desire.key.commit.short()
            );
            writeln!(f, "{}", printable(&line))?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, observations, decided, runs } = self;
        let by = event.sender.as_deref().map_or_else(String::new, |who| format!(" by {who}"));
        let line = format!(
            "{}\n  {} ({}){by} at {}, taken in at {:.0} from {}",
            about_event(&event.key),
            event.kind,
            event.actions.join(", "),
            event.repo.name,
            event.received_at,
            event.source
        );
        line.lines().try_for_each(|line| writeln!(f, "{}", printable(line)))?;
        for one in observations {
            let what = match &one.duplicate {
                Some(reason) => format!("a duplicate: {reason}"),
                None => "this event".to_owned(),
            };
            let line = format!("heard {:.0} from {}: {what}", one.received_at, one.source);
            writeln!(f, "  {}", printable(&line))?;
        }
        if decided.is_empty() {
            writeln!(f, "  It has not been decided yet.")?;
        }
        decided.iter().try_for_each(|one| write!(f, "{one}"))?;
        for ExplainedRun { run, notifications } in runs {
            writeln!(f, "  {}", printable(&line_of(run)))?;
            for one in notifications {
                let result = one.result.as_deref().unwrap_or("");
                let line = format!(
                    "told {} of {}: {:?} {result}",
                    one.notifier, one.transition, one.state
                );
                writeln!(f, "    {}", printable(line.trim_end()))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = match self.attempt.is_first() {
            true => String::new(),
            false => format!(", attempt {}", self.attempt),
        };
        writeln!(f, "  {}", printable(&format!("decided at {:.0}{attempt}", self.at)))?;
        for (name, value) in &self.judged_by {
            writeln!(f, "    {}", printable(&format!("{name}: {value}")))?;
        }
        for one in &self.commands {
            let by = one.by.as_deref().unwrap_or("nobody known");
            let outcome = match &one.outcome {
                CommandOutcome::Done { effect } => format!("done: {effect}"),
                CommandOutcome::Denied { rule } => format!("denied: {rule}"),
                CommandOutcome::Failed { error } => format!("failed: {error}"),
            };
            writeln!(f, "    {}", printable(&format!("{} by {by}: {outcome}", one.command)))?;
        }
        if self.decisions.is_empty() && self.commands.is_empty() {
            writeln!(f, "    no trigger is for this kind of event at this repository")?;
        }
        for one in &self.decisions {
            let line = format!("{}/{}: {}", one.workflow.name, one.trigger, words(&one.outcome));
            writeln!(f, "    {}", printable(&line))?;
        }
        Ok(())
    }
}

fn line_of(run: &Run) -> String {
    let mut line =
        format!("run {} of {}/{}: {}", run.name, run.workflow.name, run.trigger, run.state);
    let mut add = |text: String| {
        line.push_str("; ");
        line.push_str(&text);
    };
    if !run.message.is_empty() {
        add(run.message.clone());
    }
    for (name, remark) in run.remarks.iter().filter(|(_, remark)| **remark != run.message) {
        add(format!("{name}: {remark}"));
    }
    if let Some(cancel) = &run.cancel {
        add(format!("told to end: {:?}", cancel.reason));
    }
    if run.state == RunState::Queued {
        let groups: Vec<&str> = run.groups.iter().map(|one| one.group.as_str()).collect();
        add(format!("waits in {}", groups.join(", ")));
    }
    if let Some(link) = &run.link {
        add(link.clone());
    }
    line
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Matched { run } => format!("runs, as {}", run.short()),
        Outcome::Rejected(no) => {
            format!("no: {} wants {} and saw {}", no.filter, no.wanted, no.saw)
        }
        Outcome::Denied { rule } => format!("denied: {rule}"),
        Outcome::Waiting { approvers } => format!("waits for the approval of {approvers}"),
        Outcome::Failed { filter, error } => format!("failed at {filter}: {error}"),
        Outcome::Superseded { by: Some(by), reason } => {
            format!("superseded by {}: {reason}", by.short())
        }
        Outcome::Superseded { by: None, reason } => format!("superseded: {reason}"),
    }
}

/// A text of strangers on one line, without what steers a terminal.
fn printable(text: &str) -> Arc<str> {
    let visible = |c: char| {
        let reordering = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' => ' ',
            c if c.is_control() || reordering => char::REPLACEMENT_CHARACTER,
            c => c,
        }
    };
    text.chars().map(visible).collect::<String>().into()
}
