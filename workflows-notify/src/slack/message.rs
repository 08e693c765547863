//! What people read in Slack.

use serde_json::Value;
use workflows_core::{RunView, Transition, sink::TaskPhase};

use super::{
    blocks::{Line, Look, block},
    limits::{ALL_TEXTS, FALLBACK, LINE, NAME, escaped, last_lines, line},
    template::Templates,
};
use crate::{describe, describe::short_duration};

/// How many of the failing step's last lines the message shows, and how many its thread.
const SHOWN: usize = 8;
const SHOWN_CHARACTERS: usize = 1_500;
const DETAILED: usize = 50;
/// More tasks are counted.
const TASKS: usize = 30;

/// The id of the block that counts further failures of the same cause.
pub(super) const GROUP: &str = "workflows-group";

/// A message without the metadata that tells whose it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// What notifications show, escaped.
    pub(super) text: String,
    pub(super) blocks: Vec<Value>,
}

/// The message of a run. `call` is the id of who should look.
pub(super) fn of_run(
    transition: Transition,
    run: &RunView,
    call: Option<&str>,
    templates: &Templates,
) -> Message {
    let mut lines = vec![headline(transition, run, templates), place(run), change(run)];
    if told_by_message(transition, run) {
        lines.push(Line::new().text(&line(&run.message, LINE), Look::Plain));
    }
    lines.push(looks(call));
    lines.push(link_to_run(run));
    let written = match &run.failure {
        Some(failure) if ended_badly(transition) => {
            last_lines(&failure.last_lines, SHOWN, SHOWN_CHARACTERS)
        }
        _ => String::new(),
    };
    Message {
        text: fallback(transition, run),
        blocks: block("workflows-run", lines, &written).into_iter().collect(),
    }
}

/// What stands in the thread of the first of several failures of one cause.
pub(super) fn of_further_failure(
    transition: Transition,
    run: &RunView,
    call: Option<&str>,
    templates: &Templates,
) -> Message {
    let headline = headline(transition, run, templates);
    let lines = vec![headline, place(run), change(run), looks(call), link_to_run(run)];
    Message {
        text: fallback(transition, run),
        blocks: block("workflows-run", lines, "").into_iter().collect(),
    }
}

/// What begins the thread of many runs at once.
pub(super) fn of_crowd() -> Message {
    let text = "Many runs at once: what is told of further ones stands in this thread.";
    let line = Line::new().emoji("busts_in_silhouette").text(&format!(" {text}"), Look::Bold);
    let blocks = block("workflows-crowd", vec![line], "").into_iter().collect();
    Message { text: text.to_owned(), blocks }
}

/// What stands in the thread of a failure: its tasks and more of what the failing step wrote.
/// `None` when there is nothing that the message does not say.
pub(super) fn details(transition: Transition, run: &RunView) -> Option<Message> {
    let failure = run.failure.as_ref().filter(|_| ended_badly(transition))?;
    let mut lines: Vec<Line> = run.tasks.iter().take(TASKS).map(task).collect();
    if let Some(more) = run.tasks.len().checked_sub(TASKS).filter(|more| *more > 0) {
        lines.push(Line::new().text(&format!("and {more} more tasks"), Look::Plain));
    }
    let left = ALL_TEXTS - TASKS * (NAME + 60);
    let written = last_lines(&failure.last_lines, DETAILED, left);
    let blocks: Vec<Value> = block("workflows-details", lines, &written).into_iter().collect();
    let (task, step) = (line(&failure.task, NAME), line(&failure.step, NAME));
    let text = format!("The last lines of step {step} of task {task}");
    (!blocks.is_empty()).then(|| Message { text: escaped(&line(&text, FALLBACK)), blocks })
}

/// The block that says how many more failed of the same cause.
pub(super) fn further_failures(count: usize) -> Option<Value> {
    let text = match count {
        0 => return None,
        1 => "One more run failed in the same way; see the thread.".to_owned(),
        more => format!("{more} more runs failed in the same way; see the thread."),
    };
    block(GROUP, vec![Line::new().emoji("link").text(&format!(" {text}"), Look::Bold)], "")
}

/// Whether somebody should look.
pub(super) fn ended_badly(transition: Transition) -> bool {
    matches!(
        transition,
        Transition::Failed | Transition::TimedOut | Transition::StillFailing | Transition::Refused
    )
}

fn told_by_message(transition: Transition, run: &RunView) -> bool {
    let told_by_the_step = run.failure.is_some() && ended_badly(transition);
    !run.message.is_empty() && transition != Transition::Progress && !told_by_the_step
}

fn emoji(transition: Transition) -> &'static str {
    match transition {
        Transition::Succeeded => "white_check_mark",
        Transition::Recovered => "sunny",
        Transition::Failed => "x",
        Transition::StillFailing => "no_entry",
        Transition::TimedOut => "alarm_clock",
        Transition::Refused => "no_entry_sign",
        Transition::Cancelled => "octagonal_sign",
        Transition::Superseded => "fast_forward",
        Transition::Expired => "hourglass",
        Transition::WaitingForApproval => "raised_hand",
        Transition::RunningLong => "turtle",
        Transition::Queued => "hourglass_flowing_sand",
        _ => "arrow_forward",
    }
}

