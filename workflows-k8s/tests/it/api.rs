//! The engine over HTTP and JSON, asked by people whom the cluster knows.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;
use workflows_k8s::api::{ClusterAccess, openapi, router};
use workflows_kube_standin::Subject;

use crate::{
    platform::{ACME, CONTROLLER, Platform, workflow},
    world::TEAM,
};

/// Somebody who asks.
struct Asker {
    router: Router,
    description: Value,
    token: &'static str,
}

impl Asker {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        if method == Method::POST {
            request = request.header("idempotency-key", "once");
        }
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let answer = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        self.hold(&method, path, code, &answer);
        (code, answer)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Holds an answer against the description.
    fn hold(&self, method: &Method, path: &str, code: u16, answer: &Value) {
        let path = path.split('?').next().unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let templates: Vec<&str> = template.split('/').collect();
            templates.len() == parts.len()
                && templates.iter().zip(&parts).all(|(one, two)| one.starts_with('{') || one == two)
        };
        let paths = self.description["paths"].as_object().unwrap();
        let mut described: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
        // The one with the fewest placeholders is meant.
        described.sort_by_key(|(template, _)| template.matches('{').count());
        let (template, methods) =
            described.first().unwrap_or_else(|| panic!("{path} is not described"));
        let answers = &methods[method.as_str().to_lowercase()]["responses"];
        let one = answers.get(code.to_string()).unwrap_or(&answers["default"]);
        if let Some(schema) = one["content"]["application/json"].get("schema") {
            let mut schema = schema.clone();
            schema["components"] = self.description["components"].clone();
            let validator = jsonschema::validator_for(&schema).unwrap();
            let wrong: Vec<String> = validator
                .iter_errors(answer)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(wrong.is_empty(), "{method} {template}: {wrong:?}\n{answer:#}");
            let mut missing = Vec::new();
            undescribed(&self.description, &schema, answer, "", &mut missing);
            assert_eq!(missing, [""; 0], "{method} {template}: not described");
        } else {
            assert!(answer.is_string(), "{method} {template} {code} is not described");
        }
    }
}

/// Fields that an answer has and its description has not.
fn undescribed(all: &Value, schema: &Value, value: &Value, at: &str, missing: &mut Vec<String>) {
    let mut schema = schema;
    while let Some(name) = schema["$ref"].as_str() {
        schema = all.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name}"));
    }
    match value {
        Value::Array(items) => {
            items.iter().for_each(|one| undescribed(all, &schema["items"], one, at, missing));
        }
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            for (name, value) in fields {
                match properties.get(name) {
                    Some(inner) => undescribed(all, inner, value, &format!("{at}/{name}"), missing),
                    None => missing.push(format!("{at}/{name}")),
                }
            }
        }
        _ => {}
    }
}

fn asked(platform: &Platform, token: &'static str) -> Asker {
    let client = platform.cluster.client_with(CONTROLLER);
    let access = Arc::new(ClusterAccess::new(client));
    Asker { router: router(platform.handle.clone(), access), description: openapi(), token }
}

/// A platform where alice may do everything in the team's namespace, and bob look at runs.
async fn platform() -> Platform {
    let platform = Platform::start().await;
    platform.cluster.token("alices-token", "alice", &["team-a-admins"]);
    platform.cluster.token("bobs-token", "bob", &[]);
    let all = json!({"apiGroups": ["workflows.tekton.dev"], "resources": ["*"], "verbs": ["*"]});
    let looks = json!({
        "apiGroups": ["workflows.tekton.dev"], "resources": ["runs"], "verbs": ["get", "list"],
    });
    let health = json!({"nonResourceURLs": ["/v1/health"], "verbs": ["get"]});
    let admins = || Subject::Group("team-a-admins".to_owned());
    platform.cluster.bind(admins(), Some(TEAM), &[all]);
    platform.cluster.bind(admins(), None, &[health]);
    platform.cluster.bind(Subject::User("bob".to_owned()), Some(TEAM), &[looks]);
    platform
}

