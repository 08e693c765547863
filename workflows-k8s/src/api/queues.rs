//! What runs and waits in concurrency groups.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use workflows_core::{
    GroupKey, Run, RunState, Tenant,
    store::{PageRequest, RunQuery},
};

use super::{
    Api,
    access::Asked,
    failure::{Failure, Narrowed, tenant},
    views::RepositoryView,
};

/// What runs and waits in the groups of a namespace.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct QueuesView {
    /// The groups in which something runs or waits, by name.
    items: Vec<QueueView>,
    /// Whether there were too many runs to look at all: then the groups of the oldest are missing, or
    /// runs of theirs.
    incomplete: bool,
}

/// What runs and waits in a group.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct QueueView {
    /// The group.
    group: String,
    /// What runs, or is about to, in the order in which it was asked for.
    running: Vec<InQueue>,
    /// What waits, in the order in which it was asked for.
    waiting: Vec<InQueue>,
}

/// A run in a group.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct InQueue {
    /// Its key.
    key: String,
    /// The name of its PipelineRun.
    name: String,
    /// The repository that it is for.
    repository: RepositoryView,
    /// The workflow's name.
    workflow: String,
    /// The pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_request: Option<u64>,
    /// Why it stands as it does, in one line.
    message: String,
    /// When it was planned.
    #[schemars(with = "String")]
    created_at: Timestamp,
}

impl From<&Run> for InQueue {
    fn from(run: &Run) -> Self {
        Self {
            key: run.key.to_string(),
            name: run.name.to_string(),
            repository: RepositoryView::from(&run.repo),
            workflow: run.workflow.name.to_string(),
            pull_request: run.pull_request,
            message: run.message.clone(),
            created_at: run.created_at,
        }
    }
}

/// How queues are narrowed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct QueuesQuery {
    group: Option<String>,
}

pub(super) async fn queues(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    Narrowed(query): Narrowed<QueuesQuery>,
    headers: HeaderMap,
) -> Result<Json<QueuesView>, Failure> {
    let asked =
        Asked { namespace: &namespace, verb: "list", resource: "queues", part: "", name: "" };
    api.admit(&headers, asked).await?;
    let (mut runs, incomplete) = under_way(&api, tenant(&namespace)?).await?;
    runs.sort_by(|a, b| a.order.cmp(&b.order).then_with(|| a.key.as_str().cmp(b.key.as_str())));
    let mut groups: BTreeMap<&GroupKey, QueueView> = BTreeMap::new();
    for run in &runs {
        for membership in &run.groups {
            if query.group.as_deref().is_some_and(|group| group != membership.group.as_str()) {
                continue;
            }
            let queue = groups.entry(&membership.group).or_default();
            let place = match run.state {
                RunState::Planned | RunState::Queued => &mut queue.waiting,
                _ => &mut queue.running,
            };
            place.push(InQueue::from(run));
        }
    }
    let items =
        groups.into_iter().map(|(group, queue)| QueueView { group: group.to_string(), ..queue });
    Ok(Json(QueuesView { items: items.collect(), incomplete }))
}

/// The runs of a tenant that have not ended, and whether there are more.
async fn under_way(api: &Api, tenant: Tenant) -> Result<(Vec<Run>, bool), Failure> {
    const MOST: usize = 5_000;
    const PAGE: u32 = 500;
    let states: Vec<RunState> =
        RunState::ALL.into_iter().filter(|state| !state.is_terminal()).collect();
    let mut runs = Vec::new();
    let mut after = None;
    loop {
        let query = RunQuery::of(tenant.clone())
            .states(states.clone())
            .page(PageRequest { limit: PAGE, after });
        let page = api.engine.runs(query).await?;
        runs.extend(page.items);
        after = page.next;
        if after.is_none() || runs.len() >= MOST {
            return Ok((runs, after.is_some()));
        }
    }
}
