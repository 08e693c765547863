//! What becomes of what people tell the engine over HTTP.

use serde_json::{Value, json};

use crate::{
    asker::{Asker, asked, eventually, platform},
    platform::{ACME, workflow},
    world::TEAM,
};

/// What a workflow's runs do in one group, one after another.
fn one_after_another(name: &str) -> Value {
    workflow(name, |spec| {
        spec["concurrency"] = json!([{"group": "staging", "strategy": "queue", "maxRunning": 1}]);
    })
}

#[tokio::test]
async fn queues_show_what_runs_and_waits_in_order_until_they_are_cleared() {
    let platform = platform().await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    platform.apply("workflows", &one_after_another("deploy")).await;
    platform.ready("Workflow", "deploy", "Registered").await;
    let alice = asked(&platform, "alices-token");
    let queues = format!("/v1/namespaces/{TEAM}/queues");
    assert_eq!(alice.get(&queues).await, (200, json!({"items": [], "incomplete": false})));
    let mut commits = Vec::new();
    for number in 1..=3 {
        let pushed = repo.push("alice", &format!("b{number}"), &[("a", &number.to_string())]);
        platform.hears(pushed).await;
        commits.push(repo.head(&format!("b{number}")).to_string());
        // Each is in the queue before the next comes.
        waits_for(&alice, &queues, number).await;
    }
    let (_, shown) = alice.get(&queues).await;
    let queue = &shown["items"][0];
    let running = keys(&queue["running"]);
    let waiting = keys(&queue["waiting"]);
    assert_eq!((running.len(), waiting.len()), (1, 2), "{shown}");
    let mut in_order = Vec::new();
    for key in running.iter().chain(&waiting) {
        let (_, run) = alice.get(&format!("/v1/namespaces/{TEAM}/runs/{key}")).await;
        in_order.push(run["commit"].as_str().unwrap().to_owned());
    }
    assert_eq!(in_order, commits);
    let group = queue["group"].as_str().unwrap();
    let (_, narrowed) = alice.get(&format!("{queues}?group={group}")).await;
    assert_eq!(narrowed, shown);
    let (_, other) = alice.get(&format!("{queues}?group=other")).await;
    assert_eq!(other["items"], json!([]));

    let (code, _) = alice.post(&format!("{queues}/clear"), json!({"group": group})).await;
    assert_eq!(code, 202);
    waits_for(&alice, &queues, 1).await;
    let (_, shown) = alice.get(&queues).await;
    assert_eq!(keys(&shown["items"][0]["running"]), running, "what runs is left alone");
    for key in waiting {
        let (_, run) = alice.get(&format!("/v1/namespaces/{TEAM}/runs/{key}")).await;
        assert_eq!(run["state"], "expired");
    }
    platform.stop().await;
}

