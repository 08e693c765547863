//! An engine that is killed at random moments while it tells Slack, which counts.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use workflows_core::SystemClock;
use workflows_slack_standin::Workspace;

use crate::fire::{Dice, Pushes, wait_while_it_gets_on};

const KILLS: usize = 24;
const BRANCHES: usize = 8;
const WORKFLOW: &str = r#"
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: every-branch }
spec:
  triggers:
  - { name: push, on: push, branches: ["work/**"] }
  pipelineSpec:
    tasks:
    - name: note
      taskSpec: { steps: [{ name: note, image: none, script: "true" }] }
  notify:
  - { notifier: slack, on: [succeeded, failed, refused] }
"#;

fn start(state: &Path, repository: &Path, slack: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_engine-under-fire"))
        .args([state, repository])
        .env("SLACK", slack)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_between_sending_and_recording_it_tells_slack_once() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let repository = home.path().join("repository.git");
    let mut pushes = Pushes::begin(&repository, WORKFLOW);
    let slack = Workspace::start(Arc::new(SystemClock));
    let channel = slack.create_channel("ci");
    let token = slack.create_bot(&["chat:write", "channels:history"]);
    slack.invite(&token, &channel);
    slack.set_limits(|limits| limits.tier_3 = 10_000);
    // So that most of the time that a delivery takes lies between what Slack did and its record.
    slack.set_latency(Duration::from_millis(200));
    let place = format!("{} {token} {channel}", slack.api());

    for kill in 0..KILLS {
        if kill % 3 == 0 && pushes.branches("work").len() < BRANCHES {
            pushes.next_branch("work");
        }
        let before = slack.count("chat.postMessage");
        let mut engine = start(&state, &repository, &place);
        // Sometimes right after Slack got a message, sometimes at any other moment.
        let patience = 40 + dice.up_to(40);
        for _ in 0..patience {
            std::thread::sleep(Duration::from_millis(20));
            if dice.up_to(3) > 0 && slack.messages(&channel).len() > before {
                break;
            }
        }
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    let mut engine = start(&state, &repository, &place);
    let branches = pushes.branches("work").len();
    wait_while_it_gets_on("a message about each branch's run", branches, || {
        slack.in_channel(&channel).len()
    });
    // What would be told twice would be told by now: the last of them is recorded.
    std::thread::sleep(Duration::from_secs(3));
    drop(engine.stdin.take());
    assert!(engine.wait().unwrap().success(), "it did not stop when it was told to");
    let run_of = |message: &workflows_slack_standin::Shown| {
        message.metadata.as_ref().unwrap()["event_payload"]["run"].to_string()
    };
    let mut runs: Vec<String> = slack.in_channel(&channel).iter().map(run_of).collect();
    let messages = runs.len();
    runs.sort();
    runs.dedup();
    assert_eq!((runs.len(), messages), (branches, branches), "one message for each run");
    let looked = slack.count("conversations.history");
    println!(
        "{KILLS} kills, {branches} runs, {messages} messages; the channel was read {looked} times"
    );
    assert!(looked > 0, "no kill came between sending and recording");
}
