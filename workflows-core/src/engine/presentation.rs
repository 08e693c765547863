//! What a status says in words.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use super::markdown::{block, cell, code, cut, link};
use crate::{
    CommitId, Run, RunState, RunView, hash_of,
    repo::{Status, StatusAction, StatusState},
    run::FailedStep,
    sink::TaskPhase,
    store::StatusKey,
};

/// In characters: what commit statuses show of a title.
const TITLE: usize = 140;
/// In bytes, of a summary and of details. Hosts refuse longer ones: check runs take 65,535 bytes,
/// whatever the documentation says of characters (<https://github.com/github/docs/issues/35252>).
const TEXT: usize = 60_000;
/// In bytes, of a message.
const MESSAGE: usize = 4_000;
/// In bytes, of a name in a table.
const NAME: usize = 100;
/// More tasks are counted, and not shown one by one.
const TASKS: usize = 200;

/// What a run's status shows.
pub(crate) fn of_run(key: &StatusKey, run: &Run) -> Status {
    let view = RunView::from(run);
    let mut status = of_view(key.commit.clone(), key.context.clone(), &view);
    status.summary = summary(&view, &run.name, &run.remarks);
    status.actions = actions(run);
    status
}

/// What the status of a run shows that needs not be in the ledger.
fn of_view(commit: CommitId, context: Arc<str>, run: &RunView) -> Status {
    Status {
        commit,
        context,
        state: state(run.state),
        title: one_line(&title(run)),
        summary: summary(run, &run.key, &BTreeMap::new()),
        details: run.failure.as_ref().map(details).unwrap_or_default(),
        annotations: run.failure.iter().flat_map(|failure| failure.annotations.clone()).collect(),
        actions: Vec::new(),
        link: run.link.clone(),
        external_id: Arc::clone(&run.key),
        started_at: run.started_at,
        finished_at: run.finished_at,
    }
}

impl Status {
    /// What a commit shows of a run, in the words of the engine's own statuses. The run needs not be
    /// in the ledger.
    pub fn of_run(commit: CommitId, context: impl Into<Arc<str>>, run: &RunView) -> Self {
        of_view(commit, context.into(), run)
    }
}

/// What a note shows.
pub(crate) fn of_note(
    key: &StatusKey,
    state: StatusState,
    title: &str,
    summary: &str,
    actions: &[StatusAction],
) -> Status {
    let id = [key.tenant.as_str(), key.repo.id.as_str(), key.commit.as_str(), &key.context];
    Status {
        commit: key.commit.clone(),
        context: key.context.clone(),
        state,
        title: one_line(title),
        summary: cut(summary, TEXT),
        details: String::new(),
        annotations: Vec::new(),
        actions: actions.to_vec(),
        link: None,
        external_id: hash_of(&id).into(),
        started_at: None,
        finished_at: None,
    }
}

/// A digest of everything that a status shows.
pub(crate) fn digest(status: &Status) -> String {
    // Every field is a string, a number or an instant: it always has a JSON form.
    hash_of(&[&serde_json::to_string(status).unwrap_or_default()])
}

/// Whoever may end a run is offered to.
fn actions(run: &Run) -> Vec<StatusAction> {
    let may_end = !run.state.is_terminal() && run.cancel.is_none();
    may_end.then_some(StatusAction::Cancel).into_iter().collect()
}

/// Several states of a run look the same to a host.
fn state(state: RunState) -> StatusState {
    match state {
        RunState::Planned | RunState::Queued | RunState::Admitted | RunState::Created => {
            StatusState::Queued
        }
        RunState::Running => StatusState::InProgress,
        RunState::Succeeded => StatusState::Success,
        RunState::Failed | RunState::Refused => StatusState::Failure,
        RunState::Cancelled | RunState::Superseded | RunState::Expired => StatusState::Cancelled,
        RunState::TimedOut => StatusState::TimedOut,
    }
}

