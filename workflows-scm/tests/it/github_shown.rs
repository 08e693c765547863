//! The whole engine between events and what GitHub shows.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use jiff::SignedDuration;
use proptest::prelude::*;
use workflows_core::{
    CommitId, Engine, Observation, Run, RunKey, RunPhase, RunState, RunStatus, Store, SubjectClaim,
    TaskStatus, Tenant,
    conformance::ScriptedSink,
    event::{Before, RefClaim, Seen},
    sink::TaskPhase,
    store::{MemoryStore, RunQuery},
};
use workflows_github_standin::Fault;

use super::github_world::{CONTEXT, GitHub};

const CI: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers:
  - { name: push, on: push }
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: none, script: 'true' }] }
";

/// An engine whose only host is a GitHub on loopback.
struct Shown {
    github: GitHub,
    store: Arc<dyn Store>,
    sink: ScriptedSink,
    engine: Engine,
    pushes: AtomicU32,
}

impl Shown {
    fn with_app() -> Self {
        let github = GitHub::with_app();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(github.clock.clone())));
        let sink = ScriptedSink::new();
        let engine = engine(&github, &store, &sink);
        Self { github, store, sink, engine, pushes: AtomicU32::new(0) }
    }

    /// Another process takes over.
    fn restart(&mut self) {
        self.engine = engine(&self.github, &self.store, &self.sink);
    }

    async fn idle(&self) {
        self.engine.run_until_idle().await.unwrap();
    }

    async fn later(&self, seconds: i64) {
        self.github.later(seconds);
        self.idle().await;
    }

    /// Time passes, and the engine does what is due each minute.
    async fn minutes(&self, minutes: u32) {
        for _ in 0..minutes {
            self.later(60).await;
        }
    }

    /// Somebody pushes, and the engine hears of it; what is due is not done yet.
    async fn push(&self) -> CommitId {
        let number = self.pushes.fetch_add(1, Ordering::SeqCst);
        let text = number.to_string();
        let files = [(".tekton/ci.yaml", CI), ("count", text.as_str())];
        let before = self.github.repo.branch("main").map(|id| id.parse().unwrap());
        let commit: CommitId = self.github.repo.push("main", &files).parse().unwrap();
        let connection = self.github.connect().await;
        let claim = RefClaim {
            name: "refs/heads/main".into(),
            after: Some(commit.clone()),
            before: Before::Was(before),
            forced: None,
        };
        let delivery = format!("push-{number}");
        let pushed = Observation::new(
            Tenant::default(),
            connection.repo().clone(),
            "test".into(),
            delivery.as_str().into(),
            Seen::Told,
            SubjectClaim::Ref(claim),
        );
        self.store.admit(vec![pushed], None).await.unwrap();
        commit
    }

    /// The runs for a commit, oldest first.
    async fn runs(&self, commit: &CommitId) -> Vec<Run> {
        let query = RunQuery::of(Tenant::default()).commit(Some(commit.clone()));
        let mut runs = self.store.runs(query).await.unwrap().items;
        runs.sort_by_key(|run| run.order);
        runs
    }

    /// `status`, `conclusion` of each check run of the workflow, oldest first.
    fn checks(&self, commit: &CommitId) -> Vec<(String, String, Option<String>)> {
        let all = self.github.repo.checks(commit.as_str()).into_iter();
        all.filter(|one| one.name == CONTEXT)
            .map(|one| (one.external_id, one.status, one.conclusion))
            .collect()
    }

    fn end(&self, run: &RunKey, phase: RunPhase) {
        self.sink.set_phase(run, phase);
    }
}

fn engine(github: &GitHub, store: &Arc<dyn Store>, sink: &ScriptedSink) -> Engine {
    Engine::builder()
        .clock(Arc::new(github.clock.clone()))
        .store(Arc::clone(store))
        .connection("github", Arc::new(github.driver()))
        .sink("sink", Arc::new(sink.clone()))
        .build()
        .unwrap()
}

fn ended(run: &RunKey, conclusion: &str) -> (String, String, Option<String>) {
    (run.to_string(), "completed".to_owned(), Some(conclusion.to_owned()))
}

#[tokio::test]
async fn a_run_is_shown_from_its_plan_to_its_end_in_three_calls() {
    let shown = Shown::with_app();
    shown.push().await;
    shown.idle().await;
    shown.github.hub.forget_calls();
    let commit = shown.push().await;
    let connecting = shown.github.hub.calls().len();
    shown.idle().await;
    let run = shown.runs(&commit).await.remove(0).key;
    shown.end(&run, RunPhase::Succeeded);
    shown.minutes(3).await;
    assert_eq!(shown.checks(&commit), [ended(&run, "success")]);
    let calls: Vec<String> = shown.github.hub.calls()[connecting..]
        .iter()
        .map(|call| format!("{} {}", call.method, call.route))
        .collect();
    let of_check = calls.iter().filter(|call| call.contains("check-runs")).count();
    assert!(of_check <= 3, "{calls:#?}");
}

