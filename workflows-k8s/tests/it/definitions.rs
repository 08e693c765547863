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
    cluster.define().await;
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

/// The documents of a directory of this crate's tests, by their names.
fn documents(directory: &str) -> Vec<(PathBuf, String, Value)> {
    let all = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let document = serde_saphyr::from_str(&text).unwrap();
        (file, text, document)
    };
    files.into_iter().map(read).collect()
}

fn plural(document: &Value) -> &'static str {
    match document["kind"].as_str().unwrap() {
        "Workflow" => "workflows",
        "ScmConnection" => "scmconnections",
        "Notifier" => "notifiers",
        "Policy" => "policies",
        other => panic!("{other}"),
    }
}

/// What stands above each document is what a real API server said, word for word. Set
/// `UPDATE_REFUSED`, and `WORKFLOWS_TEST_KUBECONFIG` to one, to write it anew.
#[tokio::test]
async fn wrong_documents_are_refused_in_the_words_of_a_real_server() {
    let (_cluster, client) = cluster().await;
    let update = std::env::var_os("UPDATE_REFUSED").is_some();
    let is_real = std::env::var_os("WORKFLOWS_TEST_KUBECONFIG").is_some();
    assert!(is_real || !update, "only the words of a real server are written down");
    let mut wrong = Vec::new();
    let documents = documents("refused");
    assert_eq!(documents.len(), 43);
    for (file, text, document) in documents {
        let said = match apply(&client, plural(&document), &document).await {
            Err(said) => format!("# {said}\n"),
            Ok(_) => format!("{} was accepted", file.display()),
        };
        let body: String =
            text.split_inclusive('\n').filter(|line| !line.starts_with("# ")).collect();
        if update && said.starts_with("# ") {
            std::fs::write(&file, format!("{said}{body}")).unwrap();
        } else if text != format!("{said}{body}") {
            wrong.push(format!("{}: {said}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn right_documents_are_accepted() {
    let (_cluster, client) = cluster().await;
    let documents = documents("accepted");
    assert_eq!(documents.len(), 5);
    for (file, _, document) in documents {
        let kept = apply(&client, plural(&document), &document).await;
        let kept = kept.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for (name, value) in document["spec"].as_object().unwrap() {
            let kept = &kept["spec"][name];
            // Defaults come in beside what was said.
            assert!(is_within(value, kept), "{}: {name} became {kept}", file.display());
        }
    }
}

/// Whether all that was said is there.
fn is_within(said: &Value, kept: &Value) -> bool {
    match (said, kept) {
        (Value::Object(said), Value::Object(kept)) => said
            .iter()
            .all(|(name, value)| kept.get(name).is_some_and(|kept| is_within(value, kept))),
        (Value::Array(said), Value::Array(kept)) => {
            said.len() == kept.len() && said.iter().zip(kept).all(|(one, two)| is_within(one, two))
        }
        _ => said == kept,
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
async fn connections_have_defaults() {
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
