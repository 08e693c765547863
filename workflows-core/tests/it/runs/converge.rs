//! Whatever goes wrong on the way, in the end the host shows how the newest attempt ended.

use proptest::prelude::*;
use workflows_core::{
    AttemptId, Engine, ErrorKind, RunKey, RunPhase, RunState, RunStatus, TaskStatus,
    conformance::ScmCall, repo::StatusState, sink::TaskPhase,
};

use super::world::{HOURS, SECONDS, World};

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// The next report fails.
    Fail(ErrorKind),
    /// The next report comes to something, and its answer is lost.
    LoseAnswer,
    /// Nothing answers from now on.
    GoDown,
    /// Credentials are refused from now on.
    Refuse,
    /// All is well again.
    ComeBack,
    /// Time passes, and the engine does what is due.
    Later(i64),
    /// Time passes, and nothing is done.
    Sleep(i64),
    /// An attempt goes on or ends where it executes.
    Phase(usize, RunPhase),
    /// A task of an attempt ends.
    Progress(usize, usize),
    /// Another attempt is asked for.
    Again,
    /// Another process takes over.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let later = jiff::Timestamp::from_second(1_000_090).ok();
    let kinds = prop_oneof![
        3 => Just(ErrorKind::Transient),
        2 => Just(ErrorKind::RateLimited { until: later }),
        1 => Just(ErrorKind::RateLimited { until: None }),
        2 => Just(ErrorKind::Denied),
        1 => Just(ErrorKind::NotFound),
    ];
    let phases = prop_oneof![
        Just(RunPhase::Running),
        Just(RunPhase::Succeeded),
        Just(RunPhase::Failed),
        Just(RunPhase::TimedOut),
        Just(RunPhase::Cancelled),
    ];
    prop_oneof![
        3 => kinds.prop_map(Step::Fail),
        2 => Just(Step::LoseAnswer),
        1 => Just(Step::GoDown),
        1 => Just(Step::Refuse),
        2 => Just(Step::ComeBack),
        6 => (1_i64..120).prop_map(Step::Later),
        1 => (1_i64..500).prop_map(Step::Sleep),
        4 => (0_usize..4, phases).prop_map(|(which, phase)| Step::Phase(which, phase)),
        2 => (0_usize..4, 1_usize..5).prop_map(|(which, ended)| Step::Progress(which, ended)),
        2 => Just(Step::Again),
        2 => Just(Step::Restart),
    ]
}

struct Schedule {
    world: World,
    engine: Engine,
    attempts: Vec<RunKey>,
}

impl Schedule {
    async fn begin() -> Self {
        let world = World::new();
        let engine = world.another_engine();
        let first = world.plan(|_| {}).await;
        Self { world, engine, attempts: vec![first] }
    }

    async fn later(&self, seconds: i64) {
        self.world.clock.advance(SECONDS(seconds));
        self.engine.run_until_idle().await.unwrap();
    }

    async fn has_ended(&self, run: &RunKey) -> bool {
        self.world.state(run).await.is_terminal()
    }

    async fn take(&mut self, step: &Step) {
        let world = &self.world;
        match step {
            Step::Fail(kind) => world.scm.fail_next(ScmCall::ReportStatus, *kind, "told to"),
            Step::LoseAnswer => world.scm.lose_next_answer(ScmCall::ReportStatus),
            Step::GoDown => world.scm.go_down(),
            Step::Refuse => world.scm.refuse(ErrorKind::Denied, "bad credentials"),
            Step::ComeBack => world.scm.come_back(),
            Step::Later(seconds) => self.later(*seconds).await,
            Step::Sleep(seconds) => world.clock.advance(SECONDS(*seconds)),
            Step::Phase(which, phase) => {
                let run = &self.attempts[which % self.attempts.len()];
                if world.run(run).await.handle.is_some() && !self.has_ended(run).await {
                    world.sink.set_status(run, RunStatus::new(*phase));
                }
            }
            Step::Progress(which, ended) => {
                let run = &self.attempts[which % self.attempts.len()];
                if world.run(run).await.handle.is_some() && !self.has_ended(run).await {
                    let mut status = RunStatus::new(RunPhase::Running);
                    status.tasks = (0..*ended).map(task).collect();
                    world.sink.set_status(run, status);
                }
            }
            Step::Again => {
                let first = world.run(&self.attempts[0]).await;
                let attempt = AttemptId::new(format!("again-{}", self.attempts.len()));
                let again = world
                    .plan(|run| {
                        run.attempt = attempt;
                        run.commit = first.commit.clone();
                        run.event = first.event.clone();
                    })
                    .await;
                self.attempts.push(again);
            }
            Step::Restart => self.engine = world.another_engine(),
        }
    }

    /// All is well again, what still runs ends, and enough time passes.
    async fn end(&self) {
        self.world.scm.come_back();
        for _ in 0..3 {
            for run in &self.attempts {
                if self.world.run(run).await.handle.is_some() && !self.has_ended(run).await {
                    self.world.sink.set_phase(run, RunPhase::Succeeded);
                }
            }
            for _ in 0..30 {
                self.later(60).await;
            }
        }
        self.later(HOURS(1).as_secs()).await;
    }
}

fn task(number: usize) -> TaskStatus {
    TaskStatus {
        name: format!("t{number}").into(),
        phase: TaskPhase::Succeeded,
        message: String::new(),
        started_at: None,
        finished_at: None,
        link: None,
        steps: Vec::new(),
    }
}

fn shows(state: RunState) -> StatusState {
    match state {
        RunState::Succeeded => StatusState::Success,
        RunState::Failed => StatusState::Failure,
        RunState::TimedOut => StatusState::TimedOut,
        RunState::Cancelled => StatusState::Cancelled,
        other => panic!("no attempt of this test ends as {other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn in_the_end_the_host_shows_how_the_newest_attempt_ended(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut schedule = Schedule::begin().await;
            for step in &steps {
                schedule.take(step).await;
            }
            schedule.end().await;

            let world = &schedule.world;
            let newest = world.run(schedule.attempts.last().unwrap()).await;
            let commit = newest.commit.clone().unwrap();
            let history = world.repo.status_history(&commit, "workflows/ci");
            let shown = history.last().unwrap();
            assert_eq!(&*shown.external_id, newest.key.as_str());
            assert_eq!(shown.state, shows(newest.state));
            // No attempt came back after a newer one, and none went backwards.
            let order: Vec<usize> = history
                .iter()
                .map(|one| {
                    let is_of = |run: &RunKey| run.as_str() == &*one.external_id;
                    schedule.attempts.iter().position(is_of).unwrap()
                })
                .collect();
            assert!(order.is_sorted(), "{order:?}");
            let ranks: Vec<(usize, u8)> =
                order.into_iter().zip(history.iter().map(|one| one.state.rank())).collect();
            assert!(ranks.is_sorted(), "{ranks:?}");
        });
    }
}
