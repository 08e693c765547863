//! Which commit a slot of a schedule is for.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    CommitId, Error, ErrorKind, RepoConnection, Result, Run, RunState, Tenant, WorkflowId,
    engine::core::Core,
    event::{Revision, SubjectKey},
    store::{PageRequest, Rejected, RunQuery},
    workflow::{AsOf, AsOfSucceeded, Schedule, parse_duration},
};

/// What was found for a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// A commit.
    Commit {
        /// At its ref.
        head: Revision,
        /// Whether it was found by committer date.
        approximate: bool,
    },
    /// None, and waiting brings none: there shall be no run.
    Nothing(Rejected),
}

impl Found {
    fn exactly(commit: CommitId, reference: Arc<str>) -> Self {
        Self::Commit { head: Revision::new(commit, reference), approximate: false }
    }
}

/// Finds the commit that a schedule asks for at an instant.
///
/// # Errors
///
/// What the ledger and the repository fail with, but for what does not change by waiting.
pub(super) async fn find(
    core: &Core,
    tenant: &Tenant,
    repository: &dyn RepoConnection,
    schedule: &Schedule,
    instant: Timestamp,
) -> Result<Found> {
    let (reference, present) = match position(core, repository, schedule).await {
        Ok(position) => position,
        Err(error) if is_final(&error) => {
            let wanted = schedule.reference.clone().unwrap_or_else(|| "default branch".into());
            return Ok(Found::Nothing(rejected("ref", wanted, json!(error.to_string()))));
        }
        Err(error) => return Err(error),
    };
    match &schedule.as_of {
        None => Ok(Found::exactly(present, reference)),
        Some(AsOf::Age(age)) => {
            let then = before(instant, age)?;
            at_that_time(core, tenant, repository, reference, age, then).await
        }
        Some(AsOf::Succeeded(succeeded)) => {
            let then = match &succeeded.age {
                Some(age) => before(instant, age)?,
                None => instant,
            };
            last_that_succeeded(core, tenant, repository, reference, succeeded, then).await
        }
    }
}

/// Why a slot makes no run although its commit is known: the last run of the trigger that succeeded
/// was for the same one.
pub(super) async fn unchanged(
    core: &Core,
    tenant: &Tenant,
    workflow: &WorkflowId,
    trigger: &str,
    head: &Revision,
) -> Result<Option<Rejected>> {
    let query = RunQuery::of(tenant.clone())
        .workflow(Some(workflow.clone()))
        .trigger(Some(trigger.to_owned()))
        .states(vec![RunState::Succeeded])
        .page(PageRequest { limit: 1, after: None });
    let last = core.store.runs(query).await?.items.into_iter().next();
    Ok(last.filter(|run| run.commit.as_ref() == Some(&head.sha)).map(|run| {
        let wanted = "another commit than the last run that succeeded".to_owned();
        rejected("onlyIfChanged", wanted, json!({ "commit": head.sha, "run": run.key }))
    }))
}

/// The full name of the ref, and where it stands.
async fn position(
    core: &Core,
    repository: &dyn RepoConnection,
    schedule: &Schedule,
) -> Result<(Arc<str>, CommitId)> {
    const OPERATION: &str = "resolve a schedule's ref";
    let resolve = async |name: Arc<str>| {
        let commit = core.call(OPERATION, repository.resolve(&name)).await?;
        Ok((name, commit))
    };
    match schedule.reference.as_deref() {
        None => {
            let default = core.call("find the default branch", repository.default_branch());
            resolve(default.await?).await
        }
        Some(full) if full.starts_with("refs/") => resolve(full.into()).await,
        Some(short) => match resolve(format!("refs/heads/{short}").into()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                resolve(format!("refs/tags/{short}").into()).await
            }
            other => other,
        },
    }
}

/// The commit at which a ref stood: as the ledger saw it arrive, or else by committer date.
async fn at_that_time(
    core: &Core,
    tenant: &Tenant,
    repository: &dyn RepoConnection,
    reference: Arc<str>,
    age: &str,
    then: Timestamp,
) -> Result<Found> {
    let subject = SubjectKey::reference(&reference);
    let repo = &repository.repo().id;
    let arrivals = core.store.arrivals(tenant, repo, &subject, then, 1).await?;
    let nothing = |saw: Value| {
        Found::Nothing(rejected("asOf", format!("the commit of {reference} {age} before"), saw))
    };
    if let Some(arrival) = arrivals.first() {
        return Ok(match arrival.state.parse() {
            Ok(commit) => Found::exactly(commit, reference),
            Err(_) => nothing(json!({ "at": then, "state": arrival.state })),
        });
    }
    let saw = |why: &str| json!({ "at": then, "why": why });
    let Some(history) = repository.history() else {
        return Ok(nothing(saw("the ledger does not reach back, and the host tells no history")));
    };
    let asked = core.call("look back", history.first_parent_as_of(&reference, then)).await;
    Ok(match asked {
        Ok(Some(commit)) => {
            Found::Commit { head: Revision::new(commit, reference), approximate: true }
        }
        Ok(None) => nothing(saw("every commit is later")),
        Err(error) if is_final(&error) => nothing(saw(&error.to_string())),
        Err(error) => return Err(error),
    })
}

/// The commit of the run of another workflow that succeeded last by an instant.
async fn last_that_succeeded(
    core: &Core,
    tenant: &Tenant,
    repository: &dyn RepoConnection,
    reference: Arc<str>,
    wanted: &AsOfSucceeded,
    then: Timestamp,
) -> Result<Found> {
    let mut page = PageRequest { limit: 100, after: None };
    loop {
        let query = RunQuery::of(tenant.clone())
            .repo(Some(repository.repo().id.clone()))
            .workflow_name(Some(wanted.succeeded_in.to_string()))
            .states(vec![RunState::Succeeded])
            .until(Some(then))
            .page(page);
        let runs = core.store.runs(query).await?;
        let last = runs
            .items
            .iter()
            .filter(|run| run.reference.as_deref() == Some(&*reference))
            .filter_map(|run: &Run| Some((run.finished_at?, run.order, run.commit.clone()?)))
            .filter(|(finished, ..)| *finished <= then)
            .max();
        match (last, runs.next) {
            (Some((.., commit)), _) => return Ok(Found::exactly(commit, reference)),
            (None, Some(next)) => page.after = Some(next),
            (None, None) => break,
        }
    }
    let text =
        format!("a commit of {reference} that succeeded in {} by {then}", wanted.succeeded_in);
    Ok(Found::Nothing(rejected("asOf", text, Value::Null)))
}

fn before(instant: Timestamp, age: &str) -> Result<Timestamp> {
    let age = parse_duration(age)?;
    instant.checked_sub(age).map_err(|error| {
        Error::invalid("look back in time", "this is before all time").caused_by(error)
    })
}

/// Whether waiting does not change an answer.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported)
}

fn rejected(filter: &'static str, wanted: String, saw: Value) -> Rejected {
    Rejected { filter: filter.into(), wanted, saw }
}