fn title(run: &RunView) -> String {
    let ended = run.tasks.iter().filter(|task| has_ended(task.phase)).count();
    let mut title = match run.state {
        RunState::Planned | RunState::Admitted => "Starting".to_owned(),
        RunState::Queued => "Waiting in the queue".to_owned(),
        RunState::Created => "Created".to_owned(),
        RunState::Running if run.tasks.is_empty() => "Running".to_owned(),
        RunState::Running => format!("Running: {ended} of {} tasks ended", run.tasks.len()),
        RunState::Succeeded => "Succeeded".to_owned(),
        RunState::Failed => "Failed".to_owned(),
        RunState::Cancelled => "Cancelled".to_owned(),
        RunState::TimedOut => "Timed out".to_owned(),
        RunState::Superseded => "Superseded".to_owned(),
        RunState::Expired => "Expired in the queue".to_owned(),
        RunState::Refused => "Refused".to_owned(),
    };
    match (&run.failure, run.message.lines().next()) {
        (Some(failure), _) => {
            let _ = write!(title, " in {}/{}", failure.task, failure.step);
            if let Some(code) = failure.exit_code {
                let _ = write!(title, " (exit code {code})");
            }
        }
        (None, Some(message)) if !message.is_empty() => {
            let _ = write!(title, ": {message}");
        }
        _ => {}
    }
    title
}

/// Writing into a `String` cannot fail, so the results of `write!` here and above say nothing.
fn summary(run: &RunView, name: &str, remarks: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    if !run.message.is_empty() {
        let _ = writeln!(text, "{}\n", code(&cut(&run.message, MESSAGE)));
    }
    if !run.tasks.is_empty() {
        text.push_str("| Task | Result | Time |\n| --- | --- | --- |\n");
        for task in run.tasks.iter().take(TASKS) {
            let took = match (task.started_at, task.finished_at) {
                (Some(from), Some(to)) => duration(from, to),
                _ => String::new(),
            };
            let name = link(&cell(&task.name, NAME), task.link.as_deref());
            let _ = writeln!(text, "| {name} | {} | {took} |", phase(task.phase));
        }
        text.push('\n');
    }
    if let Some(more) = run.tasks.len().checked_sub(TASKS).filter(|more| *more > 0) {
        let _ = writeln!(text, "{more} more tasks are not shown.\n");
    }
    if let Some(failure) = &run.failure {
        let (task, step) = (code(&cut(&failure.task, NAME)), code(&cut(&failure.step, NAME)));
        let _ = writeln!(text, "Step {step} of task {task} failed.\n");
    }
    for (name, remark) in remarks.iter().filter(|(_, one)| **one != run.message).take(20) {
        let remark = code(&cut(remark, MESSAGE / 20));
        let _ = writeln!(text, "{}: {remark}\n", code(&cut(name, NAME)));
    }
    let name = code(&cut(name, NAME));
    let _ = match run.trigger.is_empty() {
        true => writeln!(text, "Run {name}."),
        false => writeln!(text, "Run {name}, trigger {}.", code(&cut(&run.trigger, NAME))),
    };
    text
}

/// To the second, which is what people look for.
fn duration(from: jiff::Timestamp, to: jiff::Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    format!("{:#}", jiff::SignedDuration::from_secs(seconds))
}

fn details(failure: &FailedStep) -> String {
    if failure.last_lines.is_empty() {
        return String::new();
    }
    let (task, step) = (code(&cut(&failure.task, NAME)), code(&cut(&failure.step, NAME)));
    let heading = format!("The last lines of step {step} of task {task}:\n\n");
    let lines = block(&failure.last_lines, TEXT - heading.len());
    heading + &lines
}

fn has_ended(phase: TaskPhase) -> bool {
    !matches!(phase, TaskPhase::Pending | TaskPhase::Running)
}

fn phase(phase: TaskPhase) -> &'static str {
    match phase {
        TaskPhase::Pending => "waiting",
        TaskPhase::Running => "running",
        TaskPhase::Succeeded => "succeeded",
        TaskPhase::Failed => "**failed**",
        TaskPhase::Cancelled => "cancelled",
        TaskPhase::TimedOut => "**timed out**",
        TaskPhase::Skipped => "skipped",
    }
}