#[tokio::test]
async fn with_the_checks_api_down_for_half_an_hour_runs_start_and_every_check_arrives() {
    let shown = Shown::with_app();
    let until = shown.github.clock_now() + SignedDuration::from_mins(30);
    shown.github.hub.fail_until("* *check-runs*", until, Fault::Status(502));
    let mut commits = Vec::new();
    for phase in [RunPhase::Succeeded, RunPhase::Failed, RunPhase::TimedOut] {
        let commit = shown.push().await;
        shown.idle().await;
        let run = shown.runs(&commit).await.remove(0);
        assert_eq!(run.state, RunState::Running, "it does not wait for its check");
        commits.push((commit, run.key, phase));
        shown.minutes(5).await;
    }
    for (_, run, phase) in &commits[..2] {
        shown.end(run, *phase);
    }
    shown.minutes(5).await;
    assert!(commits.iter().all(|(commit, ..)| shown.checks(commit).is_empty()));
    shown.minutes(20).await;
    shown.end(&commits[2].1, commits[2].2);
    shown.minutes(10).await;
    for ((commit, run, _), conclusion) in commits.iter().zip(["success", "failure", "timed_out"]) {
        assert_eq!(shown.checks(commit), [ended(run, conclusion)]);
    }
}

#[tokio::test]
async fn a_run_of_three_hours_is_shown_to_its_end_across_tokens_an_outage_and_a_restart() {
    let mut shown = Shown::with_app();
    let commit = shown.push().await;
    shown.idle().await;
    let run = shown.runs(&commit).await.remove(0).key;
    let task = |number: u32| TaskStatus {
        name: format!("task-{number}").into(),
        phase: TaskPhase::Succeeded,
        message: String::new(),
        started_at: None,
        finished_at: None,
        link: None,
        steps: Vec::new(),
    };
    for ten in 0..18 {
        let mut status = RunStatus::new(RunPhase::Running);
        status.tasks = (0..ten).map(task).collect();
        shown.sink.set_status(&run, status);
        match ten {
            6 => {
                let until = shown.github.clock_now() + SignedDuration::from_mins(30);
                shown.github.hub.fail_until("* *", until, Fault::Status(503));
            }
            7 => shown.restart(),
            12 => shown.github.hub.revoke_installation_tokens(),
            _ => {}
        }
        shown.minutes(10).await;
    }
    assert_eq!(shown.checks(&commit)[0].1, "in_progress");
    shown.end(&run, RunPhase::Succeeded);
    shown.minutes(10).await;
    assert_eq!(shown.checks(&commit), [ended(&run, "success")]);
    let minted = shown.github.hub.count("POST */access_tokens");
    assert!(minted >= 4, "{minted} tokens in three hours");
}

/// Something that happens on the way.
#[derive(Debug, Clone)]
enum Step {
    Fault(Fault),
    Outage(i64),
    TokensRevoked,
    Restart,
    Later(i64),
    Phase(RunPhase),
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let faults = prop_oneof![
        2 => Just(Fault::LostAnswer),
        1 => Just(Fault::Truncated),
        1 => Just(Fault::Status(500)),
        1 => Just(Fault::Status(502)),
        1 => Just(Fault::NotYetThere),
        1 => Just(Fault::TooManyRequests(Some(20))),
        1 => Just(Fault::SecondaryLimit(None)),
    ];
    let phases =
        prop_oneof![Just(RunPhase::Running), Just(RunPhase::Succeeded), Just(RunPhase::Failed)];
    prop_oneof![
        5 => faults.prop_map(Step::Fault),
        1 => (1_i64..600).prop_map(Step::Outage),
        1 => Just(Step::TokensRevoked),
        1 => Just(Step::Restart),
        5 => (1_i64..200).prop_map(Step::Later),
        3 => phases.prop_map(Step::Phase),
        1 => Just(Step::Again),
    ]
}

async fn converges(shown: &mut Shown, steps: &[Step]) {
    let commit = shown.push().await;
    let first = loop {
        shown.later(1).await;
        if let Some(run) = shown.runs(&commit).await.first() {
            break run.key.clone();
        }
    };
    for (number, step) in steps.iter().enumerate() {
        let hub = &shown.github.hub;
        match step {
            Step::Fault(fault) => hub.fail("* *check-runs*", 1, *fault),
            Step::Outage(seconds) => {
                let until = shown.github.clock_now() + SignedDuration::from_secs(*seconds);
                hub.fail_until("* *check-runs*", until, Fault::Status(503));
            }
            Step::TokensRevoked => hub.revoke_installation_tokens(),
            Step::Restart => shown.restart(),
            Step::Later(seconds) => shown.later(*seconds).await,
            Step::Phase(phase) => {
                let newest = shown.runs(&commit).await.pop().unwrap();
                if newest.handle.is_some() && !newest.state.is_terminal() {
                    shown.end(&newest.key, *phase);
                }
            }
            Step::Again => {
                let key = format!("{commit}-{number}");
                let tenant = Tenant::default();
                shown.engine.handle().rerun(&tenant, &first, &key, "alice").await.unwrap();
            }
        }
    }
    shown.github.hub.mend();
    for _ in 0..3 {
        for run in shown.runs(&commit).await {
            if run.handle.is_some() && !run.state.is_terminal() {
                shown.end(&run.key, RunPhase::Succeeded);
            }
        }
        shown.minutes(20).await;
    }
    let runs = shown.runs(&commit).await;
    let newest = runs.last().unwrap();
    let conclusion = if newest.state == RunState::Succeeded { "success" } else { "failure" };
    let checks = shown.checks(&commit);
    assert_eq!(checks.last().unwrap(), &ended(&newest.key, conclusion), "{checks:?}");
    assert!(checks.iter().all(|(_, status, _)| status == "completed"), "{checks:?}");
    let mut ids: Vec<&String> = checks.iter().map(|(id, ..)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), checks.len(), "each run has one check run: {checks:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn in_the_end_github_shows_how_the_newest_attempt_ended(
        steps in proptest::collection::vec(step(), 1..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { converges(&mut Shown::with_app(), &steps).await });
    }
}
