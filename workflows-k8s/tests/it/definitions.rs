//! The CustomResourceDefinitions, and what they accept and refuse.

use std::path::PathBuf;

use http::{Method, Request};
use kube::{Client, CustomResourceExt, Resource as _};
use serde_json::{Value, json};
use workflows_core::workflow::{LoadContext, load_object};
use workflows_k8s::resources;
use workflows_kube_standin::Cluster;

use crate::world::TEAM;

/// The file of a definition, as `kubectl apply` takes it.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds").join(format!("{name}.yaml"))
}

#[test]
fn the_files_are_current() {
    let mut names = Vec::new();
    for definition in resources::definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let text = serde_saphyr::to_string(&definition).unwrap();
        let text =
            format!("# Written by the test `the_files_are_current` with UPDATE_CRDS set.\n{text}");
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(file(&name), &text).unwrap();
        }
        let kept = std::fs::read_to_string(file(&name)).unwrap_or_default();
        assert!(kept == text, "{name} is not current; run this test with UPDATE_CRDS=1");
        names.push(name);
    }
    assert_eq!(names.len(), 4);
}

/// Sends a request, and returns the code, the answer and the warnings.
async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
) -> (u16, Value, Vec<String>) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes().into())
        .unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|value| value.to_str().unwrap().to_owned()).collect();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or_default(), warnings)
}

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    cluster.namespace(TEAM);
    let client = cluster.client();
    for definition in resources::definitions() {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let (code, answer, _) =
            send(&client, Method::POST, path, &serde_json::to_value(definition).unwrap()).await;
        assert_eq!(code, 201, "{answer}");
    }
    (cluster, client)
}

/// What becomes of an object that `kubectl apply` would send.
async fn apply(client: &Client, plural: &str, object: &Value) -> Result<Value, String> {
    let path = format!(
        "/apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/{plural}?fieldValidation=Strict"
    );
    match send(client, Method::POST, &path, object).await {
        (201, object, _) => Ok(object),
        (_, status, _) => Err(status["message"].as_str().unwrap().to_owned()),
    }
}

fn workflow(spec: Value) -> Value {
    json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "ci"}, "spec": spec,
    })
}

fn usual() -> Value {
    json!({
        "repos": [{"name": "code", "connection": "acme", "repo": "acme/*"}],
        "triggers": [
            {"name": "pull-request", "on": "pull_request", "branches": ["main", "release/*"],
             "paths": {"exclude": ["**/*.md"]}, "filter": "!event.pull_request.draft"},
            {"name": "push", "on": "push", "branches": {"exclude": ["wip/*"]},
             "filter": ["event.sender != 'bot'", "true"]},
            {"name": "bench", "on": "comment", "command": "/bench"},
            {"name": "nightly", "on": "schedule",
             "schedule": {"cron": "0 3 * * *", "asOf": {"succeededIn": "ci", "age": "7d"}}},
        ],
        "params": [
            {"name": "revision", "value": "$(event.head.sha)"},
            {"name": "list", "default": ["a", "b"]},
        ],
        "pipelineSpec": {"tasks": [{"name": "a", "taskSpec": {"steps": [{"image": "x", "script": "y"}]}}]},
        "serviceAccountName": "ci",
        "workspaces": [{"name": "source", "emptyDir": {}}],
        "timeouts": {"pipeline": "1h"},
        "concurrency": [{"group": "$(event.pull_request.number)", "strategy": "replace"}],
        "notify": [{"notifier": "chat"}],
        "retention": {"runs": 20},
    })
}

#[tokio::test]
async fn a_workflow_is_the_same_in_a_cluster_and_in_a_file() {
    let (_cluster, client) = cluster().await;
    let sent = workflow(usual());
    let kept = apply(&client, "workflows", &sent).await.unwrap();
    let from_cluster = load_object("cluster", &kept, &LoadContext::registered()).unwrap();
    let from_file = load_object("file", &sent, &LoadContext::registered()).unwrap();
    assert_eq!(from_cluster.digest(), from_file.digest());
    assert_eq!(kept["spec"]["notify"][0]["on"], json!(["failed", "timed_out", "recovered"]));
    let typed: resources::Workflow = serde_json::from_value(kept).unwrap();
    assert_eq!(typed.spec.0.triggers.len(), 4);
    assert_eq!(resources::Workflow::kind(&()), "Workflow");
}