/// A title: one line of plain text without what is not seen, cut between characters.
fn one_line(text: &str) -> String {
    let seen = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !super::markdown::is_invisible(*c));
    let text: String = seen.take(TITLE + 1).collect();
    if text.chars().count() <= TITLE {
        return text;
    }
    text.chars().take(TITLE - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(lines: Vec<String>) -> FailedStep {
        FailedStep {
            task: "te|st".into(),
            step: "@all".into(),
            exit_code: Some(1),
            last_lines: lines,
            annotations: Vec::new(),
        }
    }

    #[test]
    fn details_are_the_last_lines_however_many_there_are() {
        assert_eq!(details(&failing(Vec::new())), "");
        let short = details(&failing(vec!["one".into(), "``` @two".into()]));
        assert_eq!(
            short,
            "The last lines of step `@all` of task `te|st`:\n\n````text\none\n``` @two\n````\n"
        );
        let long =
            details(&failing((0..1_000).map(|n| format!("{n} {}", "🦀".repeat(120))).collect()));
        assert!(long.len() <= TEXT && long.len() > TEXT - 1_000, "{}", long.len());
        assert!(long.contains("\n999 ") && long.ends_with("\n```\n"));
    }

    #[test]
    fn a_title_is_one_line_that_is_cut_between_characters() {
        assert_eq!(one_line("a\nb\u{202E}c\td"), "a bc d");
        let exactly = "🦀".repeat(TITLE);
        assert_eq!(one_line(&exactly), exactly);
        let cut = one_line(&format!("{exactly}x"));
        assert_eq!(cut, "🦀".repeat(TITLE - 1) + "…");
    }

    #[test]
    fn a_table_of_hostile_tasks_is_a_table_within_the_limit() {
        let mut run: Run = serde_json::from_value(serde_json::json!({
            "key": "k", "version": 1, "tenant": "default",
            "repo": { "connection": "scm", "id": "1", "name": "acme/api" },
            "workflow": crate::WorkflowId::registered("ci"), "trigger": "push", "event": "e",
            "order": 1, "subject": "refs/heads/main", "attempt": "", "commit": null,
            "reference": null, "origin": { "digest": "d" }, "name": "ci-1", "sink": "sink",
            "pipelineRun": {}, "state": RunState::Failed,
            "createdAt": jiff::Timestamp::UNIX_EPOCH,
        }))
        .unwrap();
        run.message = "`x` <b> @all | \n# heading".repeat(1_000);
        let name: Arc<str> = "a|b`c\n@all ".repeat(1_000).into();
        run.remarks = (0..100).map(|n| (format!("{n}{name}"), name.to_string())).collect();
        run.tasks = (0..5_000)
            .map(|_| crate::TaskStatus {
                name: Arc::clone(&name),
                phase: TaskPhase::Failed,
                message: String::new(),
                started_at: Some(jiff::Timestamp::UNIX_EPOCH),
                finished_at: jiff::Timestamp::from_second(3_725).ok(),
                link: Some("https://ci.example.com/x".into()),
                steps: Vec::new(),
            })
            .collect();
        let text = summary(&RunView::from(&run), &run.name, &run.remarks);
        assert!(text.len() <= TEXT, "{}", text.len());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), TASKS + 2);
        assert!(rows.iter().all(|row| row.matches('|').count() == 4), "{}", rows[2]);
        assert!(
            rows[2].ends_with("](<https://ci.example.com/x>) | **failed** | 1h 2m 5s |"),
            "{}",
            rows[2]
        );
        assert!(text.contains("4800 more tasks are not shown"));
        assert!(text.ends_with("trigger `push`.\n"));
    }

    #[test]
    fn a_state_never_ranks_below_one_that_comes_before_it() {
        let order = [RunState::Planned, RunState::Queued, RunState::Admitted, RunState::Created];
        assert!(order.iter().all(|one| state(*one).rank() == 0));
        assert_eq!(state(RunState::Running).rank(), 1);
        let ended = RunState::ALL.into_iter().filter(|one| one.is_terminal());
        assert!(ended.map(state).all(|state| state.is_final() && state.rank() == 2));
    }
}
