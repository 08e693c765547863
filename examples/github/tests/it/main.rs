//! The program with a repository of one's own: a token, polling, and a GitHub on loopback.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use workflows::SystemClock;
use workflows_github_standin::{Hub, RepoHandle, Role};

const WORKFLOW: &str = "
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
            test ${#REVISION} = 40
";

/// The program, killed at the end.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(60), "it does not come to this: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn states(repo: &RepoHandle, commit: &str) -> Vec<String> {
    let statuses = repo.statuses(commit);
    statuses.into_iter().map(|one| format!("{} {}", one.context, one.state)).collect()
}

#[test]
fn a_token_and_a_repository_are_enough() {
    let hub = Hub::start(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("README.md", "# API\n"), (".tekton/ci.yaml", WORKFLOW)]);
    repo.set_role("bot", Some(Role::Write));
    repo.set_role("alice", Some(Role::Write));
    let token = hub.token_of("bot");
    let state = tempfile::tempdir().expect("a directory");
    let program = Command::new(env!("CARGO_BIN_EXE_example-github"))
        .args(["--repo", "acme/api", "--every", "1", "--base", &hub.api(), "--state"])
        .arg(state.path())
        .env("GITHUB_TOKEN", token)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program");
    let program = Program(program);
    // What is there at first is recorded and runs nothing.
    let looks = || hub.count("GET /repos/{owner}/{repo}/pulls");
    until("it looks again and again", || looks() >= 2);

    let alice = repo.as_user("alice");
    let head = alice.push("topic", &[("src/lib.rs", "// soon\n")]);
    alice.open_pull_request("Do it", "topic", "main");
    until("the run is shown as done", || {
        states(&repo, &head).last().is_some_and(|last| last == "workflows/ci success")
    });
    let shown = states(&repo, &head);
    assert!(shown[0] == "workflows/ci pending", "{shown:?}");
    // A token makes no check runs, and nothing was registered anywhere.
    assert_eq!(hub.count("POST *check-runs*"), 0);
    assert_eq!(hub.count("* *hooks*"), 0);
    assert_eq!(hub.deliveries().len(), 0);
    drop(program);
}