#[tokio::test]
async fn runs_are_listed_by_repository_after_their_pipeline_runs_are_gone() {
    let platform = platform().await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    platform
        .apply(
            "workflows",
            &workflow("ci", |spec| {
                spec["triggers"] =
                    json!([{"name": "push", "on": "push"}, {"name": "never", "on": "tag"}]);
                spec["concurrency"] =
                    json!([{"group": "$(event.head.ref)", "strategy": "replace"}]);
            }),
        )
        .await;
    platform.ready("Workflow", "ci", "Registered").await;
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    let run = platform.run_of("ci").await;
    let name = run["metadata"]["name"].as_str().unwrap().to_owned();
    platform.tekton.start(TEAM, &name);
    platform.tekton.end_step(TEAM, &name, "build", "run", 0, "done\n");

    let alice = asked(&platform, "alices-token");
    let key = run["metadata"]["annotations"]["workflows.tekton.dev/run-key"].as_str().unwrap();
    let of_run = format!("/v1/namespaces/{TEAM}/runs/{key}");
    let (code, log) = alice.get(&format!("{of_run}/log?task=build&step=run")).await;
    assert_eq!((code, log.as_str().unwrap()), (200, "done\n"));

    platform.tekton.finish(TEAM, &name, true);
    let key_of_run = workflows_core::RunKey::from(key.to_owned());
    platform.handle.wait_for(&crate::world::tenant(), &key_of_run).await.unwrap();
    let runs = kube::Api::<kube::core::DynamicObject>::namespaced_with(
        platform.admin.clone(),
        TEAM,
        &kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "tekton.dev",
            "v1",
            "PipelineRun",
        )),
    );
    runs.delete(&name, &Default::default()).await.unwrap();
    assert_eq!(platform.tekton.runs().len(), 0);

    let all = format!("/v1/namespaces/{TEAM}/runs");
    let (code, listed) = alice.get(&format!("{all}?repository=acme/api")).await;
    assert_eq!(code, 200);
    assert_eq!(listed["items"][0]["state"], "succeeded");
    assert_eq!(listed["items"][0]["name"], name.as_str());
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let (_, listed) = alice.get(&format!("{all}?repository=acme/web")).await;
    assert_eq!(listed["items"], json!([]));
    let (_, listed) =
        alice.get(&format!("{all}?state=failed,succeeded&workflow=ci&trigger=push")).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let (code, whole) = alice.get(&of_run).await;
    assert_eq!((code, &whole["pipelineRun"]["kind"]), (200, &json!("PipelineRun")));

    let (code, events) = alice.get(&format!("/v1/namespaces/{TEAM}/events?kind=push")).await;
    assert_eq!((code, &events["items"][0]["kind"]), (200, &json!("push")));
    let (code, explained) = alice.get(&format!("/v1/namespaces/{TEAM}/explain?run={key}")).await;
    assert_eq!(code, 200);
    assert!(explained["text"].as_str().unwrap().contains("ci"), "{explained}");
    let (code, replayed) = alice
        .post(
            &format!("/v1/namespaces/{TEAM}/replay"),
            json!({"workflows": [workflow("candidate", |_| {})]}),
        )
        .await;
    assert_eq!(code, 200);
    assert_eq!(replayed[0]["wouldStart"], json!(["candidate/push"]));
    let would = json!({
        "connection": ACME, "repository": "acme/api", "repositoryId": repo.reference().id.as_str(),
        "sender": "alice", "changedFiles": ["src/main.rs"],
        "claim": {
            "subject": "ref", "name": "refs/heads/main", "after": repo.head("main").as_str(),
            "before": {"was": null},
        },
        "workflows": [
            workflow("candidate", |spec| spec["triggers"][0]["paths"] = json!({"include": ["src/**"]})),
            workflow("other", |spec| spec["triggers"][0]["paths"] = json!({"include": ["docs/**"]})),
        ],
    });
    let (code, simulated) = alice.post(&format!("/v1/namespaces/{TEAM}/simulate"), would).await;
    assert_eq!(code, 200, "{simulated}");
    assert_eq!(simulated["event"]["kind"], "push");
    assert_eq!(simulated["decisions"].as_array().unwrap().len(), 2);
    assert_eq!(simulated["runs"].as_array().unwrap().len(), 1);
    assert_eq!(simulated["runs"][0]["pipelineRun"]["kind"], "PipelineRun");
    assert_eq!(platform.tekton.runs().len(), 0, "nothing is created");
    let (code, schedules) = alice.get(&format!("/v1/namespaces/{TEAM}/schedules")).await;
    assert_eq!((code, &schedules["items"]), (200, &json!([])));
    let (code, notifications) =
        alice.get(&format!("/v1/namespaces/{TEAM}/notifications?state=dead")).await;
    assert_eq!((code, &notifications["items"]), (200, &json!([])));
    let (code, health) = alice.get("/v1/health").await;
    assert_eq!((code, &health["details"]["sinks"][0]["sink"]), (200, &json!("tekton")));
    platform.stop().await;
}

