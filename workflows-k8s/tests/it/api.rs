//! The engine over HTTP and JSON, asked by people whom the cluster knows.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;
use workflows_k8s::api::openapi;

use crate::{
    asker::{asked, platform},
    platform::{ACME, workflow},
    world::TEAM,
};

#[tokio::test]
async fn the_deployments_roles_let_people_do_what_is_theirs() {
    let platform = platform().await;
    let at = |rest: &str| format!("/v1/namespaces/{TEAM}/{rest}");
    let reads = ["runs", "events", "notifications", "schedules", "queues"];
    let edits = [
        ("runs", json!({"connection": ACME, "repository": "acme/api"})),
        ("runs/x/cancel", json!({})),
        ("workflows/ci/hold", json!({"reason": "freeze"})),
        ("workflows/ci/release", json!({})),
        ("schedules/run", json!({"workflow": "ci", "trigger": "nightly"})),
        ("simulate", simulation(json!({}), 1)),
    ];
    let administers = [
        ("queues/clear", json!({"group": "x"})),
        ("notifications/resend", json!({"notification": "x"})),
        ("notifiers/chat/test", json!({})),
        (
            "approvals",
            json!({"connection": ACME, "repository": "acme/api", "repositoryId": "1",
                   "pullRequest": 1, "head": "a".repeat(40)}),
        ),
    ];
    for (token, may_edit, may_administer) in
        [("carols-token", false, false), ("daves-token", true, false), ("alices-token", true, true)]
    {
        let asker = asked(&platform, token);
        for path in reads {
            assert_eq!(asker.get(&at(path)).await.0, 200, "{token} {path}");
        }
        for (may, commands) in [(may_edit, &edits[..]), (may_administer, &administers[..])] {
            for (path, body) in commands {
                let (code, answer) = asker.post(&at(path), body.clone()).await;
                assert_eq!(code != 403, may, "{token} {path}: {answer}");
            }
        }
        let (code, _) = asker.get("/v1/health").await;
        assert_eq!(code == 200, token == "alices-token", "{token}");
    }
    platform.stop().await;
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
    assert_eq!(paths.len(), 20);
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        assert!(description.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
