//! How much memory 100,000 registered workflows take in an engine: resident pages before and after,
//! as Linux tells.

use std::sync::Arc;

use serde_json::json;
use workflows_benches::memory::resident;
use workflows_core::{
    SystemClock,
    conformance::{ScriptedScm, ScriptedSink},
    engine::{Engine, EngineBuilder},
    store::MemoryStore,
    workflow::{LoadContext, LoadedWorkflow, load_object},
};

/// A workflow such as users write: two triggers, one with a filter, four parameters.
fn workflow(i: usize) -> LoadedWorkflow {
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
    load_object(&format!("workflow-{i}"), &document, &LoadContext::registered())
        .expect("a workflow")
}

fn engine() -> EngineBuilder {
    let scm = ScriptedScm::new();
    Engine::builder()
        .store(Arc::new(MemoryStore::new(Arc::new(SystemClock))))
        .connection("acme", Arc::new(scm))
        .sink("sink", Arc::new(ScriptedSink::new()))
}

fn main() {
    const N: usize = 100_000;
    // What is made once for all of them is not theirs.
    drop(engine().workflow(workflow(0)).build().expect("it is built"));
    let before = resident();
    let mut builder = engine();
    for i in 0..N {
        builder = builder.workflow(workflow(i));
    }
    let loaded = resident();
    let engine = builder.build().expect("it is built");
    let registered = resident();
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{N} workflows: {} MiB loaded, {} MiB registered and indexed, {} MiB together",
        mib(loaded - before),
        mib(registered - loaded),
        mib(registered - before)
    );
    drop(engine);
}
