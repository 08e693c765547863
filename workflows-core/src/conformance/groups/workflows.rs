//! What kinds of workflows there are: each with the groups of its runs.

use crate::{
    GroupKey, WorkflowId,
    workflow::{LoadContext, LoadedWorkflow, load},
};

/// The workflow that runs for every push, and may lose its place to a newer one.
pub(super) const PUSH: &str = "push";
/// The workflows that somebody runs.
pub(super) const MANUAL: [&str; 8] =
    ["replace", "queue", "bounded", "newest-waits", "two-queues", "machines", "any", "two-newest"];
/// The queues that somebody may clear.
pub(super) const QUEUES: [&str; 4] = ["queue", "bounded", "lock", "machines"];

/// One document for each: the groups are those of the event's repository, so that histories in
/// different repositories do not meet.
const GROUPS: [(&str, &str); 9] = [
    ("push", "{ group: G/main, strategy: replace }"),
    ("replace", "{ group: G/replace, strategy: replace }"),
    ("queue", "{ group: G/queue, strategy: queue }"),
    ("bounded", "{ group: G/bounded, strategy: queue, maxRunning: 2, maxQueued: 2, maxWait: 10m }"),
    (
        "newest-waits",
        "{ group: G/newest-waits, strategy: replace, cancel: atOnce }, { group: G/lock, strategy: \
         queue }",
    ),
    (
        "two-queues",
        "{ group: G/lock, strategy: queue }, { group: G/machines, strategy: queue, maxRunning: 2 }",
    ),
    ("machines", "{ group: G/machines, strategy: queue, maxRunning: 2 }"),
    ("any", "{ group: G/any, strategy: allow }"),
    (
        "two-newest",
        "{ group: G/newest-a, strategy: replace, cancel: afterRunningTasks }, { group: \
         G/newest-b, strategy: replace, cancel: atOnce }",
    ),
];

/// All of them, for the connection of that name.
///
/// # Panics
///
/// When a document does not load.
pub(super) fn all(connection: &str) -> Vec<LoadedWorkflow> {
    let documents = GROUPS.map(|(name, groups)| {
        let on = if name == PUSH { "push, branches: [main]" } else { "manual" };
        let groups = groups
            .replace("group: G/", "shared: true, group: \"$(event.repo.name)/")
            .replace(", strategy", "\", strategy");
        format!(
            "apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: {{ name: {name} }}
spec:
  repos: [{{ name: code, connection: {connection}, repo: \"*/*\" }}]
  triggers: [{{ name: t, on: {on} }}]
  pipelineSpec:
    tasks: [{{ name: t, taskSpec: {{ steps: [{{ name: s, image: i, script: 'true' }}] }} }}]
  concurrency: [{groups}]
"
        )
    });
    let mut workflows = Vec::new();
    for document in documents {
        let mut loaded = load("groups.yaml", &document, &LoadContext::registered());
        assert!(loaded.problems.is_empty(), "{document}: {:?}", loaded.problems);
        workflows.append(&mut loaded.workflows);
    }
    workflows
}

/// The whole key of a group in a repository.
pub(super) fn group(repo: &str, name: &str) -> GroupKey {
    GroupKey::new(format!("shared/{repo}/{name}"))
}

pub(super) fn id(name: &str) -> WorkflowId {
    WorkflowId::registered(name)
}
