//! From an event at GitHub to a PipelineRun, and back: between a stand-in for GitHub and one for the
//! cluster.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use workflows_core::SystemClock;
use workflows_github_standin::{Hub, RepoHandle, Role};

use crate::{
    platform::{ACME, Platform, resource},
    world::TEAM,
};

pub(crate) const WORKFLOW: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers: [{ name: pull-request, on: pull_request }]
  params: [{ name: revision, value: $(event.head.sha) }]
  pipelineSpec:
    params: [{ name: revision }]
    tasks:
    - name: test
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
  concurrency: [{ group: $(event.pull_request.number), strategy: replace }]
";

/// Waits for what a host comes to show.
pub(crate) async fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "it did not become so in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn conclusion(repo: &RepoHandle, commit: &str, wanted: &str) {
    until(&format!("{commit} to show {wanted}"), || {
        let checks = repo.checks(commit);
        checks.last().filter(|check| check.conclusion.as_deref() == Some(wanted)).map(drop)
    })
    .await;
}

/// A GitHub with an App that delivers to the platform, and a connection to it.
async fn with_app(platform: &Platform) -> (Hub, RepoHandle) {
    let hub = Hub::start(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    repo.set_role("alice", Some(Role::Write));
    repo.push("main", &[(".tekton/ci.yaml", WORKFLOW)]);
    let app = hub.create_app("ci");
    app.install("acme");
    app.hook(&format!("{}/hooks/{TEAM}/{ACME}", platform.hooks), "h00k");
    platform.secret("app", "key", app.private_key()).await;
    platform.secret("hook", "secret", "h00k").await;
    let id = app.id();
    platform
        .connect(|spec| {
            *spec = json!({
                "driver": "github", "url": hub.api(), "repositories": ["acme/*"],
                "credentials": {"app": {"id": id, "privateKey": {"name": "app", "key": "key"}}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}},
            });
        })
        .await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    (hub, repo)
}

pub(crate) fn run_at(platform: &Platform, commit: &str) -> Option<Value> {
    let is_at = |run: &&Value| run["spec"]["params"][0]["value"] == commit;
    platform.tekton.runs().iter().find(is_at).cloned()
}

