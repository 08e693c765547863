//! One sentence about a run.

use jiff::SignedDuration;
use workflows_core::{RunView, Transition, sink::TaskPhase};

/// What happened to a run in one line of plain text, such as
/// `failed after 12s in task test, step run (exit code 1)`.
///
/// Text that came from outside is made harmless: control characters, which a terminal would obey,
/// are replaced.
///
/// ```
/// use workflows_core::{RunState, RunView, Transition};
///
/// let mut run = RunView::new("k", "acme/api", "ci", RunState::Succeeded, "2026-01-01T00:00:00Z".parse().unwrap());
/// run.started_at = Some("2026-01-01T00:00:01Z".parse().unwrap());
/// run.finished_at = Some("2026-01-01T00:01:06Z".parse().unwrap());
/// assert_eq!(workflows_notify::describe(Transition::Succeeded, &run), "succeeded after 1m 5s");
/// ```
pub fn describe(transition: Transition, run: &RunView) -> String {
    let lasted = match (run.started_at, run.finished_at) {
        (Some(started), Some(finished)) => {
            format!(" after {}", short_duration(finished.duration_since(started)))
        }
        _ => String::new(),
    };
    let mut line = match transition {
        Transition::WaitingForApproval => "waits for approval".to_owned(),
        Transition::Queued => "queued".to_owned(),
        Transition::Started => "started".to_owned(),
        Transition::Progress => progress(run),
        Transition::RunningLong => "runs longer than usual".to_owned(),
        Transition::Succeeded => format!("succeeded{lasted}"),
        Transition::Recovered => format!("recovered: succeeded{lasted}"),
        Transition::Failed => format!("failed{lasted}{}", failed_where(run)),
        Transition::StillFailing => format!("still failing: failed{lasted}{}", failed_where(run)),
        Transition::Cancelled => format!("cancelled{lasted}"),
        Transition::TimedOut => format!("timed out{lasted}"),
        Transition::Superseded => format!("superseded{lasted}"),
        Transition::Expired => "expired in its queue".to_owned(),
        Transition::Refused => "refused".to_owned(),
        other => other.as_str().to_owned(),
    };
    let failed = matches!(transition, Transition::Failed | Transition::StillFailing);
    let told_by_the_step = failed && run.failure.is_some();
    if !run.message.is_empty() && transition != Transition::Progress && !told_by_the_step {
        line.push_str(": ");
        line.push_str(&run.message);
    }
    harmless(&line)
}

fn progress(run: &RunView) -> String {
    let ended = |phase| !matches!(phase, TaskPhase::Pending | TaskPhase::Running);
    let done = run.tasks.iter().filter(|task| ended(task.phase)).count();
    let running: Vec<&str> = run
        .tasks
        .iter()
        .filter(|task| task.phase == TaskPhase::Running)
        .map(|task| &*task.name)
        .collect();
    let mut line = format!("running, {done} of {} tasks done", run.tasks.len());
    if !running.is_empty() {
        line.push_str(", now ");
        line.push_str(&running.join(", "));
    }
    line
}

fn failed_where(run: &RunView) -> String {
    let Some(failure) = &run.failure else { return String::new() };
    let code = failure.exit_code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
    format!(" in task {}, step {}{code}", failure.task, failure.step)
}

/// A duration as people say it: its two largest units.
pub(crate) fn short_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{}ms", duration.subsec_millis().max(0)),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

/// The text without characters that a terminal obeys or that hide what is written: control
/// characters and the bidirectional overrides become `U+FFFD`.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}
