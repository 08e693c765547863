//! From an event at GitLab to a PipelineRun, and back: the workflow that GitHub's events start, too.

use std::sync::Arc;

use serde_json::{Value, json};
use workflows_core::SystemClock;
use workflows_gitlab_standin::{Access, Instance, ProjectHandle};

use crate::{
    github::{WORKFLOW, name, run_at, until},
    platform::{ACME, Platform, condition, resource},
    world::TEAM,
};

const PROJECT: &str = "acme/platform/api";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A GitLab with a project whose webhook the controller registers.
async fn with_token(platform: &Platform, expires_at: Option<&str>) -> (Instance, ProjectHandle) {
    let gitlab = Instance::start(Arc::new(SystemClock));
    let project = gitlab.create_project(PROJECT);
    project.push("main", &[(".tekton/ci.yaml", WORKFLOW)]);
    project.set_access("alice", Some(Access::Developer));
    gitlab.set_group_access("acme", "bot", Some(Access::Maintainer));
    platform.secret("bot", "token", &gitlab.token("bot", &["api"], expires_at)).await;
    platform.secret("hook", "secret", SECRET).await;
    platform
        .connect(|spec| {
            *spec = json!({
                "driver": "gitlab", "url": gitlab.root(), "repositories": [PROJECT],
                "credentials": {"token": {"name": "bot", "key": "token"}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}, "register": "Repository"},
            });
        })
        .await;
    (gitlab, project)
}

/// Waits for a condition of the connection, and returns it.
async fn told(platform: &Platform, wanted: &str, status: &str) -> Value {
    platform
        .cluster
        .until(&format!("{wanted} to be {status}"), |cluster| {
            let object = cluster.object(&resource("ScmConnection"), TEAM, ACME)?;
            condition(&object, wanted).filter(|told| told["status"] == status)
        })
        .await
}

async fn shows(project: &ProjectHandle, commit: &str, state: &str) {
    until(&format!("{commit} to show {state}"), || {
        project.statuses(commit).iter().find(|one| one.state == state).map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_merge_request_becomes_a_status_a_run_and_its_end() {
    let platform = Platform::start().await;
    let (_gitlab, project) = with_token(&platform, None).await;
    told(&platform, "HooksRegistered", "True").await;
    told(&platform, "CredentialValid", "True").await;

    let alice = project.as_user("alice");
    let head = alice.push("topic", &[("a", "1")]);
    alice.open("Do it", "topic", "main");
    let run = platform.cluster.until("a run", |_| run_at(&platform, &head)).await;
    platform.tekton.start(TEAM, &name(&run));
    shows(&project, &head, "running").await;
    platform.tekton.end_step(TEAM, &name(&run), "test", "run", 0, "well\n");
    platform.tekton.finish(TEAM, &name(&run), true);
    shows(&project, &head, "success").await;

    // An outsider's waits for somebody who may.
    let mallory = project.as_user("mallory");
    let fork = mallory.fork();
    let head = fork.push("fix", &[("b", "1")]);
    let outside = mallory.open_from(&fork, "Trust me", "fix", "main");
    shows(&project, &head, "pending").await;
    assert!(run_at(&platform, &head).is_none());
    alice.note(outside, &format!("/ok-to-test {head}"));
    let approved = platform.cluster.until("the approved run", |_| run_at(&platform, &head)).await;
    platform.tekton.finish(TEAM, &name(&approved), false);
    shows(&project, &head, "failed").await;
    assert_eq!(platform.tekton.runs().len(), 2, "no run twice");

    platform.delete("scmconnections", ACME).await;
    let is_gone = || platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).is_none();
    platform.cluster.until("the connection to go", |_| is_gone().then_some(())).await;
    assert!(project.hooks().is_empty(), "it takes its webhook with it");
    platform.stop().await;
}

#[tokio::test]
async fn a_token_that_expires_soon_is_told_before() {
    let platform = Platform::start().await;
    let soon = jiff::Zoned::now().date() + jiff::Span::new().days(5);
    let (_gitlab, _project) = with_token(&platform, Some(&soon.to_string())).await;
    let told = told(&platform, "CredentialValid", "False").await;
    assert_eq!(told["reason"], "Expires");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains(&format!("expires on {soon}")), "{message}");
    platform.stop().await;
}
