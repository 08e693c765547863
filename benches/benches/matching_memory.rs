//! How much memory 100,000 loaded workflows take: resident pages before and after, as Linux tells.

use std::{fs, sync::Arc};

use serde_json::json;
use workflows_core::{
    Tenant, Workflow,
    matching::{Definition, Index},
};

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

/// A workflow such as users write: two triggers, one with a filter, four parameters.
fn workflow(i: usize) -> Arc<Workflow> {
    let repo = i / 10;
    let document = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": format!("workflow-{i}"), "labels": {"team": format!("team-{}", i % 100)}},
        "spec": {
            "repos": [{"name": "code", "connection": "acme", "repo": format!("org-{}/repo-{repo}", repo / 10)}],
            "triggers": [
                {"name": "pull-request", "on": "pull_request", "branches": ["main", "release/*"],
                 "paths": {"exclude": ["**/*.md"]},
                 "filter": format!("!event.pull_request.draft && event.sender != 'bot-{i}'")},
                {"name": "push", "on": "push", "branches": [format!("branch-{}", i % 10)]},
            ],
            "params": [
                {"name": "revision", "value": "$(event.head.sha)"},
                {"name": "url", "value": "$(repos.code.url)"},
                {"name": "branch", "value": "$(event.head.branch)"},
                {"name": "title", "value": "$(event.pull_request.title)", "default": ""},
            ],
            "pipelineRef": {"path": ".tekton/ci.yaml"},
            "serviceAccountName": "ci",
            "concurrency": [{"group": "$(workflow.name)/$(event.head.ref)", "strategy": "replace"}],
        },
    });
    Arc::new(serde_json::from_value(document).expect("a workflow"))
}

fn main() {
    const N: usize = 100_000;
    // What is made once for all of them is not theirs.
    Definition::registered(Tenant::default(), workflow(0)).expect("compiles");
    let before = resident();
    let workflows: Vec<_> = (0..N).map(workflow).collect();
    let documents = resident();
    let index = Index::new();
    for workflow in workflows {
        let definition = Definition::registered(Tenant::default(), workflow).expect("compiles");
        index.upsert(Arc::new(definition)).expect("a pattern");
    }
    let loaded = resident();
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{} workflows: {} MiB documents, {} MiB compiled and indexed, {} MiB together",
        index.len(),
        mib(documents - before),
        mib(loaded - documents),
        mib(loaded - before)
    );
}
