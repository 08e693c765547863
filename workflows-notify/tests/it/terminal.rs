//! What people read on the terminal.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use workflows_core::{
    DeliveryKey, NotificationView, Notifier, RunState, RunView, Transition,
    run::FailedStep,
    sink::{TaskPhase, TaskStatus},
};
use workflows_notify::{Colors, TerminalNotifier};

#[derive(Debug, Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run(state: RunState) -> RunView {
    let mut run =
        RunView::new("key", "acme/api", "ci", state, "2026-11-01T14:03:06Z".parse().unwrap());
    run.trigger = "push".into();
    run.reference = Some("refs/heads/feature/x".into());
    run.commit = Some("3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().unwrap());
    run.started_at = Some("2026-11-01T14:03:07Z".parse().unwrap());
    run
}

fn notification(key: &str, transition: Transition, run: RunView) -> NotificationView {
    let at = run.finished_at.unwrap_or(run.created_at);
    NotificationView::new(DeliveryKey::new(key), transition, at, run)
}

fn failed() -> RunView {
    let mut run = run(RunState::Failed);
    run.finished_at = Some("2026-11-01T14:03:19Z".parse().unwrap());
    run.failure = Some(FailedStep {
        task: "test".into(),
        step: "run".into(),
        exit_code: Some(1),
        last_lines: vec!["left: 1".into(), "\u{1b}[2Jright: 2".into()],
        annotations: Vec::new(),
    });
    run
}

#[tokio::test]
async fn a_failure_shows_the_step_and_its_last_lines_and_nothing_that_a_terminal_obeys() {
    let screen = Screen::default();
    let notifier = TerminalNotifier::new(screen.clone(), Colors::None);
    notifier.deliver(&notification("1", Transition::Failed, failed())).await.unwrap();
    assert_eq!(
        screen.text(),
        "14:03:19  ci/push  feature/x 3f2a1c5  failed after 12s in task test, step run (exit code 1)\n\
         \u{20}         | left: 1\n\
         \u{20}         | \u{fffd}[2Jright: 2\n"
    );
}

#[tokio::test]
async fn a_repeated_delivery_is_written_once() {
    let screen = Screen::default();
    let notifier = TerminalNotifier::new(screen.clone(), Colors::None);
    for key in ["1", "1", "2"] {
        notifier
            .deliver(&notification(key, Transition::Started, run(RunState::Running)))
            .await
            .unwrap();
    }
    assert_eq!(screen.text().lines().count(), 2);
}

#[tokio::test]
async fn progress_says_what_runs_and_how_much_is_done() {
    let screen = Screen::default();
    let notifier = TerminalNotifier::new(screen.clone(), Colors::None);
    let mut view = run(RunState::Running);
    view.tasks = [("clone", TaskPhase::Succeeded), ("test", TaskPhase::Running)]
        .into_iter()
        .map(|(name, phase)| TaskStatus {
            name: name.into(),
            phase,
            message: String::new(),
            started_at: None,
            finished_at: None,
            link: None,
            steps: Vec::new(),
        })
        .collect();
    notifier.deliver(&notification("1", Transition::Progress, view)).await.unwrap();
    assert_eq!(
        screen.text(),
        "14:03:07  ci/push  feature/x 3f2a1c5  running, 1 of 2 tasks done, now test\n"
    );
}

#[tokio::test]
async fn colours_are_there_only_when_they_are_asked_for() {
    for (colors, coloured) in [(Colors::Ansi, true), (Colors::None, false)] {
        let screen = Screen::default();
        let notifier = TerminalNotifier::new(screen.clone(), colors);
        notifier.deliver(&notification("1", Transition::Failed, failed())).await.unwrap();
        assert_eq!(screen.text().contains('\u{1b}'), coloured);
    }
}

#[tokio::test]
async fn a_terminal_that_does_not_take_it_is_tried_again() {
    #[derive(Debug)]
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let notifier = TerminalNotifier::new(Closed, Colors::None);
    let error =
        notifier.deliver(&notification("1", Transition::Failed, failed())).await.unwrap_err();
    assert!(error.kind().is_retryable());
    assert_eq!(error.to_string(), "write notification: the terminal did not take it");
}
