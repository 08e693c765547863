use serde_json::json;

use super::*;
use crate::{
    CancelMode, RepoId,
    workflow::{
        LoadContext, Loaded, RepoValues, load,
        testing::{comment_event, push_event},
    },
};

fn loaded(spec: &str) -> Loaded {
    let text = format!(
        "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata:\n  name: ci\n  labels: \
         {{team: a}}\n  annotations: {{note: hello}}\nspec:\n{spec}"
    );
    load("ci.yaml", &text, &LoadContext::in_repository())
}

fn workflow(spec: &str) -> LoadedWorkflow {
    let mut loaded = loaded(spec);
    assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
    loaded.workflows.remove(0)
}

const FILE: &str = "
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: { name: build }
spec:
  params: [{ name: revision }, { name: level, default: low }]
  workspaces: [{ name: source }, { name: cache, optional: true }]
  tasks:
  - { name: build, taskRef: { name: build }, params: [{ name: r, value: $(params.revision) }] }
  - { name: far, taskRef: { resolver: git, params: [] } }
  - { name: other, taskRef: { name: in-cluster } }
  finally:
  - { name: clean, taskRef: { name: build, kind: Task } }
---
apiVersion: tekton.dev/v1
kind: Task
metadata: { name: build, labels: { a: b } }
spec: { params: [{ name: r, default: x }], steps: [{ name: s, image: i, script: echo $(date) }] }
";

#[test]
fn the_run_has_everything_that_the_document_says() {
    let workflow = workflow(
        "  triggers: [{name: pr, on: pull_request}, {name: bench, on: comment, command: /bench, \
         params: [{name: level, value: high}]}]
  params:
  - {name: revision, value: $(event.head.sha)}
  pipelineRef: {path: .tekton/build.yaml}
  serviceAccountName: builder
  podTemplate: {nodeSelector: {disk: ssd}}
  taskRunSpecs: [{pipelineTaskName: build, timeout: 5m}]
  workspaces:
  - {name: source, volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Gi}}}}, subPath: \
         $(event.repo.name)}
  timeouts: {pipeline: 1h, tasks: 50m, finally: 10m}
",
    );
    let file = load("build.yaml", FILE, &LoadContext::in_repository());
    assert!(file.problems.is_empty());
    let file = PipelineFile { pipeline: &file.pipelines[0], tasks: &file.tasks };
    let view = comment_event().view();
    let values = Values::new(&view, "key", "name");
    let run = workflow.pipeline_run("bench", &values, Some(file)).unwrap();
    let task = json!({
        "params": [{"name": "r", "default": "x"}],
        "steps": [{"name": "s", "image": "i", "script": "echo $(date)"}],
        "metadata": {"labels": {"a": "b"}},
    });
    assert_eq!(
        run,
        json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "hello"}},
            "spec": {
                "params": [
                    {"name": "revision", "value": "a".repeat(40)},
                    {"name": "level", "value": "high"},
                ],
                "pipelineSpec": {
                    "params": [{"name": "revision"}, {"name": "level", "default": "low"}],
                    "workspaces": [{"name": "source"}, {"name": "cache", "optional": true}],
                    "tasks": [
                        {
                            "name": "build",
                            "params": [{"name": "r", "value": "$(params.revision)"}],
                            "taskSpec": task,
                        },
                        {"name": "far", "taskRef": {"resolver": "git", "params": []}},
                        {"name": "other", "taskRef": {"name": "in-cluster"}},
                    ],
                    "finally": [{"name": "clean", "taskSpec": task}],
                },
                "taskRunTemplate": {
                    "serviceAccountName": "builder",
                    "podTemplate": {"nodeSelector": {"disk": "ssd"}},
                },
                "taskRunSpecs": [{"pipelineTaskName": "build", "timeout": "5m"}],
                "workspaces": [{
                    "name": "source",
                    "volumeClaimTemplate": {
                        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
                    },
                    "subPath": "acme/api",
                }],
                "timeouts": {"pipeline": "1h", "tasks": "50m", "finally": "10m"},
            },
        })
    );
}

#[test]
fn a_resolver_gets_its_parameters_from_the_event() {
    let workflow = workflow(
        "  triggers: [{name: push, on: push}]
  pipelineRef:
    resolver: git
    params:
    - {name: url, value: $(repos.self.url)}
    - {name: revision, value: $(event.head.sha)}
",
    );
    let view = push_event().view();
    let repo = RepoValues { url: "https://example.com/r".into(), ..RepoValues::default() };
    let values = Values::new(&view, "key", "name").with_repo("self", repo);
    let run = workflow.pipeline_run("push", &values, None).unwrap();
    assert_eq!(
        run["spec"],
        json!({"pipelineRef": {"resolver": "git", "params": [
            {"name": "url", "value": "https://example.com/r"},
            {"name": "revision", "value": "b".repeat(40)},
        ]}})
    );
}

