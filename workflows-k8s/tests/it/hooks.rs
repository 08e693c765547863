//! Hooks at repositories of GitHub, which the controller registers, looks after and removes.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use workflows_core::{SystemClock, engine::EngineBuilder};
use workflows_github_standin::{Fault, Hub, RepoHandle, Role};

use crate::{
    github::{WORKFLOW, name, run_at},
    platform::{ACME, CONTROLLER, Platform, condition, resource, with_pipeline_runs},
    world::TEAM,
};

const LOG: &str = "GET /repos/{owner}/{repo}/hooks/{hook_id}/deliveries";

#[tokio::test]
async fn what_a_hook_could_not_deliver_is_found_in_its_log() {
    let cluster = workflows_kube_standin::Cluster::start().await;
    let (cluster, tekton) = Platform::prepared(cluster).await;
    let ledger = Arc::new(workflows_core::store::MemoryStore::new(Arc::new(SystemClock)));
    let started = async || {
        let pipeline_runs = with_pipeline_runs(
            &cluster.client_with(CONTROLLER),
            workflows_k8s::Namespaces::same_name(),
        );
        let scm = workflows_core::conformance::ScriptedScm::new();
        let ledger = Arc::clone(&ledger);
        let engine = move |engine: EngineBuilder| pipeline_runs(engine).store(ledger);
        Platform::with(cluster.clone(), tekton.clone(), scm, |all| all, engine).await
    };
    let platform = started().await;
    let (hub, repo) = with_token(&platform).await;
    // It ends before the log could be read once.
    hub.fail(LOG, u32::MAX, Fault::Status(502));
    hooks_registered(&platform, true).await;
    platform.stop().await;

    repo.set_role("alice", Some(Role::Write));
    repo.push("topic", &[("a", "1")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    let head = repo.head_of(number);
    hub.settle().await;
    hub.mend();
    let platform = started().await;
    platform.cluster.until("a run for what was missed", |_| run_at(&platform, &head)).await;
    platform.stop().await;
}

/// Waits until a source whose name, or what it looks at, contains this got through once.
async fn looked_at(platform: &Platform, text: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let health = platform.handle.health().await.unwrap();
        let mut of_text = health
            .sources
            .iter()
            .filter(|one| format!("{} {}", one.source, one.what).contains(text));
        if of_text.any(|one| one.progress.successes > 0) {
            return;
        }
        let now = tokio::time::Instant::now();
        assert!(now < deadline, "{text} was not looked at: {:?}", health.sources);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_does_not_lead_leaves_the_host_alone() {
    let cluster = workflows_kube_standin::Cluster::start().await;
    let (cluster, tekton) = Platform::prepared(cluster).await;
    let (leads, leader) = tokio::sync::watch::channel(false);
    let client = cluster.client_with(CONTROLLER);
    let pipeline_runs = with_pipeline_runs(&client, workflows_k8s::Namespaces::same_name());
    let scm = workflows_core::conformance::ScriptedScm::new();
    let platform = Platform::with(
        cluster,
        tekton,
        scm,
        |controller| controller.leader(leader.clone()),
        |engine| pipeline_runs(engine).leader(leader.clone()),
    )
    .await;
    let (hub, repo) = with_token(&platform).await;
    platform
        .connect(|spec| {
            *spec = json!({
                "driver": "github", "url": hub.api(), "repositories": ["acme/api"],
                "credentials": {"token": {"name": "bot", "key": "token"}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}, "register": "Repository"},
                "poll": {"interval": "1s"},
            });
        })
        .await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    // It does what every replica does: a run that somebody asks for comes to its end.
    let by_hand = crate::platform::workflow("by-hand", |spec| {
        spec["repos"][0]["repo"] = json!("acme/api");
        spec["triggers"] = json!([{"name": "by-hand", "on": "manual"}]);
    });
    platform.apply("workflows", &by_hand).await;
    platform.ready("Workflow", "by-hand", "Registered").await;
    let submission = workflows_core::engine::Submission::new(ACME, "acme/api", "1", "bob")
        .in_tenant(crate::world::tenant());
    platform.handle.submit(submission).await.unwrap();
    let run = platform.run_of("by-hand").await;
    platform.tekton.finish(TEAM, &name(&run), true);
    let key = run["metadata"]["annotations"]["workflows.tekton.dev/run-key"].as_str().unwrap();
    let key = workflows_core::RunKey::from(key.to_owned());
    platform.handle.wait_for(&crate::world::tenant(), &key).await.unwrap();
    assert_eq!(hub.count("* */hooks*"), 0);
    assert_eq!(repo.hooks(), [""; 0]);
    let health = platform.handle.health().await.unwrap();
    let looked_at_now: Vec<&str> = health.sources.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(looked_at_now, [""; 0]);
    let object = platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).unwrap();
    assert_eq!(object["metadata"]["finalizers"], Value::Null);

    leads.send_replace(true);
    hooks_registered(&platform, true).await;
    looked_at(&platform, "log/acme/api").await;
    looked_at(&platform, "team-a/acme:acme/api").await;
    assert_eq!(repo.hooks().len(), 1);
    platform.stop().await;
}

/// A GitHub that is reached with a token, and hooks at whose repositories the controller registers.
async fn with_token(platform: &Platform) -> (Hub, RepoHandle) {
    let hub = Hub::start(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    repo.set_role("ci-bot", Some(Role::Admin));
    repo.push("main", &[(".tekton/ci.yaml", WORKFLOW)]);
    platform.secret("bot", "token", &hub.token_of("ci-bot")).await;
    platform.secret("hook", "secret", "h00k").await;
    platform
        .connect(|spec| {
            *spec = json!({
                "driver": "github", "url": hub.api(), "repositories": ["acme/api"],
                "credentials": {"token": {"name": "bot", "key": "token"}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}, "register": "Repository"},
            });
        })
        .await;
    (hub, repo)
}

async fn hooks_registered(platform: &Platform, holds: bool) -> String {
    platform
        .cluster
        .until("hooks to be registered", |cluster| {
            let object = cluster.object(&resource("ScmConnection"), TEAM, ACME)?;
            let told = condition(&object, "HooksRegistered")?;
            (told["status"] == if holds { "True" } else { "False" })
                .then(|| told["message"].as_str().unwrap().to_owned())
        })
        .await
}

fn is_there(platform: &Platform) -> Option<()> {
    platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).map(drop)
}

