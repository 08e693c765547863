//! A GitLab on loopback, a project in a subgroup, and people who work there.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::net::TcpListener;
use workflows::{
    ScmDriver, SystemClock,
    core::repo::Webhook,
    scm::{
        gitlab::{GitLabCredentials, GitLabDriver},
        webhook::{WebhookReceiver, webhook_router},
    },
};
use workflows_gitlab_standin::{Access, Instance, ProjectHandle};

use crate::{CONNECTION, composition::Running};

const PROJECT: &str = "acme/platform/api";
/// Signs deliveries.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// The very document that the example for GitHub shows.
const WORKFLOW: &str = r#"
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers:
  - { name: pull-request, on: pull_request }
  params:
  - { name: revision, value: $(event.head.sha) }
  pipelineSpec:
    params: [{ name: revision }]
    tasks:
    - name: test
      params: [{ name: revision, value: $(params.revision) }]
      taskSpec:
        params: [{ name: revision }]
        steps:
        - name: run
          image: none
          env: [{ name: REVISION, value: $(params.revision) }]
          script: |
            echo "testing $REVISION"
  notify:
  - { notifier: terminal, on: [started, succeeded, failed] }
"#;
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows it.
pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let state = tempfile::Builder::new().prefix("workflows-gitlab-").tempdir()?;
    let gitlab = Instance::start(Arc::new(SystemClock));
    let project = gitlab.create_project(PROJECT);
    project.push("main", &[("README.md", "# API\n"), (".tekton/ci.yaml", WORKFLOW)]);
    project.set_access("alice", Some(Access::Developer));
    gitlab.set_group_access("acme", "bot", Some(Access::Maintainer));

    let driver = GitLabDriver::builder()
        .base(gitlab.root())
        .credentials(GitLabCredentials::token(SecretString::from(gitlab.token_of("bot"))))
        .allow("acme/**")
        .build()?;
    let receiver = WebhookReceiver::new("webhook", CONNECTION, driver.deliveries())
        .secret(SecretString::from(SECRET));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/hooks/gitlab", listener.local_addr()?);
    let routes = webhook_router([("/hooks/gitlab", receiver.clone())]);
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let connection = driver.connect(&CONNECTION.into(), PROJECT).await?;
    if let Some(hooks) = connection.webhook_admin() {
        let events: BTreeSet<String> =
            GitLabDriver::useful_events().map(ToOwned::to_owned).collect();
        let secret = SecretString::from(SECRET);
        hooks.ensure(&Webhook { url: address, secret, events }).await?;
    }
    let (driver, receiver) = (Arc::new(driver), Arc::new(receiver));
    let running = Running::start(state.path(), CONNECTION, driver, PROJECT, vec![receiver]).await?;

    println!("A GitLab on loopback ({}), and the token of a bot.", gitlab.root());

    let told = play(&project).await;
    if told.is_err() {
        running.print_decisions().await?;
    }
    running.stop().await?;
    server.abort();
    told
}

/// What people do there, and what they see of it.
async fn play(project: &ProjectHandle) -> Result<(), Box<dyn Error>> {
    println!("\nalice, who may push, opens a merge request.");
    let alice = project.as_user("alice");
    let head = alice.push("topic", &[("src/lib.rs", "// soon\n")]);
    alice.open("Do it", "topic", "main");
    show_status(project, &head, "success").await?;

    println!("\nShe pushes to it.");
    let head = alice.push("topic", &[("src/lib.rs", "// now\n")]);
    show_status(project, &head, "success").await?;

    println!("\nmallory, whom nobody knows, opens one from a fork.");
    let mallory = project.as_user("mallory");
    let fork = mallory.fork();
    let head = fork.push("fix", &[("src/lib.rs", "// trust me\n")]);
    let outside = mallory.open_from(&fork, "Trust me", "fix", "main");
    show_status(project, &head, "pending").await?;

    println!("\nalice has read it, and lets this very commit run.");
    alice.note(outside, &format!("/ok-to-test {head}"));
    show_status(project, &head, "success").await
}

/// Waits until a commit has a status in this state, and prints it.
async fn show_status(
    project: &ProjectHandle,
    commit: &str,
    state: &str,
) -> Result<(), Box<dyn Error>> {
    let shown = || project.statuses(commit).into_iter().find(|status| status.state == state);
    let since = Instant::now();
    let status = loop {
        if let Some(status) = shown() {
            break status;
        }
        if since.elapsed() > PATIENCE {
            return Err("GitLab does not show what was expected".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!(
        "  GitLab shows on {} at {}: {} {} ({})",
        &commit[..7],
        status.reference,
        status.name,
        status.state,
        status.description,
    );
    Ok(())
}