/// `ci / push failed after 12s in test / run (exit code 1)`.
fn headline(transition: Transition, run: &RunView, templates: &Templates) -> Line {
    let head = Line::new().emoji(emoji(transition)).text(" ", Look::Plain);
    if let Some(template) = templates.of(transition) {
        return head.text(&line(&template.fill(transition, run), LINE), Look::Bold);
    }
    let mut name = line(&run.workflow, NAME);
    if !run.trigger.is_empty() {
        name = format!("{name} / {}", line(&run.trigger, NAME));
    }
    let mut head = head.text(&format!("{name} {}", happened(transition, run)), Look::Bold);
    if let Some(failure) = run.failure.as_ref().filter(|_| ended_badly(transition)) {
        let place = format!("{} / {}", line(&failure.task, NAME), line(&failure.step, NAME));
        head = head.text(" in ", Look::Plain).text(&place, Look::Code);
        if let Some(code) = failure.exit_code {
            head = head.text(&format!(" (exit code {code})"), Look::Plain);
        }
    }
    head
}

fn happened(transition: Transition, run: &RunView) -> String {
    let after = match (run.started_at, run.finished_at) {
        (Some(started), Some(finished)) => {
            format!(" after {}", short_duration(finished.duration_since(started)))
        }
        _ => String::new(),
    };
    match transition {
        Transition::WaitingForApproval => "waits for approval".to_owned(),
        Transition::Queued => "is queued".to_owned(),
        Transition::Started => "started".to_owned(),
        Transition::Progress => {
            let ended = run.tasks.iter().filter(|task| has_ended(task.phase)).count();
            format!("is running: {ended} of {} tasks ended", run.tasks.len())
        }
        Transition::RunningLong => "runs longer than usual".to_owned(),
        Transition::Succeeded => format!("succeeded{after}"),
        Transition::Recovered => format!("recovered{after}"),
        Transition::Failed => format!("failed{after}"),
        Transition::StillFailing => format!("still fails{after}"),
        Transition::TimedOut => format!("timed out{after}"),
        Transition::Cancelled => format!("was cancelled{after}"),
        Transition::Superseded => "was superseded".to_owned(),
        Transition::Expired => "expired in its queue".to_owned(),
        Transition::Refused => "was refused".to_owned(),
        other => line(other.as_str(), NAME),
    }
}

fn has_ended(phase: TaskPhase) -> bool {
    !matches!(phase, TaskPhase::Pending | TaskPhase::Running)
}

/// `acme/api · #7 · 3f2a1c5`.
fn place(run: &RunView) -> Line {
    let mut place = Line::new().link(&line(&run.repo, NAME), run.repo_url.as_deref());
    let reference = run.reference.as_deref().map(|name| {
        name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
    });
    match (run.pull_request, reference) {
        (Some(number), _) => {
            let text = format!("#{number}");
            place = place.text(" · ", Look::Plain).link(&text, run.pull_request_url.as_deref());
        }
        (None, Some(reference)) => {
            place = place.text(" · ", Look::Plain).text(&line(reference, NAME), Look::Code);
        }
        (None, None) => {}
    }
    if let Some(commit) = &run.commit {
        place = place.text(" · ", Look::Plain).text(commit.short(), Look::Code);
    }
    place
}

/// `Parse the header · by alice`.
fn change(run: &RunView) -> Line {
    let title = run.title.as_deref().map(|title| line(title, LINE)).unwrap_or_default();
    let author = run.author.as_deref().map(|author| line(author, NAME)).unwrap_or_default();
    let between = if title.is_empty() || author.is_empty() { "" } else { " · " };
    let by = if author.is_empty() { String::new() } else { format!("{between}by {author}") };
    Line::new().text(&title, Look::Plain).text(&by, Look::Plain)
}

fn looks(call: Option<&str>) -> Line {
    match call {
        Some(id) => Line::new().text("Please look: ", Look::Plain).mention(id),
        None => Line::new(),
    }
}

fn link_to_run(run: &RunView) -> Line {
    match &run.link {
        Some(link) => Line::new().link("Open the run", Some(link)),
        None => Line::new(),
    }
}

fn task(task: &workflows_core::TaskStatus) -> Line {
    let (emoji, word) = match task.phase {
        TaskPhase::Succeeded => ("white_check_mark", "succeeded"),
        TaskPhase::Failed => ("x", "failed"),
        TaskPhase::TimedOut => ("alarm_clock", "timed out"),
        TaskPhase::Cancelled => ("octagonal_sign", "cancelled"),
        TaskPhase::Skipped => ("fast_forward", "skipped"),
        TaskPhase::Running => ("arrow_forward", "running"),
        TaskPhase::Pending => ("hourglass_flowing_sand", "waiting"),
    };
    let took = match (task.started_at, task.finished_at) {
        (Some(from), Some(to)) => format!(" after {}", short_duration(to.duration_since(from))),
        _ => String::new(),
    };
    Line::new()
        .emoji(emoji)
        .text(" ", Look::Plain)
        .link(&line(&task.name, NAME), task.link.as_deref())
        .text(&format!(" {word}{took}"), Look::Plain)
}

/// One line of plain text, escaped.
fn fallback(transition: Transition, run: &RunView) -> String {
    let place = match (run.pull_request, run.reference.as_deref()) {
        (Some(number), _) => format!(" #{number}"),
        (None, Some(reference)) => format!(" {reference}"),
        (None, None) => String::new(),
    };
    let text = format!("{} ({}{place}): {}", run.workflow, run.repo, describe(transition, run));
    escaped(&line(&text, FALLBACK))
}