pub(crate) fn name(run: &Value) -> String {
    run["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pull_request_becomes_a_check_a_run_and_a_conclusion() {
    let platform = Platform::start().await;
    let (_hub, repo) = with_app(&platform).await;
    let status =
        platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).unwrap()["status"].clone();
    assert_eq!(status["webhookUrl"], format!("{}/hooks/{TEAM}/{ACME}", platform.hooks));

    repo.push("topic", &[("a", "1")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    let first = repo.head_of(number);
    let run = platform.cluster.until("a run", |_| run_at(&platform, &first)).await;
    assert_eq!(run["metadata"]["namespace"], TEAM);
    let git = format!("{}-git", name(&run));
    let secrets = workflows_kube_standin::Resource::namespaced("", "v1", "Secret", "secrets")
        .without_status();
    assert!(
        platform.cluster.object(&secrets, TEAM, &git).is_some(),
        "it has a credential to clone with"
    );
    platform.tekton.start(TEAM, &name(&run));
    until("the check to be in progress", || {
        repo.checks(&first).last().filter(|check| check.status == "in_progress").map(drop)
    })
    .await;

    // A newer head takes its place.
    repo.as_user("alice").push("topic", &[("a", "2")]);
    let second = repo.head_of(number);
    let newer = platform.cluster.until("a newer run", |_| run_at(&platform, &second)).await;
    platform
        .cluster
        .until("the older one to be told to end", |_| {
            platform.tekton.run(TEAM, &name(&run))?["spec"]["status"].as_str().map(drop)
        })
        .await;
    platform.tekton.obey();
    conclusion(&repo, &first, "cancelled").await;
    // Tekton says in whole seconds when it ended, and that may be before the order in the same one.
    let ended = workflows_core::store::RunQuery::of(crate::world::tenant())
        .commit(Some(first.parse().unwrap()));
    let ended = platform.handle.runs(ended).await.unwrap().items;
    assert_eq!(ended[0].state, workflows_core::RunState::Superseded);
    platform.tekton.start(TEAM, &name(&newer));
    platform.tekton.end_step(TEAM, &name(&newer), "test", "run", 0, "well\n");
    platform.tekton.finish(TEAM, &name(&newer), true);
    conclusion(&repo, &second, "success").await;

    // An outsider's waits for somebody who may.
    let fork = repo.as_user("mallory").fork();
    fork.push("fix", &[("b", "1")]);
    let outside = repo.as_user("mallory").open_pull_request("Trust me", "mallory:fix", "main");
    let head = repo.head_of(outside);
    conclusion(&repo, &head, "action_required").await;
    assert!(run_at(&platform, &head).is_none());
    repo.as_user("alice").comment(outside, &format!("/ok-to-test {head}"));
    let approved = platform.cluster.until("the approved run", |_| run_at(&platform, &head)).await;
    platform.tekton.finish(TEAM, &name(&approved), false);
    conclusion(&repo, &head, "failure").await;
    assert_eq!(platform.tekton.runs().len(), 3, "no run twice");
    platform.stop().await;
}

#[tokio::test]
async fn admission_that_fails_and_a_server_that_is_away_lose_nothing() {
    let platform = Platform::start().await;
    let (_hub, repo) = with_app(&platform).await;
    let down = workflows_kube_standin::Refusal::webhook_is_down("webhook.pipeline.tekton.dev");
    platform.cluster.fail("POST /apis/tekton.dev", 2, workflows_kube_standin::Fault::Refused(down));
    platform.cluster.fail("GET /apis/tekton.dev", 2, workflows_kube_standin::Fault::unavailable());
    repo.push("topic", &[("a", "1")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    let head = repo.head_of(number);
    let run = platform.cluster.until("a run in spite of all", |_| run_at(&platform, &head)).await;
    platform.tekton.finish(TEAM, &name(&run), true);
    conclusion(&repo, &head, "success").await;
    assert_eq!(platform.tekton.runs().len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_is_started_anew_loses_nothing() {
    let platform = Platform::stand_in("its server is ended and started").await;
    let (hub, repo) = with_app(&platform).await;
    repo.push("topic", &[("a", "1")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    let first = repo.head_of(number);
    let run = platform.cluster.until("a run", |_| run_at(&platform, &first)).await;
    platform.tekton.start(TEAM, &name(&run));

    // It ends in the midst of a create that it has heard of and not done.
    let of_run = format!("/apis/tekton.dev/v1/namespaces/{TEAM}/pipelineruns");
    let creates = || {
        let requests = platform.cluster.requests();
        let is_one =
            |(method, path): &&(String, String)| method == "POST" && path.contains(&of_run);
        requests.iter().filter(is_one).count()
    };
    let before = creates();
    let for_ever = workflows_kube_standin::Fault::Slow(Duration::from_secs(3600));
    platform.cluster.fail(&format!("POST {of_run}"), 1, for_ever);
    repo.as_user("alice").push("topic", &[("a", "2")]);
    let second = repo.head_of(number);
    until("a create of the second head's", || (creates() > before).then_some(())).await;
    platform.cluster.go_down();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let health = platform.handle.health().await.unwrap();
        if health.problems().iter().any(|one| one.starts_with("stage dispatch")) {
            break;
        }
        let now = tokio::time::Instant::now();
        assert!(now < deadline, "the server is not missed: {:?}", health.problems());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What is delivered meanwhile is taken in: the secret was read before.
    repo.push("other", &[("b", "1")]);
    let other = repo.as_user("alice").open_pull_request("Do that", "other", "main");
    hub.settle().await;
    let opened = hub.deliveries().into_iter().rev().find(|one| one.event == "pull_request");
    let opened = opened.expect("GitHub tells of it");
    assert!(opened.body.contains(&repo.head_of(other)));
    assert!(opened.status.is_some_and(|code| code < 300), "{:?}", opened.status);
    platform.cluster.come_back();

    let newer = platform.cluster.until("a newer run", |_| run_at(&platform, &second)).await;
    platform
        .cluster
        .until("the older one to be told to end", |_| {
            platform.tekton.run(TEAM, &name(&run))?["spec"]["status"].as_str().map(drop)
        })
        .await;
    platform.tekton.obey();
    conclusion(&repo, &first, "cancelled").await;
    platform.tekton.finish(TEAM, &name(&newer), true);
    conclusion(&repo, &second, "success").await;
    let of_other = platform
        .cluster
        .until("a run of what was delivered meanwhile", |_| run_at(&platform, &repo.head_of(other)))
        .await;
    platform.tekton.finish(TEAM, &name(&of_other), true);
    conclusion(&repo, &repo.head_of(other), "success").await;
    assert_eq!(platform.tekton.runs().len(), 3);
    // What is applied counts again, though the watches began before what the server remembers.
    platform.apply("workflows", &crate::platform::workflow("late", |_| {})).await;
    assert!(platform.ready("Workflow", "late", "Registered").await.0);
    platform.stop().await;
}

#[tokio::test]
async fn a_storm_of_conflicts_passes() {
    let platform = Platform::start().await;
    let (_hub, repo) = with_app(&platform).await;
    repo.push("topic", &[("a", "1")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    let first = repo.head_of(number);
    let run = platform.cluster.until("a run", |_| run_at(&platform, &first)).await;
    let runs = workflows_kube_standin::Resource::namespaced(
        "tekton.dev",
        "v1",
        "PipelineRun",
        "pipelineruns",
    );
    let modified = |of: &workflows_kube_standin::Resource, name: &str| {
        let refusal = workflows_kube_standin::Refusal::modified(of, name);
        workflows_kube_standin::Fault::Refused(refusal)
    };
    // More than are tried in one go.
    let of_run = format!("PATCH /apis/tekton.dev/v1/namespaces/{TEAM}/pipelineruns");
    platform.cluster.fail(&of_run, 7, modified(&runs, &name(&run)));
    let of_status =
        format!("PATCH /apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/workflows");
    platform.cluster.fail(&of_status, 7, modified(&resource("Workflow"), "late"));
    repo.as_user("alice").push("topic", &[("a", "2")]);
    let late = crate::platform::workflow("late", |spec| spec["triggers"][0]["on"] = json!("tag"));
    platform.apply("workflows", &late).await;
    let second = repo.head_of(number);
    let newer = platform.cluster.until("a newer run", |_| run_at(&platform, &second)).await;
    platform
        .cluster
        .until("the older one to be told to end", |_| {
            platform.tekton.run(TEAM, &name(&run))?["spec"]["status"].as_str().map(drop)
        })
        .await;
    platform.tekton.obey();
    conclusion(&repo, &first, "cancelled").await;
    platform.tekton.finish(TEAM, &name(&newer), true);
    conclusion(&repo, &second, "success").await;
    assert!(platform.ready("Workflow", "late", "Registered").await.0);
    assert_eq!(platform.tekton.runs().len(), 2);
    platform.stop().await;
}

#[tokio::test]
async fn what_a_policy_refuses_is_a_check_that_is_concluded() {
    let platform = Platform::start().await;
    let (_hub, repo) = with_app(&platform).await;
    let asks = format!("{WORKFLOW}  serviceAccountName: deploy\n");
    repo.push("topic", &[(".tekton/ci.yaml", &asks)]);
    let number = repo.as_user("alice").open_pull_request("More", "topic", "main");
    let head = repo.head_of(number);
    conclusion(&repo, &head, "failure").await;
    let checks = repo.checks(&head);
    let shown = format!("{:?}", checks.last().unwrap());
    assert!(shown.contains("the built-in policy: a workflow of a repository asks for"), "{shown}");
    assert!(shown.contains("spec.inRepository.serviceAccounts"), "{shown}");
    assert_eq!(checks.last().unwrap().status, "completed");
    assert_eq!(platform.tekton.runs().len(), 0);
    platform.stop().await;
}

#[tokio::test]
async fn deliveries_that_are_not_signed_or_for_nobody_are_refused() {
    let platform = Platform::start().await;
    let (_hub, _repo) = with_app(&platform).await;
    let client = platform.cluster.client();
    drop(client);
    let post = async |path: &str| {
        let address = platform.hooks.trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-github-event: push\r\nx-hub-signature-256: sha256=00\r\n\
             content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(post(&format!("/hooks/{TEAM}/{ACME}")).await, "401");
    assert_eq!(post(&format!("/hooks/{TEAM}/nobody")).await, "404");
    assert_eq!(post("/hooks/team-b/acme").await, "404");
    assert_eq!(platform.tekton.runs().len(), 0);
    platform.stop().await;
}

/// The lines of a document that say something.
fn lines(text: &str) -> usize {
    let says = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "---"
    };
    text.lines().filter(says).count()
}

#[tokio::test]
async fn the_proposals_event_listener_is_a_workflow_of_less_than_half_the_length() {
    let before = include_str!("../../../docs/migrating/eventlistener.yaml");
    let once = include_str!("../../../docs/migrating/connection.yaml");
    let after = include_str!("../../../docs/migrating/workflow.yaml");
    assert_eq!((lines(before), lines(after), lines(once)), (125, 53, 18));

    let platform = Platform::stand_in("its task comes from Tekton Hub").await;
    let hub = Hub::start(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    let app = hub.create_app("ci");
    app.install("acme");
    app.hook(&format!("{}/hooks/{TEAM}/{ACME}", platform.hooks), "h00k");
    platform.secret("github-app-key", "private-key.pem", app.private_key()).await;
    platform.secret("github-secret", "secretToken", "h00k").await;
    let mut connection: Value = serde_saphyr::from_str(once).unwrap();
    connection["spec"]["credentials"]["app"]["id"] = app.id().into();
    connection["spec"]["url"] = hub.api().into();
    platform.apply("scmconnections", &connection).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    platform.apply("workflows", &serde_saphyr::from_str(after).unwrap()).await;
    platform.ready("Workflow", "ci", "Registered").await;

    let commit = repo.push("main", &[("a", "1")]);
    let run = platform.run_of("ci").await;
    let params = json!([
        {"name": "repo-url", "value": format!("{}/acme/api.git", hub.root())},
        {"name": "revision", "value": commit},
    ]);
    assert_eq!(run["spec"]["params"], params);
    assert_eq!(run["spec"]["taskRunTemplate"]["serviceAccountName"], "container-registry-sa");
    let tasks = run["spec"]["pipelineSpec"]["tasks"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().map(|task| task["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["clone", "tests"], "nothing of it is about GitHub");
    platform.tekton.finish(TEAM, &name(&run), true);
    conclusion(&repo, &commit, "success").await;
    platform.stop().await;
}
