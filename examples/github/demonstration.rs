//! A GitHub on loopback, an App on it, and people who work there.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::net::TcpListener;
use workflows::{
    SystemClock,
    scm::{
        github::{GitHubCredentials, GitHubDriver},
        webhook::{WebhookReceiver, webhook_router},
    },
};
use workflows_github_standin::{Hub, RepoHandle, Role};

use crate::{CONNECTION, composition::Running};

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
    let state = tempfile::Builder::new().prefix("workflows-github-").tempdir()?;
    let hub = Hub::start_unchecked(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("README.md", "# API\n"), (".tekton/ci.yaml", WORKFLOW)]);
    repo.set_role("alice", Some(Role::Write));
    let app = hub.create_app("ci");
    app.install("acme");

    let key = SecretString::from(app.private_key().to_owned());
    let driver = GitHubDriver::builder()
        .base(hub.api())
        .credentials(GitHubCredentials::app(app.id(), key))
        .allow("acme/*")
        .build()?;
    let secret = "the webhook's secret";
    let receiver = WebhookReceiver::new("webhook", CONNECTION, driver.deliveries())
        .secret(SecretString::from(secret));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/hooks/github", listener.local_addr()?);
    let routes = webhook_router([("/hooks/github", receiver.clone())]);
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    app.hook(&address, secret);
    let (driver, receiver) = (Arc::new(driver), Arc::new(receiver));
    let running =
        Running::start(state.path(), CONNECTION, driver, "acme/api", vec![receiver]).await?;

    println!("A GitHub on loopback ({}), with an App that acme has installed.", hub.root());

    let told = play(&repo).await;
    if told.is_err() {
        running.print_decisions().await?;
    }
    running.stop().await?;
    server.abort();
    told
}

/// What people do there, and what they see of it.
async fn play(repo: &RepoHandle) -> Result<(), Box<dyn Error>> {
    println!("\nalice, who may write, opens a pull request.");
    repo.push("topic", &[("src/lib.rs", "// soon\n")]);
    let number = repo.as_user("alice").open_pull_request("Do it", "topic", "main");
    show_check(repo, &repo.head_of(number), "success").await?;

    println!("\nShe pushes to it.");
    repo.as_user("alice").push("topic", &[("src/lib.rs", "// now\n")]);
    show_check(repo, &repo.head_of(number), "success").await?;

    println!("\nmallory, whom nobody knows, opens one from a fork.");
    let fork = repo.as_user("mallory").fork();
    fork.push("fix", &[("src/lib.rs", "// trust me\n")]);
    let outside = repo.as_user("mallory").open_pull_request("Trust me", "mallory:fix", "main");
    let head = repo.head_of(outside);
    show_check(repo, &head, "action_required").await?;

    println!("\nalice has read it, and lets this very commit run.");
    repo.as_user("alice").comment(outside, &format!("/ok-to-test {head}"));
    show_check(repo, &head, "success").await?;

    println!("\nalice asks for it once more.");
    let before = repo.checks(&head).len();
    repo.as_user("alice").comment(outside, "/test ci");
    wait(|| repo.checks(&head).len() > before).await?;
    show_check(repo, &head, "success").await
}

/// Waits until the newest check of a commit has this conclusion, and prints it.
async fn show_check(
    repo: &RepoHandle,
    commit: &str,
    conclusion: &str,
) -> Result<(), Box<dyn Error>> {
    let newest = || repo.checks(commit).into_iter().next_back();
    wait(|| newest().is_some_and(|check| check.conclusion.as_deref() == Some(conclusion))).await?;
    if let Some(check) = newest() {
        println!(
            "  GitHub shows on {}: {} {} ({})",
            &commit[..7],
            check.name,
            check.conclusion.unwrap_or(check.status),
            check.title,
        );
    }
    Ok(())
}

async fn wait(mut holds: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    let since = Instant::now();
    while !holds() {
        if since.elapsed() > PATIENCE {
            return Err("GitHub does not show what was expected".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
