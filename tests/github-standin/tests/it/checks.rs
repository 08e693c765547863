//! Check runs and commit statuses.

use serde_json::{Value, json};

use crate::client::{Client, hub};

const RUNS: &str = "/repos/acme/api/check-runs";

#[tokio::test]
async fn only_the_app_that_made_a_check_changes_it() {
    let (hub, clock) = hub();
    let repo = hub.create_repo("acme/api");
    let head = repo.push("main", &[("a", "1")]);
    let (ours, theirs) = (hub.create_app("ours"), hub.create_app("theirs"));
    let now = workflows_core::Clock::now(&clock);
    let client = Client::of_installation(&hub, &ours, ours.install("acme"), now, json!({})).await;
    let made =
        client.post(RUNS, json!({ "name": "ci", "head_sha": head, "external_id": "run-1" })).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["status"], "queued");
    let path = format!("{RUNS}/{}", made.body["id"]);
    let other =
        Client::of_installation(&hub, &theirs, theirs.install("acme"), now, json!({})).await;
    assert_eq!(other.patch(&path, json!({ "status": "in_progress" })).await.status, 403);
    let person = Client::new(&hub, Some(&hub.token_of("acme")));
    let refused = person.post(RUNS, json!({ "name": "ci", "head_sha": head })).await;
    assert_eq!(refused.message(), "You must authenticate via a GitHub App.");

    let done = client.patch(&path, json!({ "conclusion": "success" })).await;
    assert_eq!(done.body["status"], "completed");
    let listed = client
        .get(&format!(
            "/repos/acme/api/commits/main/check-runs?check_name=ci&filter=all&app_id={}",
            ours.id()
        ))
        .await;
    assert_eq!(listed.body["total_count"], 1);
    assert_eq!(listed.body["check_runs"][0]["external_id"], "run-1");
    assert_eq!(repo.checks(&head)[0].conclusion.as_deref(), Some("success"));
}

#[tokio::test]
async fn what_github_refuses_is_refused() {
    let (hub, clock) = hub();
    let repo = hub.create_repo("acme/api");
    let head = repo.push("main", &[("a", "1")]);
    let app = hub.create_app("ours");
    let now = workflows_core::Clock::now(&clock);
    let client = Client::of_installation(&hub, &app, app.install("acme"), now, json!({})).await;
    let note = |lines: (u32, u32)| {
        json!({
            "path": "a", "start_line": lines.0, "end_line": lines.1,
            "annotation_level": "failure", "message": "no",
        })
    };
    let output = |more: Value| {
        let mut output = json!({ "title": "t", "summary": "s" });
        output.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "name": "ci", "head_sha": head, "output": output })
    };
    let button = |label: &str| {
        let action = json!({ "label": label, "description": "d", "identifier": "i" });
        json!({ "name": "ci", "head_sha": head, "actions": vec![action; 4] })
    };
    let refused = [
        json!({ "name": "ci", "head_sha": head, "status": "completed" }),
        json!({ "name": "ci", "head_sha": "0".repeat(40) }),
        json!({ "name": "ci", "head_sha": head, "status": "waiting" }),
        output(json!({ "text": "x".repeat(65_536) })),
        output(json!({ "annotations": vec![note((1, 1)); 51] })),
        output(json!({ "annotations": [note((2, 1))] })),
        button("a label that is far too long"),
        button("short, but four"),
    ];
    for body in refused {
        let answer = client.post(RUNS, body.clone()).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
    }
    // Those that the description refuses too were noted.
    hub.take_problems();
    assert!(repo.checks(&head).is_empty());
    let accepted =
        client.post(RUNS, output(json!({ "annotations": vec![note((1, 1)); 50] }))).await;
    assert_eq!(accepted.status, 201);
    assert_eq!(accepted.body["output"]["annotations_count"], 50);
}

#[tokio::test]
async fn statuses_have_their_limits() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let head = repo.push("main", &[("a", "1")]);
    let client = Client::new(&hub, Some(&hub.token_of("acme")));
    let path = format!("/repos/acme/api/statuses/{head}");
    let long = json!({ "state": "pending", "context": "ci", "description": "x".repeat(141) });
    assert_eq!(client.post(&path, long).await.status, 422);
    let status = |state: &str| json!({ "state": state, "context": "ci", "description": "d" });
    assert_eq!(client.post(&path, status("pending")).await.status, 201);
    assert_eq!(client.post(&path, status("success")).await.status, 201);
    let combined = client.get("/repos/acme/api/commits/main/status").await;
    assert_eq!(combined.body["state"], "success");
    assert_eq!(combined.body["total_count"], 1);
    let all = client.get(&format!("/repos/acme/api/commits/{head}/statuses")).await;
    assert_eq!(all.body[0]["state"], "success", "the newest comes first");
    let outsider = Client::new(&hub, Some(&hub.token_of("mallory")));
    assert_eq!(outsider.post(&path, status("success")).await.status, 403);
}