#[tokio::test]
async fn a_connection_registers_its_hooks_and_takes_them_with_it() {
    let platform = Platform::start().await;
    let (_hub, repo) = with_token(&platform).await;
    hooks_registered(&platform, true).await;
    assert_eq!(repo.hooks(), [format!("{}/hooks/{TEAM}/{ACME}", platform.hooks)]);
    let object = platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).unwrap();
    assert_eq!(object["status"]["hooks"], json!(["acme/api"]));
    assert_eq!(object["metadata"]["finalizers"], json!(["workflows.tekton.dev/webhooks"]));

    // What is delivered there counts.
    repo.set_role("alice", Some(Role::Write));
    repo.push("topic", &[("a", "1")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    let head = repo.head_of(number);
    platform.cluster.until("a run", |_| run_at(&platform, &head)).await;

    platform.delete("scmconnections", ACME).await;
    platform
        .cluster
        .until("the connection to go", |_| is_there(&platform).is_none().then_some(()))
        .await;
    assert_eq!(repo.hooks(), [""; 0]);
    platform.stop().await;
}

#[tokio::test]
async fn a_connection_whose_host_is_away_goes_all_the_same() {
    let platform = Platform::stand_in("the time of its server is moved").await;
    let (hub, repo) = with_token(&platform).await;
    hooks_registered(&platform, true).await;
    hub.fail("* *", u32::MAX, Fault::Status(503));
    // It was deleted a while ago, when nobody looked.
    let past = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10);
    platform.cluster.clock(move || past);
    platform.delete("scmconnections", ACME).await;
    platform
        .cluster
        .until("the connection to go", |_| is_there(&platform).is_none().then_some(()))
        .await;
    assert_eq!(repo.hooks().len(), 1, "the hook stays, and is refused");
    platform.stop().await;
}

#[tokio::test]
async fn one_repository_does_not_use_up_the_patience_for_all() {
    let platform = Platform::stand_in("the time of its server is moved").await;
    let hub = Hub::start(Arc::new(SystemClock));
    let stuck = hub.create_repo("acme/a-stuck");
    let well = hub.create_repo("acme/b-well");
    for repo in [&stuck, &well] {
        repo.set_role("ci-bot", Some(Role::Admin));
        repo.push("main", &[("a", "1")]);
    }
    platform.secret("bot", "token", &hub.token_of("ci-bot")).await;
    platform.secret("hook", "secret", "h00k").await;
    platform
        .connect(|spec| {
            *spec = json!({
                "driver": "github", "url": hub.api(), "repositories": ["acme/a-stuck", "acme/b-well"],
                "credentials": {"token": {"name": "bot", "key": "token"}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}, "register": "Repository"},
            });
        })
        .await;
    hooks_registered(&platform, true).await;
    hub.fail("* *a-stuck*", u32::MAX, Fault::Status(503));
    let past = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10);
    platform.cluster.clock(move || past);
    platform.delete("scmconnections", ACME).await;
    platform
        .cluster
        .until("the connection to go", |_| is_there(&platform).is_none().then_some(()))
        .await;
    assert_eq!((stuck.hooks().len(), well.hooks().len()), (1, 0));
    platform.stop().await;
}

#[tokio::test]
async fn hooks_that_cannot_be_registered_are_told() {
    let platform = Platform::start().await;
    let hub = Hub::start(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    repo.set_role("ci-bot", Some(Role::Write));
    platform.secret("bot", "token", &hub.token_of("ci-bot")).await;
    platform.secret("hook", "secret", "h00k").await;
    platform
        .connect(|spec| {
            *spec = json!({
                "driver": "github", "url": hub.api(), "repositories": ["acme/api"],
                "credentials": {"token": {"name": "bot", "key": "token"}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}, "register": "Repository"},
            });
        })
        .await;
    let message = hooks_registered(&platform, false).await;
    assert!(message.contains("1 of 1 repositories have none"), "{message}");
    assert!(message.contains("acme/api"), "{message}");
    platform.stop().await;
}
