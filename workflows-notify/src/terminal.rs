//! Transitions as lines on a terminal, or on any other writer.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use anstyle::{AnsiColor, Style};
use async_trait::async_trait;
use jiff::tz::TimeZone;
use workflows_core::{
    Delivered, DeliveryKey, Error, NotificationView, Notifier, Result, RunView, Transition,
};

use crate::{describe, describe::harmless};

/// Whether lines are coloured. The program decides: a library does not look at the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colors {
    /// ANSI colours.
    Ansi,
    /// Plain text.
    #[default]
    None,
}

/// Writes one line for each transition, and below a failure the last lines of the failing step.
///
/// ```text
/// 14:03:07  ci/push  main 3f2a1c5  started
/// 14:03:19  ci/push  main 3f2a1c5  failed after 12s in task test, step run (exit code 1)
///           | assertion failed: left == right
/// ```
///
/// A delivery that is repeated is recognised by its key, for as long as the process lives, and not
/// written again. What came from outside cannot move the cursor or colour the screen: control
/// characters are replaced.
///
/// ```
/// use workflows_notify::{Colors, TerminalNotifier};
///
/// let notifier = TerminalNotifier::new(std::io::stdout(), Colors::None);
/// ```
pub struct TerminalNotifier {
    state: Mutex<State>,
    colors: Colors,
    time_zone: TimeZone,
}

struct State {
    out: Box<dyn Write + Send>,
    delivered: HashSet<DeliveryKey>,
    oldest_first: VecDeque<DeliveryKey>,
}

impl TerminalNotifier {
    /// How many deliveries are remembered.
    const REMEMBERED: usize = 10_000;

    /// Writes to `out`, with times in UTC.
    pub fn new(out: impl Write + Send + 'static, colors: Colors) -> Self {
        let state =
            State { out: Box::new(out), delivered: HashSet::new(), oldest_first: VecDeque::new() };
        Self { state: Mutex::new(state), colors, time_zone: TimeZone::UTC }
    }

    /// Writes times of another zone.
    #[must_use]
    pub fn in_time_zone(mut self, time_zone: TimeZone) -> Self {
        self.time_zone = time_zone;
        self
    }

    fn write(&self, out: &mut dyn Write, notification: &NotificationView) -> io::Result<()> {
        let run = &notification.run;
        let at = match notification.transition {
            Transition::Queued | Transition::WaitingForApproval => run.created_at,
            Transition::Started => run.started_at.unwrap_or(run.created_at),
            Transition::RunningLong => notification.at,
            _ => run.finished_at.or(run.started_at).unwrap_or(run.created_at),
        };
        let time = at.to_zoned(self.time_zone.clone()).strftime("%H:%M:%S");
        let style = self.style(notification.transition);
        writeln!(
            out,
            "{time}  {}  {style}{}{style:#}",
            harmless(&subject(run)),
            describe(notification.transition, run)
        )?;
        if matches!(notification.transition, Transition::Failed | Transition::StillFailing)
            && let Some(failure) = &run.failure
        {
            let dim =
                if self.colors == Colors::Ansi { Style::new().dimmed() } else { Style::new() };
            for line in &failure.last_lines {
                writeln!(out, "          {dim}| {}{dim:#}", harmless(line))?;
            }
        }
        out.flush()
    }

    fn style(&self, transition: Transition) -> Style {
        if self.colors == Colors::None {
            return Style::new();
        }
        let color = match transition {
            Transition::Succeeded | Transition::Recovered => AnsiColor::Green,
            Transition::Failed
            | Transition::StillFailing
            | Transition::TimedOut
            | Transition::Refused => AnsiColor::Red,
            Transition::Cancelled
            | Transition::Superseded
            | Transition::Expired
            | Transition::RunningLong
            | Transition::WaitingForApproval => AnsiColor::Yellow,
            _ => AnsiColor::Cyan,
        };
        Style::new().fg_color(Some(color.into()))
    }
}

/// Which run: `ci/push  main 3f2a1c5`.
fn subject(run: &RunView) -> String {
    let mut subject = run.workflow.to_string();
    if !run.trigger.is_empty() {
        subject.push('/');
        subject.push_str(&run.trigger);
    }
    let reference = run.reference.as_deref().map(|name| {
        name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
    });
    match (run.pull_request, reference) {
        (Some(number), _) => subject.push_str(&format!("  #{number}")),
        (None, Some(reference)) => subject.push_str(&format!("  {reference}")),
        (None, None) => {}
    }
    if let Some(commit) = &run.commit {
        subject.push(' ');
        subject.push_str(commit.short());
    }
    subject
}

impl fmt::Debug for TerminalNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalNotifier").field("colors", &self.colors).finish_non_exhaustive()
    }
}

#[async_trait]
impl Notifier for TerminalNotifier {
    /// # Errors
    ///
    /// `Transient` when the writer fails.
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.delivered.contains(&notification.key) {
            return Ok(Delivered::default());
        }
        self.write(&mut state.out, notification).map_err(|error| {
            Error::transient("write notification", "the terminal did not take it").caused_by(error)
        })?;
        state.delivered.insert(notification.key.clone());
        state.oldest_first.push_back(notification.key.clone());
        if state.oldest_first.len() > Self::REMEMBERED
            && let Some(oldest) = state.oldest_first.pop_front()
        {
            state.delivered.remove(&oldest);
        }
        Ok(Delivered::default())
    }
}