fn keys(runs: &Value) -> Vec<String> {
    let runs = runs.as_array().unwrap();
    runs.iter().map(|run| run["key"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many runs are in queues.
async fn waits_for(asker: &Asker, queues: &str, runs: usize) {
    eventually(&format!("{runs} runs in queues"), async || {
        let (_, shown) = asker.get(queues).await;
        let all = shown["items"].as_array().unwrap().iter();
        let of = |queue: &Value| keys(&queue["running"]).len() + keys(&queue["waiting"]).len();
        (all.map(of).sum::<usize>() == runs).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_schedule_is_shown_and_runs_when_it_is_told_to() {
    let platform = platform().await;
    let repo = platform.scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    platform.connect(|_| {}).await;
    let nightly = workflow("nightly", |spec| {
        spec["repos"][0]["repo"] = json!("acme/api");
        spec["triggers"] = json!([{
            "name": "nightly", "on": "schedule",
            "schedule": {"cron": "0 3 * * *", "timeZone": "Europe/Paris", "ref": "main"},
        }]);
    });
    platform.apply("workflows", &nightly).await;
    platform.ready("Workflow", "nightly", "Registered").await;
    let alice = asked(&platform, "alices-token");
    let schedules = format!("/v1/namespaces/{TEAM}/schedules");
    let shown = eventually("the schedule to be shown", async || {
        let (code, shown) = alice.get(&schedules).await;
        assert_eq!(code, 200);
        (shown["items"].as_array()?.len() == 1).then(|| shown["items"][0].clone())
    })
    .await;
    assert_eq!((&shown["workflow"], &shown["trigger"]), (&json!("nightly"), &json!("nightly")));
    let now = json!({"workflow": "nightly", "trigger": "nightly"});
    let (code, event) = alice.post(&format!("{schedules}/run"), now).await;
    assert_eq!(code, 202, "{event}");
    let run = platform.run_of("nightly").await;
    let annotations = &run["metadata"]["annotations"];
    assert_eq!(annotations["workflows.tekton.dev/commit"], repo.head("main").as_str());
    platform.stop().await;
}

#[tokio::test]
async fn what_waits_for_an_approval_runs_when_it_is_approved() {
    let platform = platform().await;
    let repo = platform.scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    platform.connect(|_| {}).await;
    let ci = workflow("ci", |spec| {
        spec["triggers"] = json!([{"name": "pull-request", "on": "pull_request"}]);
    });
    platform.apply("workflows", &ci).await;
    platform.ready("Workflow", "ci", "Registered").await;
    let (number, opened) = repo.open_fork_pull_request("mallory", "main", &[("b", "1")]);
    platform.hears(opened).await;
    let head = repo.pull_request(number).head.sha;
    let (_, waits) =
        crate::controller::wait_for_status(&platform, &repo, &head, "workflows/ci").await;
    assert!(waits.contains("approv"), "{waits}");
    assert_eq!(platform.tekton.runs().len(), 0);
    let alice = asked(&platform, "alices-token");
    let approve = json!({
        "connection": ACME, "repository": "acme/api", "repositoryId": repo.reference().id.as_str(),
        "pullRequest": number, "head": head.as_str(),
    });
    let (code, _) = alice.post(&format!("/v1/namespaces/{TEAM}/approvals"), approve).await;
    assert_eq!(code, 202);
    let run = platform.run_of("ci").await;
    let annotations = &run["metadata"]["annotations"];
    assert_eq!(annotations["workflows.tekton.dev/commit"], head.as_str());
    platform.stop().await;
}

#[tokio::test]
async fn whether_a_notifier_works_can_be_tried() {
    let platform = platform().await;
    let notifier = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
        "metadata": {"name": "chat"}, "spec": {"type": "recorder", "settings": {"refuses": 1}},
    });
    platform.apply("notifiers", &notifier).await;
    platform.ready("Notifier", "chat", "InUse").await;
    let alice = asked(&platform, "alices-token");
    let test = |name: &str| format!("/v1/namespaces/{TEAM}/notifiers/{name}/test");
    let (code, told) = alice.post(&test("chat"), json!({})).await;
    assert_eq!((code, &told["delivered"]), (200, &json!(false)));
    assert!(told["problem"].as_str().unwrap().contains("the receiver refuses it"), "{told}");
    assert_eq!(alice.post(&test("chat"), json!({})).await, (200, json!({"delivered": true})));
    assert_eq!(platform.recorded(), [TEAM]);
    let (code, told) = alice.post(&test("pager"), json!({})).await;
    assert_eq!(code, 404);
    assert!(told["message"].as_str().unwrap().contains("chat"), "{told}");
    platform.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_shown_and_sent_again() {
    let platform = platform().await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    let notifier = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
        "metadata": {"name": "chat"}, "spec": {"type": "recorder", "settings": {"refuses": 1}},
    });
    platform.apply("notifiers", &notifier).await;
    let ci = workflow("ci", |spec| {
        spec["notify"] = json!([{"notifier": "chat", "on": ["succeeded"]}]);
    });
    platform.apply("workflows", &ci).await;
    platform.ready("Workflow", "ci", "Registered").await;
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    let run = platform.run_of("ci").await;
    platform.tekton.finish(TEAM, run["metadata"]["name"].as_str().unwrap(), true);
    let alice = asked(&platform, "alices-token");
    let notifications = format!("/v1/namespaces/{TEAM}/notifications");
    let of_state = async |state: &str| {
        let path = format!("{notifications}?state={state}");
        eventually(&format!("a notification to be {state}"), async || {
            let (code, shown) = alice.get(&path).await;
            assert_eq!(code, 200);
            shown["items"].as_array()?.first().cloned()
        })
        .await
    };
    let dead = of_state("dead").await;
    assert!(dead.to_string().contains("the receiver refuses it"), "{dead}");
    assert_eq!(platform.recorded().len(), 0);
    let resent = json!({"notification": dead["key"]});
    let (code, answer) = alice.post(&format!("{notifications}/resend"), resent).await;
    assert_eq!(code, 202, "{answer}");
    assert_eq!(of_state("delivered").await["key"], dead["key"]);
    assert_eq!(platform.recorded(), [TEAM]);
    platform.stop().await;
}
