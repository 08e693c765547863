//! Statuses of runs that the engine did not create, which come out right whatever goes wrong.

use std::sync::Arc;

use proptest::prelude::*;
use workflows_core::{
    DeliveryKey, ErrorKind, NotificationView, Notifier, RunState, RunView, Transition,
    conformance::{ScmCall, ScriptedRepo, ScriptedScm},
    repo::StatusState,
};
use workflows_notify::StatusNotifier;

use crate::support::start;

/// Something that happens between a watcher, a run and a host.
#[derive(Debug, Clone)]
enum Step {
    /// The watcher sees the run in this place of its life, perhaps late and out of order.
    Sees(usize),
    Fail(ErrorKind),
    LoseAnswer,
    GoDown,
    ComeBack,
    /// The watcher starts again and remembers nothing.
    Restart,
}

const LIFE: [RunState; 4] =
    [RunState::Queued, RunState::Created, RunState::Running, RunState::Failed];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LIFE.len()).prop_map(Step::Sees),
        2 => prop_oneof![
            Just(ErrorKind::Transient),
            Just(ErrorKind::Denied),
            Just(ErrorKind::RateLimited { until: None }),
        ]
        .prop_map(Step::Fail),
        1 => Just(Step::LoseAnswer),
        1 => Just(Step::GoDown),
        1 => Just(Step::ComeBack),
        1 => Just(Step::Restart),
    ]
}

struct Watcher {
    scm: ScriptedScm,
    repo: ScriptedRepo,
    notifier: StatusNotifier,
    earlier: Option<String>,
}

impl Watcher {
    fn new() -> Self {
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        repo.push("alice", "main", &[("a", "1")]);
        let notifier = StatusNotifier::new(Arc::new(scm.clone()), scm.connection(), "watched");
        Self { scm, repo, notifier, earlier: None }
    }

    async fn sees(&mut self, state: RunState) -> bool {
        let mut run = RunView::new("uid", "acme/api", "release", state, start());
        run.commit = Some(self.repo.head("main"));
        let mut seen =
            NotificationView::new(DeliveryKey::new("k"), Transition::Progress, start(), run);
        seen.earlier = self.earlier.clone();
        match self.notifier.deliver(&seen).await {
            Ok(delivered) => {
                self.earlier = delivered.reference.or(self.earlier.take());
                true
            }
            Err(_) => false,
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Sees(place) => {
                self.sees(LIFE[*place]).await;
            }
            Step::Fail(kind) => self.scm.fail_next(ScmCall::ReportStatus, *kind, "told to"),
            Step::LoseAnswer => self.scm.lose_next_answer(ScmCall::ReportStatus),
            Step::GoDown => self.scm.go_down(),
            Step::ComeBack => self.scm.come_back(),
            Step::Restart => self.earlier = None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_commit_shows_how_the_run_ended_and_never_went_back(
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut watcher = Watcher::new();
            for step in &steps {
                watcher.take(step).await;
            }
            watcher.scm.come_back();
            let mut tries = 0;
            while !watcher.sees(RunState::Failed).await {
                tries += 1;
                assert!(tries < 100, "what was planned to fail is used up");
            }
            let commit = watcher.repo.head("main");
            let history = watcher.repo.status_history(&commit, "watched/release");
            let states: Vec<StatusState> = history.iter().map(|one| one.state).collect();
            assert_eq!(states.last(), Some(&StatusState::Failure));
            assert!(states.is_sorted_by_key(|state| state.rank()), "{states:?}");
        });
    }
}

