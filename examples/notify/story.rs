//! What happens: each thing that can be told of a run, and three runs that fail of one cause.

use jiff::{SignedDuration, Timestamp};
use workflows::{
    DeliveryKey, NotificationView, RunState, RunView, TaskStatus, Transition,
    core::{run::FailedStep, sink::TaskPhase},
};

/// A run of alice's pull request, as it is when that happened.
fn run(key: &str, state: RunState, now: Timestamp) -> RunView {
    let mut run = RunView::new(key, "acme/api", "ci", state, now);
    run.trigger = "pull-request".into();
    run.title = Some("Parse the header".to_owned());
    run.author = Some("alice".into());
    run.pull_request = Some(7);
    run.pull_request_url = Some("https://git.example.com/acme/api/pull/7".to_owned());
    run.repo_url = Some("https://git.example.com/acme/api".to_owned());
    run.link = Some("https://ci.example.com/runs/7".to_owned());
    if !matches!(state, RunState::Planned | RunState::Queued | RunState::Refused) {
        run.started_at = Some(now - SignedDuration::from_secs(72));
    }
    if state.is_terminal() {
        run.finished_at = Some(now);
    }
    run
}

fn fails(run: &mut RunView, lines: &[&str]) {
    run.tasks = [("build", TaskPhase::Succeeded), ("test", TaskPhase::Failed)]
        .map(|(name, phase)| TaskStatus {
            name: name.into(),
            phase,
            message: String::new(),
            started_at: run.started_at,
            finished_at: run.finished_at,
            link: None,
            steps: Vec::new(),
        })
        .to_vec();
    run.failure = Some(FailedStep {
        task: "test".into(),
        step: "run".into(),
        exit_code: Some(101),
        last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        annotations: Vec::new(),
    });
}

fn told(transition: Transition, run: RunView, now: Timestamp) -> NotificationView {
    let key = DeliveryKey::new(format!("{}/{transition}", run.key));
    NotificationView::new(key, transition, now, run)
}

/// A run that starts, goes on and fails.
fn of_one_run(now: Timestamp) -> Vec<NotificationView> {
    let key = format!("one/{now}");
    let queued = run(&key, RunState::Queued, now);
    let started = run(&key, RunState::Running, now);
    let mut going_on = started.clone();
    fails(&mut going_on, &[]);
    (going_on.failure, going_on.tasks[1].phase) = (None, TaskPhase::Running);
    let mut failed = run(&key, RunState::Failed, now);
    let said = "thread 'parse' panicked at src/header.rs:12:9:";
    fails(&mut failed, &["test parse ... FAILED", said, "assertion `left == right` failed"]);
    vec![
        told(Transition::Queued, queued, now),
        told(Transition::Started, started.clone(), now),
        told(Transition::Progress, going_on, now),
        told(Transition::RunningLong, started, now),
        told(Transition::Failed, failed, now),
    ]
}

/// The other ways in which a run can end, or wait, each of a run of its own.
fn of_others(now: Timestamp) -> Vec<NotificationView> {
    let ends = [
        (
            Transition::WaitingForApproval,
            RunState::Planned,
            "nothing runs before a writer approves it",
        ),
        (Transition::Succeeded, RunState::Succeeded, ""),
        (Transition::Recovered, RunState::Succeeded, ""),
        (Transition::TimedOut, RunState::TimedOut, "it ran for more than 1h"),
        (Transition::Cancelled, RunState::Cancelled, "bob asked for it"),
        (Transition::Superseded, RunState::Superseded, "a newer run took its place"),
        (Transition::Expired, RunState::Expired, "it waited for more than 30m"),
        (Transition::Refused, RunState::Refused, "denied by the rule: no service accounts"),
    ];
    let of_one = |(transition, state, message): (Transition, RunState, &str)| {
        let mut run = run(&format!("{transition}/{now}"), state, now);
        run.message = message.to_owned();
        told(transition, run, now)
    };
    ends.map(of_one).to_vec()
}

/// Three runs that fail because a registry does not answer.
fn of_one_cause(now: Timestamp) -> Vec<NotificationView> {
    let of_one = |n: u64| {
        let mut run = run(&format!("registry-{n}/{now}"), RunState::Failed, now);
        run.pull_request = Some(7 + n);
        let line = format!("error: pull of registry.example.com/base@{n}f3a: timeout after {n}0s");
        fails(&mut run, &[&line]);
        told(Transition::StillFailing, run, now)
    };
    (1..=3).map(of_one).collect()
}

/// The whole story.
pub(crate) fn all(now: Timestamp) -> Vec<NotificationView> {
    [of_one_run(now), of_others(now), of_one_cause(now)].concat()
}
