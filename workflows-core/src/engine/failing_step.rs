//! The step at which a run failed: what it wrote last, and what it said about lines of files.

use std::sync::Arc;

use super::{
    annotations::found_in, core::Core, dispatcher::sink_run, markdown::is_invisible,
    masking::Masker,
};
use crate::{
    LogRef, Run, RunSink, TaskStatus,
    run::FailedStep,
    sink::{StepStatus, TaskPhase},
};

/// How many bytes of the log are read, from its end.
const LOG_TAIL: usize = 256 << 10;
/// A longer line is cut, in characters.
const LINE: usize = 500;
/// How much more of a line is looked at than is shown, in bytes, so that no secret is cut in two.
const BEYOND: usize = 4 << 10;

/// The step at which a run failed, with its last lines where they can be had.
pub(crate) async fn of(core: &Core, sink: &dyn RunSink, run: &Run) -> Option<FailedStep> {
    let (task, step) = failed_step(&run.tasks)?;
    let log = LogRef { task: Arc::clone(&task.name), step: Arc::clone(&step.name) };
    let mut lines = Vec::new();
    if let Some(logs) = sink.logs() {
        match core.call("read a log", logs.tail(&sink_run(run), &log, LOG_TAIL)).await {
            Ok(bytes) => lines = whole_lines(&bytes, LOG_TAIL),
            Err(error) => tracing::debug!(%error, "the failing step's log could not be read"),
        }
    }
    let mut annotations = found_in(lines.iter().map(String::as_str));
    for annotation in &mut annotations {
        annotation.message = Masker::new(&run.secrets).line(&annotation.message);
        annotation.path = Masker::new(&run.secrets).line(&annotation.path).into();
    }
    Some(FailedStep {
        task: Arc::clone(&task.name),
        step: log.step,
        exit_code: step.exit_code,
        last_lines: last(&lines, core.options.failure_lines, Masker::new(&run.secrets)),
        annotations,
    })
}

fn failed_step(tasks: &[TaskStatus]) -> Option<(&TaskStatus, &StepStatus)> {
    let task = tasks
        .iter()
        .find(|task| task.phase == TaskPhase::Failed)
        .or_else(|| tasks.iter().find(|task| task.phase == TaskPhase::TimedOut))?;
    let failed = task.steps.iter().find(|step| step.exit_code.is_some_and(|code| code != 0));
    Some((task, failed.or(task.steps.last())?))
}

/// The lines of the end of a log, as text without what terminals and chat services obey. Of a log
/// that was cut the first line is left out: a part of a secret would not be known as one.
fn whole_lines(bytes: &[u8], most: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let begins_inside_a_line = bytes.len() >= most;
    text.lines().skip(usize::from(begins_inside_a_line)).map(plain).collect()
}

/// A line as a terminal shows it: without the sequences that color it, and of what was written over
/// the same line again and again the last.
fn plain(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit_once('\r').map_or(line, |(_, last)| last);
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut rest),
            c if is_invisible(c) => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Skips what follows an escape character (ECMA-48: control sequences and control strings).
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => {
            rest.find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            // It ends in a bell or in an escape character with a backslash.
            let end = rest.find(|c| matches!(c, '\u{7}' | '\u{1b}'));
            if end == Some('\u{1b}') {
                rest.next();
            }
        }
        _ => {}
    }
}

/// The last lines, secrets replaced, each cut.
fn last(lines: &[String], most: usize, mut masker: Masker<'_>) -> Vec<String> {
    // A key may begin before the lines that are shown.
    let mut masked: Vec<String> = Vec::new();
    let shown_from = lines.len().saturating_sub(most);
    for (n, line) in lines.iter().enumerate() {
        let looked_at = &line[..line.floor_char_boundary(4 * LINE + BEYOND)];
        if n < shown_from {
            masker.pass(looked_at);
        } else {
            masked.push(masker.line(looked_at).chars().take(LINE).collect());
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(log: &[u8], most: usize) -> Vec<String> {
        last(&whole_lines(log, LOG_TAIL), most, Masker::new(&[]))
    }

    #[test]
    fn lines_are_shown_as_a_terminal_shows_them() {
        let log = b"\x1b[1;31merror\x1b[0m: x\r\n10%\r50%\r100%\n\
                    \x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\nc\x08d\xff\xe2\x80\xae\n\x1b[";
        assert_eq!(shown(log, 9), ["error: x", "100%", "ab", "cd\u{fffd}", ""]);
        assert_eq!(shown(log, 2), ["cd\u{fffd}", ""]);
        assert!(shown(b"", 5).is_empty());
        assert!(shown(b"a\n", 0).is_empty());
    }

    #[test]
    fn the_line_at_which_the_log_was_cut_is_left_out() {
        assert_eq!(whole_lines(b"56789012345\nnext", 16), Vec::<String>::from(["next".into()]));
        assert_eq!(whole_lines(b"a\nnext", 16).len(), 2);
        assert!(whole_lines(&vec![b'x'; LOG_TAIL], LOG_TAIL).is_empty(), "one line of 10 MB");
    }

    #[test]
    fn a_line_is_cut_after_its_secrets_are_replaced() {
        let before = "🦀".repeat(LINE - 6);
        let log = format!("{before} ghp_{}\n{before}12345🦀🦀", "a1".repeat(40));
        let lines = shown(log.as_bytes(), 2);
        assert_eq!(lines[0], format!("{before} ***"));
        assert_eq!(lines[1], format!("{before}12345🦀"));
    }

    #[test]
    fn a_key_that_begins_before_the_lines_that_are_shown_is_left_out() {
        let log =
            b"-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----\nx";
        assert_eq!(shown(log, 3), ["***", "***", "x"]);
    }
}
