//! What a platform's own code makes of runs before they are created.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    Error, Result, RunPhase, RunState,
    engine::{ConnectionOptions, Mutation, PlannedPipelineRun, RunMutator},
    repo::StatusState,
    store::Outcome,
};

use super::world::{CI, World};

/// Says what it was told to say, then lets everything through; puts a label on each run, and tries
/// to give it another name and other annotations.
#[derive(Debug, Clone, Default)]
struct Platform {
    answers: Arc<Mutex<VecDeque<Result<Mutation>>>>,
    asked: Arc<Mutex<usize>>,
}

impl Platform {
    fn says(answers: impl IntoIterator<Item = Result<Mutation>>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    fn world(&self) -> World {
        let mutator = Arc::new(self.clone());
        World::built(CI, ConnectionOptions::default(), |builder| builder.mutator(mutator))
    }
}

#[async_trait]
impl RunMutator for Platform {
    async fn mutate(&self, run: &mut PlannedPipelineRun<'_>) -> Result<Mutation> {
        *self.asked.lock().unwrap() += 1;
        run.pipeline_run["metadata"]["labels"]["example.com/queue"] = "ci".into();
        run.pipeline_run["metadata"]["name"] = "mine".into();
        for (_, value) in run.pipeline_run["metadata"]["annotations"].as_object_mut().unwrap() {
            *value = "mine".into();
        }
        self.answers.lock().unwrap().pop_front().unwrap_or(Ok(Mutation::Proceed))
    }
}

#[tokio::test]
async fn a_change_is_created_and_the_identity_of_the_run_is_put_back() {
    let world = Platform::default().world();
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let run = world.runs().await.remove(0);
    let created = world.sink.created().remove(0);
    assert_eq!(created.pipeline_run, run.pipeline_run);
    let metadata = &created.pipeline_run["metadata"];
    assert_eq!(metadata["labels"]["example.com/queue"], "ci");
    assert_eq!(metadata["name"], &*run.name);
    let annotations = metadata["annotations"].as_object().unwrap();
    assert!(annotations.values().all(|value| value != "mine"), "{annotations:?}");
    assert!(annotations.values().any(|value| value == run.key.as_str()), "{annotations:?}");
}

#[tokio::test]
async fn a_delayed_run_is_created_when_its_time_has_come_and_the_mutator_is_not_asked_again() {
    let delay = Mutation::Delay { by: SignedDuration::from_hours(1), reason: "a quota".to_owned() };
    let platform = Platform::says([Ok(delay)]);
    let world = platform.world();
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    world.passes(SignedDuration::from_mins(59));
    world.settles().await;
    assert!(world.sink.created().is_empty());
    let run = world.runs().await.remove(0);
    assert_eq!(run.state, RunState::Admitted);
    let told = "not before 2026-03-01T13:00:00Z: a quota";
    assert_eq!(run.message, told);
    let head = world.repo.head("main");
    let status = world.status(&head, "workflows/ci");
    assert_eq!((status.state, status.title), (StatusState::Queued, format!("Starting: {told}")));
    assert_eq!(status.summary.matches("not before").count(), 1, "{}", status.summary);
    let explained = world.explained(&run.event).await;
    assert!(explained.contains(&format!("ci/push: admitted; {told}\n")), "{explained}");

    world.passes(SignedDuration::from_mins(1));
    world.settles().await;
    assert_eq!(world.sink.created().len(), 1);
    let run = world.runs().await.remove(0);
    assert_eq!(run.message, "");
    assert_eq!(run.remarks["delayed"], told);
    assert_eq!(world.status(&head, "workflows/ci").title, "Running");
    let explained = world.explained(&run.event).await;
    assert!(explained.contains(&format!("; delayed: {told}")), "{explained}");
    assert_eq!(platform.asked(), 1);
}

#[tokio::test]
async fn a_veto_is_a_recorded_refusal_with_its_reason() {
    let veto = Mutation::Veto { reason: "the freeze lasts until Monday".to_owned() };
    let world = Platform::says([Ok(veto)]).world();
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    let denied = Outcome::Denied { rule: "the freeze lasts until Monday".to_owned() };
    assert_eq!(world.outcome(&event, "push").await, denied);
    assert!(world.runs().await.is_empty());
    assert!(world.sink.created().is_empty());
    let status = world.status(&world.repo.head("main"), "workflows/ci");
    assert_eq!(status.title, "the platform does not allow this run");
    assert_eq!(status.summary, "Denied by the rule: `the freeze lasts until Monday`");
    let explained = world.explained(&event.key).await;
    assert!(explained.contains("ci/push: denied: the freeze lasts until Monday"), "{explained}");
}

#[tokio::test]
async fn the_longest_of_several_delays_counts_and_every_reason_is_told() {
    let delay = |minutes, reason: &str| {
        let by = SignedDuration::from_mins(minutes);
        Arc::new(Platform::says([Ok(Mutation::Delay { by, reason: reason.to_owned() })]))
    };
    let (long, short) = (delay(60, "a quota"), delay(10, "a warm-up"));
    let world = World::built(CI, ConnectionOptions::default(), |builder| {
        builder.mutator(long).mutator(short)
    });
    world.sink.start_as(RunPhase::Pending);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let told = "not before 2026-03-01T13:00:00Z: a quota; a warm-up";
    assert_eq!(world.runs().await[0].message, told);
    let head = world.repo.head("main");
    world.passes(SignedDuration::from_mins(59));
    world.settles().await;
    assert!(world.sink.created().is_empty());
    world.passes(SignedDuration::from_mins(1));
    world.settles().await;
    assert_eq!(world.sink.created().len(), 1);
    // Though it has not started, its status does not say that it waits for what is over.
    assert_eq!(world.runs().await[0].state, RunState::Created);
    assert_eq!(world.status(&head, "workflows/ci").title, "Created");
}

#[tokio::test]
async fn a_mutator_that_does_not_answer_is_asked_again() {
    let platform = Platform::says([Err(Error::transient("ask the quota", "no answer"))]);
    let world = platform.world();
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    assert!(world.batches(&event.key).await.is_empty(), "nothing is decided yet");
    world.passes(SignedDuration::from_mins(1));
    world.settles().await;
    assert!(matches!(world.outcome(&event, "push").await, Outcome::Matched { .. }));
    assert_eq!(world.sink.created().len(), 1);
    assert_eq!(platform.asked(), 2);
    let head = world.repo.head("main");
    assert_eq!(world.shows(&head, "workflows/ci"), Some(StatusState::InProgress));
}

#[tokio::test]
async fn a_mutator_that_cannot_take_a_run_refuses_it_with_its_message() {
    let world = Platform::says([Err(Error::invalid("ask the quota", "no such team"))]).world();
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    let denied = Outcome::Denied { rule: "ask the quota: no such team".to_owned() };
    assert_eq!(world.outcome(&event, "push").await, denied);
    assert!(world.sink.created().is_empty());
}