#[tokio::test]
async fn commands_are_carried_out_once_in_the_callers_name() {
    let platform = platform().await;
    let repo = platform.scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    platform.connect(|_| {}).await;
    platform
        .apply(
            "workflows",
            &workflow("ci", |spec| {
                spec["triggers"] = json!([{"name": "by-hand", "on": "manual"}]);
            }),
        )
        .await;
    platform.ready("Workflow", "ci", "Registered").await;
    let alice = asked(&platform, "alices-token");
    let runs = format!("/v1/namespaces/{TEAM}/runs");
    let wanted = json!({"connection": ACME, "repository": "acme/api", "params": {"x": "y"}});
    let (code, first) = alice.post(&runs, wanted.clone()).await;
    assert_eq!((code, &first["kind"]), (202, &json!("manual")));
    let (_, again) = alice.post(&runs, wanted).await;
    assert_eq!(first, again);
    let run = platform.run_of("ci").await;
    let key = run["metadata"]["annotations"]["workflows.tekton.dev/run-key"].as_str().unwrap();

    let (code, _) = alice.post(&format!("{runs}/{key}/cancel"), json!({"mode": "atOnce"})).await;
    assert_eq!(code, 202);
    let name = run["metadata"]["name"].as_str().unwrap();
    platform
        .cluster
        .until("the run to be told to end", |_| {
            (platform.tekton.run(TEAM, name)?["spec"]["status"] == "Cancelled").then_some(())
        })
        .await;
    platform.tekton.obey();
    let (code, _) = alice.ask(Method::POST, &format!("{runs}/{key}/rerun"), None).await;
    assert_eq!(code, 202);
    platform
        .cluster
        .until("another attempt", |_| (platform.tekton.runs().len() == 2).then_some(()))
        .await;

    let of_workflow = format!("/v1/namespaces/{TEAM}/workflows/ci");
    assert_eq!(
        alice.post(&format!("{of_workflow}/hold"), json!({"reason": "freeze"})).await.0,
        202
    );
    assert_eq!(alice.ask(Method::POST, &format!("{of_workflow}/release"), None).await.0, 202);
    let clear = format!("/v1/namespaces/{TEAM}/queues/clear");
    assert_eq!(alice.post(&clear, json!({"group": "team-a/x"})).await.0, 202);
    let resend = format!("/v1/namespaces/{TEAM}/notifications/resend");
    assert_eq!(alice.post(&resend, json!({"notification": "x"})).await.0, 202);
    let run_schedule = format!("/v1/namespaces/{TEAM}/schedules/run");
    let (code, failure) =
        alice.post(&run_schedule, json!({"workflow": "ci", "trigger": "by-hand"})).await;
    assert_eq!((code, &failure["reason"]), (404, &json!("notFound")));
    let approve = json!({
        "connection": ACME, "repository": "acme/api", "repositoryId": repo.reference().id.as_str(),
        "pullRequest": 1, "head": repo.head("main").as_str(),
    });
    assert_eq!(alice.post(&format!("/v1/namespaces/{TEAM}/approvals"), approve).await.0, 202);
    platform.stop().await;
}