/// What makes the usual document wrong.
type Change = fn(&mut Value);

#[tokio::test]
async fn a_wrong_workflow_is_refused_with_its_field() {
    let (_cluster, client) = cluster().await;
    let wrong = |change: fn(&mut Value)| {
        let mut spec = usual();
        change(&mut spec);
        workflow(spec)
    };
    let cases: [(Change, &str); 12] = [
        (
            |spec| spec["trigers"] = json!([]),
            "strict decoding error: unknown field \"spec.trigers\"",
        ),
        (
            |spec| spec["repos"] = json!([]),
            "spec.repos: Invalid value: 0: spec.repos in body should have at least 1 items",
        ),
        (
            |spec| {
                spec.as_object_mut().unwrap().remove("repos");
            },
            "spec.repos: Required value",
        ),
        (
            |spec| spec["triggers"][0]["on"] = json!(1),
            "spec.triggers[0].on in body must be of type string",
        ),
        (
            |spec| spec["triggers"][1]["name"] = json!("pull-request"),
            "spec.triggers[1]: Duplicate value: {\"name\":\"pull-request\"}",
        ),
        (
            |spec| spec["triggers"][0]["schedule"] = json!({"cron": "@daily"}),
            "spec.triggers[0]: Invalid value: \"object\": on: schedule needs schedule, and nothing else has it",
        ),
        (
            |spec| spec["triggers"][0]["command"] = json!("/x"),
            "spec.triggers[0]: Invalid value: \"object\": command has a meaning only with on: comment",
        ),
        (
            |spec| spec["pipelineRef"] = json!({"path": "x"}),
            "spec: Invalid value: \"object\": exactly one of pipelineRef and pipelineSpec must be given",
        ),
        (
            |spec| {
                spec.as_object_mut().unwrap().remove("pipelineSpec");
                spec["pipelineRef"] = json!({"path": "x", "name": "y"});
            },
            "spec.pipelineRef: Invalid value: \"object\": exactly one of path, name and resolver must be given",
        ),
        (
            |spec| spec["concurrency"][0]["maxRunning"] = json!(2),
            "spec.concurrency[0]: Invalid value: \"object\": maxRunning, maxQueued and maxWait have a meaning only with strategy: queue",
        ),
        (
            |spec| spec["concurrency"][0]["strategy"] = json!("replce"),
            "spec.concurrency[0].strategy: Unsupported value: \"replce\": supported values: \"replace\", \"queue\", \"allow\"",
        ),
        (
            |spec| spec["notify"][0]["on"] = json!(["done"]),
            "spec.notify[0].on[0]: Unsupported value: \"done\"",
        ),
    ];
    for (change, expected) in cases {
        let error = apply(&client, "workflows", &wrong(change)).await.unwrap_err();
        assert!(error.contains(expected), "{error}\nshould contain\n{expected}");
    }
}

#[tokio::test]
async fn unknown_fields_are_warned_of_and_pruned_where_nobody_asked_for_more() {
    let (_cluster, client) = cluster().await;
    let mut spec = usual();
    spec["trigers"] = json!([]);
    let path = format!("/apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/workflows");
    let (code, kept, warnings) = send(&client, Method::POST, &path, &workflow(spec)).await;
    assert_eq!(code, 201);
    assert_eq!(kept["spec"].get("trigers"), None);
    assert_eq!(warnings, ["299 - \"unknown field \\\"spec.trigers\\\"\""]);
}

fn connection(spec: Value) -> Value {
    json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "ScmConnection",
        "metadata": {"name": "acme"}, "spec": spec,
    })
}