#[test]
fn a_pipeline_that_asks_for_more_than_the_workflow_gives_is_refused() {
    let file = load("build.yaml", FILE, &LoadContext::in_repository());
    let file = PipelineFile { pipeline: &file.pipelines[0], tasks: &file.tasks };
    let view = push_event().view();
    let values = Values::new(&view, "key", "name");
    let refused = |spec: &str| {
        let spec = format!(
            "  triggers: [{{name: push, on: push}}]\n  pipelineRef: {{path: .tekton/build.yaml}}\n{spec}"
        );
        workflow(&spec).pipeline_run("push", &values, Some(file)).unwrap_err().to_string()
    };
    assert_eq!(
        refused(""),
        "render the run: the pipeline needs a parameter \"revision\" (field: spec.params, \
         pipeline: .tekton/build.yaml, remedy: add `{ name: revision, value: ... }`, and: \
         spec.workspaces: the pipeline needs a workspace \"source\")"
    );
    assert!(refused("  params: [{name: revision, value: [a]}]\n").contains(
        "the pipeline's parameter \"revision\" is a string, and the workflow gives an array"
    ));
    assert!(
        refused("  params: [{name: revision, value: a}]\n")
            .contains("the pipeline needs a workspace \"source\"")
    );
}

/// An example of an earlier experiment had a pipeline whose workspace nobody declared.
#[test]
fn a_pipeline_in_place_is_checked_when_the_document_is_loaded() {
    let loaded = loaded(
        "  triggers: [{name: push, on: push}]
  podTemplate: {hostname: $(event.repo.name)}
  pipelineSpec:
    params: [{name: a}, {name: b, type: array}]
    workspaces: [{name: source}]
    tasks:
    - {name: t, taskSpec: {steps: [{image: i, script: \"echo $(event.head.sha) $(date) $(run.sh)\"}]}}
  params: [{name: b, value: x}]
",
    );
    let problems: Vec<_> =
        loaded.problems.iter().map(|problem| (&*problem.field, &*problem.message)).collect();
    assert_eq!(
        problems,
        [
            ("spec.workspaces", "the pipeline needs a workspace \"source\""),
            ("spec.podTemplate.hostname", "`$(event.repo.name)` is not substituted here"),
            (
                "spec.pipelineSpec.tasks[0].taskSpec.steps[0].script",
                "`$(event.head.sha)` is not substituted here"
            ),
            ("spec.params", "the pipeline needs a parameter \"a\""),
            (
                "spec.params",
                "the pipeline's parameter \"b\" is an array, and the workflow gives a string"
            ),
        ]
    );
}

#[test]
fn a_run_is_in_the_groups_whose_keys_its_event_has() {
    let workflow = workflow(
        "  triggers: [{name: push, on: push}, {name: bench, on: comment}]
  pipelineRef: {name: p}
  concurrency:
  - {group: \"$(workflow.name)/$(event.pull_request.number)\", strategy: replace, cancel: atOnce}
  - {group: deploy, shared: true, strategy: queue, maxRunning: 2, maxWait: 30m}
",
    );
    let id = WorkflowId::in_repository(RepoId::new("42"), "ci");
    let keys = |trigger: &str, view: &Value| {
        let groups = workflow.groups(&id, trigger, &Values::new(view, "k", "n")).unwrap();
        groups.iter().map(|group| group.group.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("bench", &comment_event().view()), ["shared/deploy", "workflow/42#ci/ci/7"]);
    assert_eq!(keys("push", &push_event().view()), ["shared/deploy"]);
    let strategy = &workflow.workflow().spec.concurrency[0].strategy;
    assert_eq!(*strategy, crate::workflow::Strategy::Replace { cancel: CancelMode::AtOnce });
}

#[test]
fn a_group_key_may_hold_any_text_of_the_event() {
    let workflow = workflow(
        "  triggers: [{name: bench, on: comment}]\n  pipelineRef: {name: p}\n  concurrency: \
         [{group: $(event.pull_request.title), strategy: allow}]\n",
    );
    let mut event = comment_event();
    event.pull_request.as_mut().unwrap().title = "$(params.x)".into();
    let view = event.view();
    let values = Values::new(&view, "k", "n");
    let id = WorkflowId::registered("ci");
    let groups = workflow.groups(&id, "bench", &values).unwrap();
    assert_eq!(groups[0].group.as_str(), "workflow/ci/$(params.x)");
}
