//! What a status says in words.

use std::fmt::Write;

use crate::{
    Run, RunState, hash_of,
    repo::{Status, StatusState},
    run::FailedStep,
    sink::TaskPhase,
    store::StatusKey,
};

/// What commit statuses show of a title.
const TITLE: usize = 140;
/// Hosts refuse longer summaries; check runs take 65,535 characters.
const SUMMARY: usize = 60_000;

/// What a run's status shows.
pub(crate) fn of_run(key: &StatusKey, run: &Run) -> Status {
    Status {
        commit: key.commit.clone(),
        context: key.context.clone(),
        state: state(run.state),
        title: cut(&title(run), TITLE),
        summary: cut(&summary(run), SUMMARY),
        link: run.link.clone(),
        external_id: run.key.as_str().into(),
        started_at: run.started_at,
        finished_at: run.finished_at,
    }
}

/// What a note shows.
pub(crate) fn of_note(key: &StatusKey, state: StatusState, title: &str, summary: &str) -> Status {
    let id = [key.tenant.as_str(), key.repo.id.as_str(), key.commit.as_str(), &key.context];
    Status {
        commit: key.commit.clone(),
        context: key.context.clone(),
        state,
        title: cut(title, TITLE),
        summary: cut(summary, SUMMARY),
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

fn title(run: &Run) -> String {
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
fn summary(run: &Run) -> String {
    let mut text = String::new();
    if !run.message.is_empty() {
        let _ = writeln!(text, "{}\n", plain(&run.message));
    }
    if !run.tasks.is_empty() {
        text.push_str("| Task | Result | Time |\n| --- | --- | --- |\n");
        for task in &run.tasks {
            let took = match (task.started_at, task.finished_at) {
                (Some(from), Some(to)) => format!("{:#}", to.duration_since(from)),
                _ => String::new(),
            };
            let _ = writeln!(text, "| {} | {} | {took} |", plain(&task.name), phase(task.phase));
        }
        text.push('\n');
    }
    if let Some(failure) = &run.failure {
        failing_step(&mut text, failure);
    }
    for (name, remark) in run.remarks.iter().filter(|(_, remark)| **remark != run.message) {
        let _ = writeln!(text, "{}: {}\n", plain(name), plain(remark));
    }
    let _ = writeln!(text, "Run `{}`, trigger {}.", run.name, plain(&run.trigger));
    text
}

fn failing_step(text: &mut String, failure: &FailedStep) {
    let (task, step) = (plain(&failure.task), plain(&failure.step));
    let _ = writeln!(text, "Step {step} of task {task} failed.\n");
    if failure.last_lines.is_empty() {
        return;
    }
    // Longer than any fence that the log may hold, so that the log cannot end the block.
    let longest = failure.last_lines.iter().map(|line| backticks(line)).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(text, "{fence}text\n{}\n{fence}\n", failure.last_lines.join("\n"));
}

fn backticks(line: &str) -> usize {
    line.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Text that Markdown takes as it is, on one line: no link, mention, image, table or HTML comes of
/// it.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => plain.push(' '),
            '<' => plain.push_str("&lt;"),
            '@' => plain.push_str("&#64;"),
            '#' => plain.push_str("&#35;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '!' | '|' | '~' | '>' => {
                plain.push('\\');
                plain.push(c);
            }
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

fn has_ended(phase: TaskPhase) -> bool {
    !matches!(phase, TaskPhase::Pending | TaskPhase::Running)
}

fn phase(phase: TaskPhase) -> &'static str {
    match phase {
        TaskPhase::Pending => "waiting",
        TaskPhase::Running => "running",
        TaskPhase::Succeeded => "succeeded",
        TaskPhase::Failed => "failed",
        TaskPhase::Cancelled => "cancelled",
        TaskPhase::TimedOut => "timed out",
        TaskPhase::Skipped => "skipped",
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(lines: &[&str]) -> FailedStep {
        FailedStep {
            task: "te|st".into(),
            step: "@all".into(),
            exit_code: Some(1),
            last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn a_log_cannot_end_the_block_that_it_is_shown_in() {
        let mut text = String::new();
        failing_step(&mut text, &failing(&["```", "````` <img src=x>", "done"]));
        let fences: Vec<_> = text.lines().filter(|line| line.starts_with("``````")).collect();
        assert_eq!(fences, ["``````text", "``````"]);
    }

    #[test]
    fn names_and_messages_are_text_and_nothing_else() {
        assert_eq!(
            plain("[click](http://x) @alice #1 <b> a|b `c`\n**d** ![i](u)\u{7}"),
            "\\[click\\]\\(http://x\\) &#64;alice &#35;1 &lt;b\\> a\\|b \\`c\\` \\*\\*d\\*\\* \
             \\!\\[i\\]\\(u\\)"
        );
        let mut text = String::new();
        failing_step(&mut text, &failing(&[]));
        assert_eq!(text, "Step &#64;all of task te\\|st failed.\n\n");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
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
