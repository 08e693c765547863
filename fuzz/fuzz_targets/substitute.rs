//! Whatever a reference and an event hold, the run's parameters are the strings that were put in, or
//! there is no run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use workflows_core::workflow::{LoadContext, Values, load_object};

fuzz_target!(|input: (&str, &str)| {
    let (template, text) = input;
    let document = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "fuzz"},
        "spec": {
            "triggers": [{"name": "t", "on": "pull_request"}],
            "pipelineRef": {"name": "p"},
            "params": [
                {"name": "template", "value": template, "default": "none"},
                {"name": "text", "value": "$(event.pull_request.title)"},
                {"name": "last", "value": "unchanged"},
            ],
        },
    });
    let Ok(workflow) = load_object("fuzz", &document, &LoadContext::in_repository()) else {
        return;
    };
    let event = json!({"kind": "pull_request", "pull_request": {"title": text}});
    let values = Values::new(&event, "key", "name");
    let Ok(run) = workflow.pipeline_run("t", &values, None) else { return };
    let params = run["spec"]["params"].as_array().expect("a list of parameters");
    assert_eq!(params.len(), 3);
    assert_eq!(params[1]["value"], text);
    assert_eq!(params[2]["value"], "unchanged");
    assert!(!text.contains("$("));
});
