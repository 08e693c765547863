//! The suite for [`RunSink`].

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;

use super::case::{Failure, expect, expect_eq, expect_kind, suite};
use crate::{
    CancelMode, ErrorKind, RunKey, RunPhase, RunSink, RunStatus,
    sink::{RunRequest, SinkRun},
};

/// What a sink's author writes, so that the suite can make its runs end.
#[async_trait]
pub trait SinkFixture: Debug + Send + Sync + 'static {
    /// The sink.
    fn sink(&self) -> Arc<dyn RunSink>;

    /// A request for a run that, once created, runs until [`finish`](Self::finish) is called, and
    /// that can be cancelled meanwhile. Two calls with one name return the same request; the name is
    /// a DNS-1123 label.
    fn request(&self, name: &str) -> RunRequest;

    /// Makes a run end by itself, well or badly. Called once for a run that was created.
    async fn finish(&self, name: &str, well: bool);
}

type Fixture = Arc<dyn SinkFixture>;
type Outcome = Result<(), Failure>;

suite! {
    ($)
    /// Makes a `#[tokio::test]` of each case of the sink suite. Takes an expression that makes a
    /// future of an `Arc<dyn SinkFixture>`.
    sink_suite(std::sync::Arc<dyn SinkFixture>) in sink {
        a_run_is_created_by_the_first_call_alone,
        callers_at_the_same_time_create_one_run,
        two_keys_are_two_runs,
        a_run_that_is_not_known_is_not_found,
        a_new_run_has_not_ended,
        a_run_is_found_without_its_handle,
        a_run_that_ends_well_has_succeeded,
        a_run_that_ends_badly_has_failed,
        a_run_that_has_ended_is_not_created_again,
        a_cancelled_run_ends,
        cancelling_once_more_is_success,
        cancelling_what_has_ended_or_is_not_known_changes_nothing,
        changes_tell_of_a_run_that_ended,
    }
}

/// Longer than any sink takes in a test; only a case that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a sink without a stream of changes is asked.
const ASK_AGAIN: Duration = Duration::from_millis(20);

fn of(request: &RunRequest, handle: Option<Arc<str>>) -> SinkRun {
    SinkRun {
        key: request.key.clone(),
        tenant: request.tenant.clone(),
        name: request.name.clone(),
        handle,
    }
}

async fn create(fixture: &Fixture, name: &str) -> Result<SinkRun, Failure> {
    let request = fixture.request(name);
    let ensured = fixture.sink().ensure(&request).await?;
    expect(ensured.created, || format!("{name} was there before it was created"))?;
    Ok(of(&request, Some(ensured.handle)))
}

async fn ended(fixture: &Fixture, run: &SinkRun) -> Result<RunStatus, Failure> {
    let sink = fixture.sink();
    let wait = async {
        loop {
            let status = sink.state(run).await?;
            if status.phase.is_terminal() {
                return Ok(status);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::new(format!("run {} did not end", run.key))),
    }
}

async fn a_run_is_created_by_the_first_call_alone(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "once").await?;
    let again = fixture.sink().ensure(&fixture.request("once")).await?;
    expect(!again.created, || "the second call says that it created the run".into())?;
    expect_eq("the handle of the second call", &Some(again.handle), &run.handle)
}

async fn callers_at_the_same_time_create_one_run(fixture: Fixture) -> Outcome {
    let calls = (0..8).map(|_| {
        let (sink, request) = (fixture.sink(), fixture.request("together"));
        async move { sink.ensure(&request).await }
    });
    let mut created = 0;
    for answer in futures::future::join_all(calls).await {
        created += usize::from(answer?.created);
    }
    expect_eq("the calls that created the run", &created, &1)
}

async fn two_keys_are_two_runs(fixture: Fixture) -> Outcome {
    let (one, two) = (create(&fixture, "one").await?, create(&fixture, "two").await?);
    fixture.finish("one", true).await;
    expect_eq("the first", &ended(&fixture, &one).await?.phase, &RunPhase::Succeeded)?;
    let other = fixture.sink().state(&two).await?.phase;
    expect(!other.is_terminal(), || format!("the second ended with the first: {other:?}"))
}