#[tokio::test]
async fn who_may_do_what_is_for_the_cluster_to_say() {
    let platform = platform().await;
    let runs = format!("/v1/namespaces/{TEAM}/runs");
    let bob = asked(&platform, "bobs-token");
    assert_eq!(bob.get(&runs).await.0, 200);
    for (code, answer) in [
        bob.get(&format!("/v1/namespaces/{TEAM}/events")).await,
        bob.get("/v1/namespaces/team-b/runs").await,
        bob.get("/v1/health").await,
        bob.post(&runs, json!({"connection": ACME, "repository": "acme/api"})).await,
        bob.get(&format!("{runs}/x/log?task=a&step=b")).await,
        bob.post(&format!("/v1/namespaces/{TEAM}/simulate"), simulation(json!({}), 1)).await,
    ] {
        assert_eq!((code, &answer["reason"]), (403, &json!("forbidden")), "{answer}");
        assert!(answer["message"].as_str().unwrap().starts_with("bob may not "), "{answer}");
    }
    let nobody = asked(&platform, "no-token");
    let (code, answer) = nobody.get(&runs).await;
    assert_eq!((code, &answer["reason"]), (401, &json!("unauthorized")));
    assert!(!answer.to_string().contains("no-token"));
    // A cluster that does not answer lets nobody in.
    let alice = asked(&platform, "alices-token");
    platform.cluster.fail(
        "POST /apis/authorization.k8s.io",
        1,
        workflows_kube_standin::Fault::unavailable(),
    );
    assert_eq!(alice.get(&runs).await.0, 503);
    assert_eq!(alice.get(&runs).await.0, 200);
    platform.stop().await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told() {
    let platform = platform().await;
    let alice = asked(&platform, "alices-token");
    let at = |rest: &str| format!("/v1/namespaces/{TEAM}/{rest}");
    for (path, code) in [
        (at("runs?state=done"), 400),
        (at("runs?commit=abc"), 400),
        (at("runs/nope"), 404),
        (at("explain"), 400),
        (at("explain?event=nope"), 404),
    ] {
        let (found, answer) = alice.get(&path).await;
        assert_eq!(found, code, "{path}: {answer}");
    }
    let wrong = workflow("ci", |spec| spec["triggers"][0]["on"] = json!("schedule"));
    let (code, answer) = alice.post(&at("replay"), json!({"workflows": [wrong]})).await;
    assert_eq!(code, 400);
    assert!(
        answer["message"].as_str().unwrap().starts_with("workflows[0]: spec.triggers[0]"),
        "{answer}"
    );
    for (request, told) in [
        (simulation(json!({"subject": "tree"}), 1), "claim: unknown variant `tree`"),
        (simulation(json!({"subject": "nothing", "what": "star", "reason": "x"}), 1), "no event"),
        (simulation(a_push(), 0), "workflows: there is none"),
        (simulation(a_push(), 21), "workflows: there are 21, and at most 20 are taken"),
    ] {
        let (code, answer) = alice.post(&at("simulate"), request).await;
        assert_eq!(code, 400, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(told), "{answer}");
    }
    // Without the caller's key a command might be carried out twice.
    let request = Request::post(at("runs"))
        .header("authorization", "Bearer alices-token")
        .header("content-type", "application/json")
        .body(Body::from(r#"{"connection":"acme","repository":"acme/api"}"#))
        .unwrap();
    let response = alice.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
    platform.stop().await;
}

fn a_push() -> Value {
    json!({"subject": "ref", "name": "refs/heads/main", "after": "a".repeat(40), "before": {"was": null}})
}

/// A request to try out so many workflows.
fn simulation(claim: Value, workflows: usize) -> Value {
    let workflows: Vec<Value> =
        (0..workflows).map(|number| workflow(&format!("w{number}"), |_| {})).collect();
    json!({
        "connection": ACME, "repository": "acme/api", "repositoryId": "1", "claim": claim,
        "workflows": workflows,
    })
}

#[test]
fn every_route_has_its_description() {
    let description = openapi();
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 18);
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        assert!(description.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
