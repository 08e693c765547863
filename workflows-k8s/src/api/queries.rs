//! What is only read.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use workflows_core::{
    LogRef, Observation, RepoId, RepoRef, RunKey, RunState,
    engine::SimulationRequest,
    event::Seen,
    store::{DeliveryQuery, EventQuery, NotificationState, PageRequest, RunQuery},
    workflow::{LoadContext, LoadedWorkflow, load_object},
};

use super::{
    Api,
    access::Asked,
    failure::{Failure, Narrowed, Sent, tenant},
    views::{
        EventView, ExplanationView, HealthView, NotificationView, Page, ReplayRequest, ReplayView,
        RunView, ScheduleView, SimulateRequest, SimulationView, WholeRun,
    },
};

type Answer<T> = Result<Json<T>, Failure>;

fn asked<'a>(namespace: &'a str, verb: &'a str, resource: &'a str) -> Asked<'a> {
    Asked { namespace, verb, resource, part: "", name: "" }
}

/// How `runs` are narrowed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RunsQuery {
    repository: Option<String>,
    workflow: Option<String>,
    trigger: Option<String>,
    pull_request: Option<u64>,
    commit: Option<String>,
    event: Option<String>,
    state: Option<String>,
    limit: Option<u32>,
    after: Option<i64>,
}

fn page(limit: Option<u32>, after: Option<i64>) -> PageRequest {
    PageRequest { limit: limit.unwrap_or(50), after }
}

/// A word of an enumeration.
fn word<T: serde::de::DeserializeOwned>(field: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| Failure::invalid(format!("{field}: {text:?} is not one of the known words")))
}

pub(super) async fn runs(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    Narrowed(query): Narrowed<RunsQuery>,
    headers: HeaderMap,
) -> Answer<Page<RunView>> {
    api.admit(&headers, asked(&namespace, "list", "runs")).await?;
    let commit = query.commit.map(|text| text.parse()).transpose()?;
    let states: Vec<RunState> = match &query.state {
        Some(text) => text.split(',').map(|one| word("state", one)).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let runs = RunQuery::of(tenant(&namespace)?)
        .repo_name(query.repository)
        .workflow_name(query.workflow)
        .trigger(query.trigger)
        .pull_request(query.pull_request)
        .commit(commit)
        .event(query.event.map(Into::into))
        .states(states)
        .page(page(query.limit, query.after));
    let found = api.engine.runs(runs).await?;
    let items = found.items.into_iter().map(RunView::from).collect();
    Ok(Json(Page { items, next: found.next }))
}

pub(super) async fn run(
    State(api): State<Arc<Api>>,
    Path((namespace, run)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<WholeRun> {
    api.admit(&headers, asked(&namespace, "get", "runs")).await?;
    let key = RunKey::from(run);
    let Some(run) = api.engine.run(&tenant(&namespace)?, &key).await? else {
        return Err(Failure::not_found("there is no such run in the namespace (any more)"));
    };
    let pipeline_run = (*run.pipeline_run).clone();
    Ok(Json(WholeRun { run: run.into(), pipeline_run }))
}

/// Which step's log is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LogQuery {
    task: String,
    step: String,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn log(
    State(api): State<Arc<Api>>,
    Path((namespace, run)): Path<(String, String)>,
    Narrowed(query): Narrowed<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let part = Asked { part: "log", ..asked(&namespace, "get", "runs") };
    api.admit(&headers, part).await?;
    let step = LogRef { task: query.task.into(), step: query.step.into() };
    let key = RunKey::from(run);
    let log = api.engine.logs(&tenant(&namespace)?, &key, step, query.follow).await?;
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((text, Body::from_stream(log)).into_response())
}

/// How `events` are narrowed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EventsQuery {
    repository_id: Option<String>,
    kind: Option<String>,
    commit: Option<String>,
    pull_request: Option<u64>,
    limit: Option<u32>,
    after: Option<i64>,
}

pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    Narrowed(query): Narrowed<EventsQuery>,
    headers: HeaderMap,
) -> Answer<Page<EventView>> {
    api.admit(&headers, asked(&namespace, "list", "events")).await?;
    let kind = query.kind.as_deref().map(|text| word("kind", text)).transpose()?;
    let commit = query.commit.map(|text| text.parse()).transpose()?;
    let events = EventQuery::of(tenant(&namespace)?)
        .repo(query.repository_id.map(RepoId::from))
        .kind(kind)
        .commit(commit)
        .pull_request(query.pull_request)
        .page(page(query.limit, query.after));
    let found = api.engine.events(events).await?;
    let items = found.items.into_iter().map(EventView::from).collect();
    Ok(Json(Page { items, next: found.next }))
}

/// What is explained.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExplainQuery {
    event: Option<String>,
    run: Option<String>,
    repository_id: Option<String>,
    commit: Option<String>,
}

pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    Narrowed(query): Narrowed<ExplainQuery>,
    headers: HeaderMap,
) -> Answer<ExplanationView> {
    api.admit(&headers, asked(&namespace, "get", "events")).await?;
    let tenant = tenant(&namespace)?;
    let explanation = match query {
        ExplainQuery { event: Some(event), run: None, repository_id: None, commit: None } => {
            api.engine.explain_event(&tenant, &event.into()).await?
        }
        ExplainQuery { event: None, run: Some(run), repository_id: None, commit: None } => {
            let Some(run) = api.engine.run(&tenant, &run.into()).await? else {
                return Err(Failure::not_found("there is no such run in the namespace (any more)"));
            };
            api.engine.explain_event(&tenant, &run.event).await?
        }
        ExplainQuery { event: None, run: None, repository_id: Some(id), commit: Some(commit) } => {
            api.engine.explain_commit(&tenant, &id.into(), &commit.parse()?).await?
        }
        _ => {
            return Err(Failure::invalid(
                "say what to explain: event, or run, or repositoryId with commit",
            ));
        }
    };
    Ok(Json(explanation.into()))
}

/// Workflow documents that were sent.
fn loaded(documents: &[Value]) -> Result<Vec<LoadedWorkflow>, Failure> {
    let load = |(number, document)| {
        let source = format!("workflows[{number}]");
        let loaded = load_object(&source, document, &LoadContext::registered());
        loaded.map_err(|problems| {
            let told: Vec<String> = problems.iter().map(|one| one.one_line()).collect();
            Failure::invalid(told.join("; "))
        })
    };
    documents.iter().enumerate().map(load).collect()
}

/// It may call the host, so it takes a right of its own: whoever has it can have files read of what
/// the connection reaches.
pub(super) async fn simulate(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<SimulateRequest>,
) -> Answer<SimulationView> {
    const MOST_WORKFLOWS: usize = 20;
    const MOST_FILES: usize = 10_000;
    const PATIENCE: Duration = Duration::from_secs(60);
    let part = Asked { part: "simulate", ..asked(&namespace, "create", "runs") };
    api.admit(&headers, part).await?;
    let files = request.changed_files.as_ref().map_or(0, Vec::len);
    for (field, length, most) in [
        ("workflows", request.workflows.len(), MOST_WORKFLOWS),
        ("changedFiles", files, MOST_FILES),
    ] {
        if length > most {
            let message = format!("{field}: there are {length}, and at most {most} are taken");
            return Err(Failure::invalid(message));
        }
    }
    let claim = serde_json::from_value(Value::Object(request.claim));
    let claim = claim.map_err(|error| Failure::invalid(format!("claim: {error}")))?;
    let repo = RepoRef {
        connection: request.connection.into(),
        id: request.repository_id.into(),
        name: request.repository.into(),
    };
    let mut observation = Observation::new(
        tenant(&namespace)?,
        repo,
        "simulation".into(),
        "simulation".into(),
        Seen::Told,
        claim,
    );
    observation.sender = request.sender.map(Into::into);
    let mut workflows = loaded(&request.workflows)?.into_iter();
    let Some(first) = workflows.next() else {
        return Err(Failure::invalid("workflows: there is none"));
    };
    let mut wanted = SimulationRequest::new(first, observation);
    wanted.workflows.extend(workflows);
    wanted.changed_files =
        request.changed_files.map(|all| all.into_iter().map(Into::into).collect());
    match tokio::time::timeout(PATIENCE, api.engine.simulate(wanted)).await {
        Ok(simulated) => Ok(Json(simulated?.into())),
        Err(_) => Err(Failure::unavailable("the repository does not answer in time")),
    }
}

pub(super) async fn replay(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<ReplayRequest>,
) -> Answer<Vec<ReplayView>> {
    const MOST: u32 = 100;
    api.admit(&headers, asked(&namespace, "get", "events")).await?;
    let candidates = loaded(&request.workflows)?;
    let limit = request.limit.unwrap_or(20).min(MOST);
    let events = EventQuery::of(tenant(&namespace)?)
        .repo(request.repository_id.map(RepoId::from))
        .page(page(Some(limit), None));
    let replayed = api.engine.replay(events, &candidates).await?;
    Ok(Json(replayed.into_iter().map(ReplayView::from).collect()))
}

/// How `notifications` are narrowed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NotificationsQuery {
    run: Option<String>,
    state: Option<String>,
    limit: Option<u32>,
    after: Option<i64>,
}

pub(super) async fn notifications(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    Narrowed(query): Narrowed<NotificationsQuery>,
    headers: HeaderMap,
) -> Answer<Page<NotificationView>> {
    api.admit(&headers, asked(&namespace, "list", "notifications")).await?;
    let state: Option<NotificationState> =
        query.state.as_deref().map(|text| word("state", text)).transpose()?;
    let wanted = DeliveryQuery::of(tenant(&namespace)?)
        .run(query.run.map(RunKey::from))
        .state(state)
        .page(page(query.limit, query.after));
    let found = api.engine.notifications(wanted).await?;
    let items = found.items.into_iter().map(NotificationView::from).collect();
    Ok(Json(Page { items, next: found.next }))
}

pub(super) async fn schedules(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
) -> Answer<Page<ScheduleView>> {
    api.admit(&headers, asked(&namespace, "list", "schedules")).await?;
    let tenant = tenant(&namespace)?;
    let all = api.engine.schedules().await?;
    let of_tenant = all.into_iter().filter(|one| one.tenant == tenant);
    Ok(Json(Page { items: of_tenant.map(ScheduleView::from).collect(), next: None }))
}

pub(super) async fn health(State(api): State<Arc<Api>>, headers: HeaderMap) -> Answer<HealthView> {
    api.admit(&headers, asked("", "get", "")).await?;
    Ok(Json(api.engine.health().await?.into()))
}