#[tokio::test]
async fn connections_have_defaults_and_rules() {
    let (_cluster, client) = cluster().await;
    let kept = apply(
        &client,
        "scmconnections",
        &connection(json!({
            "driver": "github", "repositories": ["acme/*"],
            "credentials": {"app": {"id": 7, "privateKey": {"name": "app", "key": "pem"}}},
            "webhook": {"secret": {"name": "hook", "key": "secret"}}, "poll": {},
            "grants": [{"namespace": "team-b", "repositories": ["acme/api"]}],
        })),
    )
    .await
    .unwrap();
    assert_eq!(kept["spec"]["definitionsDirectory"], ".tekton");
    assert_eq!(kept["spec"]["poll"]["interval"], "1m");
    assert_eq!(kept["spec"]["webhook"]["register"], "None");
    let typed: resources::ScmConnection = serde_json::from_value(kept).unwrap();
    assert_eq!(typed.spec.grants[0].namespace, "team-b");

    for (spec, expected) in [
        (
            json!({"driver": "github", "repositories": ["a/b"]}),
            "spec: Invalid value: \"object\": say how events become known: webhook, poll or both",
        ),
        (
            json!({"driver": "Git Hub", "repositories": ["a/b"], "poll": {}}),
            "spec.driver in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'",
        ),
        (
            json!({"driver": "github", "repositories": ["a/b"], "poll": {}, "url": "ftp://x"}),
            "the url of a GitHub must begin with https:// (or http://)",
        ),
        (
            json!({"driver": "github", "repositories": ["a/b"], "poll": {},
                "credentials": {"token": {"name": "a", "key": "b"}, "sshKey": {"name": "a", "key": "b"}}}),
            "spec.credentials: Invalid value: \"object\": exactly one of app, token, basic and sshKey must be given",
        ),
        (
            json!({"driver": "github", "repositories": ["a/b"], "poll": {},
                "credentials": {"token": {"name": "a"}}}),
            "spec.credentials.token.key: Required value",
        ),
        (json!({"driver": "github", "poll": {}}), "spec.repositories: Required value"),
    ] {
        let error = apply(&client, "scmconnections", &connection(spec)).await.unwrap_err();
        assert!(error.contains(expected), "{error}\nshould contain\n{expected}");
    }
}

#[tokio::test]
async fn policies_and_notifiers_have_defaults() {
    let (_cluster, client) = cluster().await;
    let policy = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Policy",
        "metadata": {"name": "platform"}, "spec": {"inRepository": {"serviceAccounts": ["ci"]}},
    });
    let kept = apply(&client, "policies", &policy).await.unwrap();
    assert_eq!(
        kept["spec"]["inRepository"]["workspaces"],
        json!(["emptyDir", "volumeClaimTemplate"])
    );
    assert_eq!(kept["spec"]["approvals"]["approvers"], "Write");
    let typed: resources::Policy = serde_json::from_value(kept).unwrap();
    let same: resources::PolicySpec =
        serde_json::from_value(json!({"inRepository": {"serviceAccounts": ["ci"]}})).unwrap();
    assert_eq!(typed.spec, same, "the server's defaults are the type's");
    let empty: resources::PolicySpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(empty, resources::PolicySpec::default());

    let notifier = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
        "metadata": {"name": "chat"}, "spec": {"type": "slack", "settings": {"channel": "#ci", "any": [1]}},
    });
    let kept = apply(&client, "notifiers", &notifier).await.unwrap();
    assert_eq!(kept["spec"]["settings"]["any"], json!([1]));
    let names = [
        (resources::Workflow::crd(), "wfl"),
        (resources::ScmConnection::crd(), "scm"),
        (resources::Notifier::crd(), "wfn"),
        (resources::Policy::crd(), "wfp"),
    ];
    for (definition, short) in names {
        assert_eq!(definition.spec.names.short_names, Some(vec![short.to_owned()]));
        assert_eq!(
            definition.spec.names.categories,
            Some(vec!["workflows".to_owned(), "tekton".to_owned()])
        );
        assert!(
            definition.spec.versions[0]
                .additional_printer_columns
                .as_ref()
                .is_some_and(|all| all.len() >= 4)
        );
    }
}