async fn a_run_that_is_not_known_is_not_found(fixture: Fixture) -> Outcome {
    let run = of(&fixture.request("nobody"), None);
    expect_kind("the state", fixture.sink().state(&run).await, ErrorKind::NotFound)
}

async fn a_new_run_has_not_ended(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "new").await?;
    let phase = fixture.sink().state(&run).await?.phase;
    expect(!phase.is_terminal(), || format!("it has ended: {phase:?}"))
}

async fn a_run_is_found_without_its_handle(fixture: Fixture) -> Outcome {
    let run = SinkRun { handle: None, ..create(&fixture, "lost").await? };
    fixture.sink().state(&run).await?;
    fixture.sink().cancel(&run, CancelMode::AtOnce).await?;
    expect_eq("the phase", &ended(&fixture, &run).await?.phase, &RunPhase::Cancelled)
}

async fn a_run_that_ends_well_has_succeeded(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "well").await?;
    fixture.finish("well", true).await;
    expect_eq("the phase", &ended(&fixture, &run).await?.phase, &RunPhase::Succeeded)
}

async fn a_run_that_ends_badly_has_failed(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "badly").await?;
    fixture.finish("badly", false).await;
    expect_eq("the phase", &ended(&fixture, &run).await?.phase, &RunPhase::Failed)
}

async fn a_run_that_has_ended_is_not_created_again(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "ended").await?;
    fixture.finish("ended", true).await;
    ended(&fixture, &run).await?;
    let again = fixture.sink().ensure(&fixture.request("ended")).await?;
    expect(!again.created, || "it was created again".into())?;
    expect_eq("the phase", &fixture.sink().state(&run).await?.phase, &RunPhase::Succeeded)
}

async fn a_cancelled_run_ends(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "cancelled").await?;
    fixture.sink().cancel(&run, CancelMode::AtOnce).await?;
    expect_eq("the phase", &ended(&fixture, &run).await?.phase, &RunPhase::Cancelled)
}

async fn cancelling_once_more_is_success(fixture: Fixture) -> Outcome {
    let run = create(&fixture, "more").await?;
    for mode in [CancelMode::RunFinally, CancelMode::AtOnce, CancelMode::AfterRunningTasks] {
        fixture.sink().cancel(&run, mode).await?;
    }
    expect_eq("the phase", &ended(&fixture, &run).await?.phase, &RunPhase::Cancelled)
}

async fn cancelling_what_has_ended_or_is_not_known_changes_nothing(fixture: Fixture) -> Outcome {
    let unknown = of(&fixture.request("nobody"), None);
    fixture.sink().cancel(&unknown, CancelMode::AtOnce).await?;
    expect_kind("the state", fixture.sink().state(&unknown).await, ErrorKind::NotFound)?;

    let run = create(&fixture, "over").await?;
    fixture.finish("over", true).await;
    ended(&fixture, &run).await?;
    fixture.sink().cancel(&run, CancelMode::AtOnce).await?;
    expect_eq("the phase", &fixture.sink().state(&run).await?.phase, &RunPhase::Succeeded)
}

async fn changes_tell_of_a_run_that_ended(fixture: Fixture) -> Outcome {
    let sink = fixture.sink();
    // A sink without a stream is asked instead.
    let Some(mut changes) = sink.changes() else { return Ok(()) };
    let run = create(&fixture, "changes").await?;
    fixture.finish("changes", true).await;
    let told = async {
        while let Some(change) = changes.next().await {
            let is_it = change.key == run.key && change.tenant == run.tenant;
            if is_it && sink.state(&run).await.is_ok_and(|status| status.phase.is_terminal()) {
                return true;
            }
        }
        false
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap_or(false);
    expect(told, || format!("no change of {} was told once it had ended", run.key))
}

/// A fixture's own way to name keys: the key of a request for that name.
pub fn key_of(name: &str) -> RunKey {
    RunKey::from(crate::hash_of(&["conformance", name]))
}