#[tokio::test]
async fn a_run_without_a_commit_shows_nothing_and_a_host_without_statuses_says_so() {
    let watcher = Watcher::new();
    let run = RunView::new("uid", "acme/api", "release", RunState::Running, start());
    let key = DeliveryKey::new("k");
    let mut seen = NotificationView::new(key, Transition::Started, start(), run);
    watcher.notifier.deliver(&seen).await.unwrap();
    assert_eq!(watcher.scm.calls(ScmCall::ReportStatus), 0);

    let scm = ScriptedScm::new().without(workflows_core::Capability::StatusReporter);
    let repo = scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    seen.run.commit = Some(repo.head("main"));
    let notifier = StatusNotifier::new(Arc::new(scm.clone()), scm.connection(), "watched");
    let error = notifier.deliver(&seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Something that happens between a watcher, two runs of one name at one commit, and a host.
#[derive(Debug, Clone)]
enum Turn {
    /// Which run is seen, in which place of its life.
    Sees(usize, usize),
    Fail(ErrorKind),
    LoseAnswer,
    Restart,
}

fn turn() -> impl Strategy<Value = Turn> {
    let kinds = prop_oneof![Just(ErrorKind::Transient), Just(ErrorKind::Denied)];
    prop_oneof![
        8 => (0..2_usize, 0..LIFE.len()).prop_map(|(run, place)| Turn::Sees(run, place)),
        1 => kinds.prop_map(Turn::Fail),
        1 => Just(Turn::LoseAnswer),
        1 => Just(Turn::Restart),
    ]
}

/// A watcher of two runs.
struct OfTwo {
    scm: ScriptedScm,
    repo: ScriptedRepo,
    notifier: StatusNotifier,
    earlier: [Option<String>; 2],
    /// Whether this process has seen the newer run.
    has_seen_newer: bool,
}

impl OfTwo {
    fn new(takes_older_statuses: bool) -> Self {
        let scm = ScriptedScm::new();
        if takes_older_statuses {
            scm.takes_older_statuses();
        }
        let repo = scm.create("acme/api");
        repo.push("alice", "main", &[("a", "1")]);
        let notifier = StatusNotifier::new(Arc::new(scm.clone()), scm.connection(), "watched");
        Self { scm, repo, notifier, earlier: [None, None], has_seen_newer: false }
    }

    fn history(&self) -> Vec<workflows_core::repo::Status> {
        self.repo.status_history(&self.repo.head("main"), "watched/release")
    }

    async fn sees(&mut self, of: usize, state: RunState) -> bool {
        let created_at = start() + crate::support::seconds(of as i64);
        let mut run = RunView::new(format!("uid-{of}"), "acme/api", "release", state, created_at);
        run.commit = Some(self.repo.head("main"));
        let key = DeliveryKey::new(format!("{of}"));
        let mut seen = NotificationView::new(key, Transition::Progress, start(), run);
        seen.earlier = self.earlier[of].clone();
        let before = self.history().len();
        let delivered = self.notifier.deliver(&seen).await;
        if of == 0 && self.has_seen_newer {
            assert_eq!(self.history().len(), before, "an older run shows over a newer one");
        }
        self.has_seen_newer |= of == 1;
        match delivered {
            Ok(delivered) => {
                self.earlier[of] = delivered.reference.or(self.earlier[of].take());
                true
            }
            Err(_) => false,
        }
    }

    async fn take(&mut self, turn: &Turn) {
        match turn {
            Turn::Sees(of, place) => {
                self.sees(*of, LIFE[*place]).await;
            }
            Turn::Fail(kind) => self.scm.fail_next(ScmCall::ReportStatus, *kind, "told to"),
            Turn::LoseAnswer => self.scm.lose_next_answer(ScmCall::ReportStatus),
            Turn::Restart => {
                let scm = Arc::new(self.scm.clone());
                self.notifier = StatusNotifier::new(scm, self.scm.connection(), "watched");
                (self.earlier, self.has_seen_newer) = ([None, None], false);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn of_two_runs_the_newer_one_shows_and_neither_goes_back(
        turns in proptest::collection::vec(turn(), 0..40),
        takes_older_statuses in any::<bool>(),
        newer_last in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut watcher = OfTwo::new(takes_older_statuses);
            for turn in &turns {
                watcher.take(turn).await;
            }
            // Whoever watches tells how each run there is stands, until that gets through.
            let ends = [(0, RunState::Failed), (1, RunState::Succeeded)];
            let order = if newer_last { [0, 1] } else { [1, 0] };
            let mut tries = 0;
            for (of, state) in order.map(|n| ends[n]) {
                while !watcher.sees(of, state).await {
                    tries += 1;
                    assert!(tries < 100, "what was planned to fail is used up");
                }
            }
            let history = watcher.history();
            assert_eq!(history.last().unwrap().external_id.as_ref(), "uid-1");
            for of in ["uid-0", "uid-1"] {
                let of_run = history.iter().filter(|one| *one.external_id == *of);
                let ranks: Vec<u8> = of_run.map(|one| one.state.rank()).collect();
                assert!(ranks.is_sorted(), "{of}: {ranks:?}");
            }
        });
    }
}
