//! The webhook receiver and the sweep of a delivery log, between a scripted host and a ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::SignedDuration;
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    DeliveryId, Error, ErrorKind, EventSource, Result, SecretRef, StaticSecrets, Store,
    SubjectClaim, Tenant, Verified,
    conformance::{ScmCall, ScriptedRepo, ScriptedScm},
    repo::LoggedDelivery,
    store::{MemoryStore, ObservationQuery, RecordedObservation, StoreLimits},
};
use workflows_scm::webhook::{
    Answer, DeliveredRepo, Delivery, DeliveryFormat, DeliveryHeaders, DeliverySweep, TakenAs, Told,
    WebhookReceiver, sign_sha256, verify_sha256,
};

use crate::poll_support::{Bench, Told as Look};

/// Deliveries as the scripted host logs them: a claim as JSON.
#[derive(Debug, Clone, Default)]
struct Scripted {
    decoded: Arc<AtomicUsize>,
}

impl DeliveryFormat for Scripted {
    fn verify(
        &self,
        headers: &DeliveryHeaders,
        body: Bytes,
        secrets: &[SecretString],
    ) -> Result<Verified> {
        verify_sha256(body, headers.get("x-signature"), secrets)
    }

    fn decode(&self, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let told = serde_json::from_slice::<SubjectClaim>(body.body())
            .map(|claim| Told::Claims(vec![claim]))
            .map_err(|error| Error::invalid("read a scripted delivery", error.to_string()))?;
        let repo = headers.get("x-scripted-repository").and_then(|repo| repo.split_once(' '));
        Ok(Delivery {
            id: self.label(headers, body.body()).0,
            what: "scripted".into(),
            repo: repo.map(|(id, name)| DeliveredRepo { id: id.into(), name: name.into() }),
            sender: Some("ann".into()),
            occurred_at: None,
            told,
        })
    }

    fn label(&self, headers: &DeliveryHeaders, _: &Bytes) -> (DeliveryId, Arc<str>) {
        let id = headers.get("x-scripted-delivery").unwrap_or("none");
        (id.into(), "scripted".into())
    }

    fn serves(&self, repo: &str) -> bool {
        repo != "foreign"
    }
}

const SECRET: &str = "s3cret";

struct World {
    bench: Bench,
    scm: ScriptedScm,
    repo: ScriptedRepo,
    format: Scripted,
    receiver: WebhookReceiver,
    running: Option<(CancellationToken, JoinHandle<Result<()>>)>,
}

impl World {
    fn new() -> Self {
        let format = Scripted::default();
        let receiver = WebhookReceiver::new("hook", "scm", format.clone());
        Self::with(receiver.secret(SecretString::from(SECRET)), format)
    }

    fn with(receiver: WebhookReceiver, format: Scripted) -> Self {
        let scm = ScriptedScm::new();
        let bench = Bench::new("scm", Arc::new(scm.clone()));
        let repo = scm.create("api");
        repo.set_time("2026-01-01T00:00:00Z".parse().unwrap());
        Self { bench, scm, repo, format, receiver, running: None }
    }

    fn runs(&mut self) {
        self.runs_over(self.bench.store.clone());
    }

    fn runs_over(&mut self, store: Arc<dyn Store>) {
        let (context, _) = self.bench.context_of(self.receiver.name(), store);
        let shutdown = CancellationToken::new();
        let running = self.receiver.clone();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { running.run(context, shutdown).await }
        });
        self.running = Some((shutdown, task));
    }

    async fn stops(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    /// The host's newest delivery, as it is sent.
    async fn last_delivery(&self) -> (DeliveryHeaders, Bytes, LoggedDelivery) {
        use futures::TryStreamExt;
        use workflows_core::ScmDriver;
        let connection = self.scm.connect(&"scm".into(), "api").await.unwrap();
        let log = connection.delivery_log().unwrap();
        let logged: Vec<_> = log.list(jiff::Timestamp::UNIX_EPOCH).try_collect().await.unwrap();
        let payload = log.replay(&logged[0].id).await.unwrap();
        self.scm.forget_calls();
        (DeliveryHeaders::new(payload.headers), payload.body, logged[0].clone())
    }

    fn signed(headers: &DeliveryHeaders, body: &Bytes, secret: &str) -> DeliveryHeaders {
        let signature = sign_sha256(&SecretString::from(secret.to_owned()), body);
        let kept = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        DeliveryHeaders::new(kept.chain([("X-Signature".to_owned(), signature)]))
    }

    /// The host sends its newest delivery.
    async fn sends(&self) -> Answer {
        let (headers, body, _) = self.last_delivery().await;
        self.receiver.receive(&Self::signed(&headers, &body, SECRET), body).await
    }

    async fn recorded(&self) -> Vec<RecordedObservation> {
        let all = ObservationQuery::of(Tenant::default());
        self.bench.store.observations(all).await.unwrap().items
    }
}

/// Lets tasks that can go on do so.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_delivery_is_in_the_ledger_before_it_is_answered() {
    let mut world = World::new();
    world.runs();
    settle().await;
    world.repo.push("ann", "main", &[("a", "1")]);
    let answer = world.sends().await;
    assert_eq!((answer.status(), answer.taken()), (202, TakenAs::Event));
    let events = world.bench.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(answer.body()["events"][0], events[0].key.as_str());
    assert_eq!(events[0].source.as_str(), "hook");
    assert_eq!(events[0].sender.as_deref(), Some("ann"));
    assert!(events[0].payload.is_some(), "the raw payload is kept");

    let again = world.sends().await;
    assert_eq!((again.status(), again.taken()), (202, TakenAs::Duplicate));
    assert_eq!(world.bench.events().await.len(), 1);
}

#[tokio::test]
async fn nothing_is_read_of_what_is_not_signed_with_the_routes_secret() {
    let mut world = World::new();
    world.runs();
    settle().await;
    world.repo.push("ann", "main", &[("a", "1")]);
    let (headers, body, _) = world.last_delivery().await;
    let other = World::signed(&headers, &body, "another");
    let changed = World::signed(&headers, &Bytes::from_static(b"{}"), SECRET);
    for headers in [headers, other, changed] {
        let answer = world.receiver.receive(&headers, body.clone()).await;
        assert_eq!((answer.status(), answer.taken()), (401, TakenAs::Refused));
        assert!(!answer.body().to_string().contains(SECRET));
    }
    assert_eq!(world.format.decoded.load(Ordering::Relaxed), 0);
    assert_eq!(world.recorded().await, []);
    assert_eq!(world.scm.all_calls(), []);
}

#[tokio::test]
async fn without_a_secret_everything_is_refused() {
    let format = Scripted::default();
    let mut world = World::with(WebhookReceiver::new("hook", "scm", format.clone()), format);
    world.repo.push("ann", "main", &[("a", "1")]);
    assert_eq!(world.sends().await.status(), 401);
    world.runs();
    let (_, task) = world.running.take().unwrap();
    let error = task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no secret is configured"), "{error}");
}

#[tokio::test]
async fn a_secret_is_replaced_while_deliveries_come_in() {
    let reference = |key: &str| SecretRef { name: "hook".into(), key: key.into() };
    let format = Scripted::default();
    let receiver = WebhookReceiver::new("hook", "scm", format.clone())
        .secret(reference("new"))
        .secret(reference("old"))
        .secret(reference("gone"));
    let mut world = World::with(receiver, format);
    world.bench.secrets = StaticSecrets::new()
        .with(Tenant::default(), reference("new"), "next")
        .with(Tenant::default(), reference("old"), SECRET);
    world.runs();
    settle().await;
    world.repo.push("ann", "main", &[("a", "1")]);
    let (headers, body, _) = world.last_delivery().await;
    for (secret, status) in [(SECRET, 202), ("next", 202), ("third", 401), ("", 401)] {
        let headers = World::signed(&headers, &body, secret);
        assert_eq!(world.receiver.receive(&headers, body.clone()).await.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_engine_runs_waits_for_it() {
    let mut world = World::new();
    world.repo.push("ann", "main", &[("a", "1")]);
    let started = tokio::time::Instant::now();
    let answer = world.sends().await;
    assert_eq!((answer.status(), answer.retry_after()), (503, Some(10)));
    assert_eq!(started.elapsed(), Duration::from_secs(8));

    let (headers, body, _) = world.last_delivery().await;
    let early = World::signed(&headers, &body, SECRET);
    let receiver = world.receiver.clone();
    let early = tokio::spawn(async move { receiver.receive(&early, body).await });
    settle().await;
    assert!(!early.is_finished());
    world.runs();
    assert_eq!(early.await.unwrap().taken(), TakenAs::Event);
}

#[tokio::test(start_paused = true)]
async fn after_the_engine_stopped_the_sender_is_asked_to_come_back() {
    let mut world = World::new();
    world.repo.push("ann", "main", &[("a", "1")]);
    world.runs();
    settle().await;
    world.stops().await;
    let started = tokio::time::Instant::now();
    assert_eq!(world.sends().await.status(), 503);
    assert_eq!(started.elapsed(), Duration::ZERO, "it is not kept waiting");
    world.runs();
    settle().await;
    assert_eq!(world.sends().await.status(), 202);
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_acknowledged() {
    let mut world = World::new();
    // A ledger that takes in no payload of this size.
    let limits = StoreLimits::default().max_claim_bytes(10);
    let store = MemoryStore::with_limits(Arc::new(world.bench.clock.clone()), limits);
    world.runs_over(Arc::new(store));
    settle().await;
    world.repo.push("ann", "main", &[("a", "1")]);
    let answer = world.sends().await;
    assert_eq!((answer.status(), answer.taken()), (400, TakenAs::Invalid));
    assert!(answer.body()["reason"].as_str().unwrap().contains("max_claim_bytes"));
}

#[tokio::test]
async fn what_is_too_large_is_refused_unread() {
    let format = Scripted::default();
    let receiver = WebhookReceiver::new("hook", "scm", format.clone())
        .secret(SecretString::from(SECRET))
        .max_bytes(100);
    let mut world = World::with(receiver, format);
    world.runs();
    settle().await;
    world.repo.push("ann", "main", &[("a", "1")]);
    assert_eq!(world.sends().await.status(), 413);
    assert_eq!(world.recorded().await, []);
}

#[tokio::test]
async fn what_is_not_ours_and_what_cannot_be_read_is_on_record() {
    let mut world = World::new();
    world.runs();
    settle().await;
    world.repo.push("ann", "main", &[("a", "1")]);
    let (headers, body, _) = world.last_delivery().await;
    let foreign = DeliveryHeaders::new(
        headers
            .iter()
            .filter(|(name, _)| *name != "x-scripted-repository")
            .chain([("x-scripted-repository", "9 foreign")]),
    );
    let foreign = World::signed(&foreign, &body, SECRET);
    let answer = world.receiver.receive(&foreign, body).await;
    assert_eq!((answer.status(), answer.taken()), (202, TakenAs::Nothing));
    assert!(answer.body()["reason"].as_str().unwrap().contains("does not serve"));

    let broken = Bytes::from_static(b"{\"half\":");
    let headers = DeliveryHeaders::new([("x-scripted-delivery", "broken-1")]);
    let headers = World::signed(&headers, &broken, SECRET);
    let answer = world.receiver.receive(&headers, broken).await;
    assert_eq!((answer.status(), answer.taken()), (400, TakenAs::Invalid));

    let recorded = world.recorded().await;
    let reasons: Vec<_> = recorded.iter().map(|one| one.duplicate.clone().unwrap()).collect();
    assert!(reasons[0].contains("cannot be read"), "{reasons:?}");
    assert!(reasons[1].contains("does not serve"), "{reasons:?}");
    assert_eq!(recorded[0].delivery.as_str(), "broken-1");
    assert_eq!(world.bench.events().await, []);
}

// --- the sweep -----------------------------------------------------------------------------------

const FIVE_MINUTES: SignedDuration = SignedDuration::from_mins(5);

fn sweep(world: &World) -> DeliverySweep {
    DeliverySweep::of_repository(world.receiver.clone(), "api")
}

#[tokio::test]
async fn what_was_sent_while_the_program_was_away_is_taken_in_once_and_in_order() {
    let mut world = World::new();
    world.repo.push("ann", "main", &[("a", "0")]);
    world.bench.clock.advance(SignedDuration::from_secs(1));
    world.repo.set_time("2026-01-01T00:01:00Z".parse().unwrap());
    world.bench.clock.set("2026-01-01T00:01:00Z".parse().unwrap());
    world.bench.start(sweep(&world));
    world.bench.through().await;
    world.bench.stop().await;
    assert_eq!(world.bench.events().await, [], "what was sent before the first look is old");

    world.bench.clock.set("2026-01-01T01:00:00Z".parse().unwrap());
    world.repo.set_time("2026-01-01T00:30:00Z".parse().unwrap());
    world.repo.push("ann", "main", &[("a", "1")]);
    let (number, _) = world.repo.open_fork_pull_request("bob", "main", &[("a", "2")]);
    world.repo.comment("ann", number, "/ok-to-test");
    world.scm.forget_calls();
    world.bench.start(sweep(&world));
    world.bench.through().await;
    let heard = world.bench.heard().await;
    assert_eq!(heard[0], "updated refs/heads/main");
    assert!(heard.iter().any(|one| one.starts_with("opened pull/")), "{heard:?}");
    assert!(heard.last().unwrap().starts_with("created comment/"), "{heard:?}");
    let replayed = world.scm.calls(ScmCall::ReplayDelivery);
    assert!(replayed >= 3);

    world.bench.after(FIVE_MINUTES).await;
    assert_eq!(world.bench.heard().await, heard);
    assert_eq!(world.scm.calls(ScmCall::ReplayDelivery), replayed, "nothing is fetched twice");
    assert_eq!(world.scm.calls(ScmCall::ListDeliveries), 2);
    world.bench.stop().await;
}

#[tokio::test]
async fn the_first_look_and_each_that_found_something_are_followed_by_another_in_half_a_minute() {
    let half_a_minute = SignedDuration::from_secs(30);
    let mut world = World::new();
    world.bench.start(sweep(&world));
    world.bench.through().await;
    world.repo.set_time("2026-01-01T00:00:05Z".parse().unwrap());
    // As one that was answered too late to be in the log at the first look.
    world.repo.push("ann", "main", &[("a", "1")]);
    for found in ["created refs/heads/main", "created refs/heads/dev"] {
        world.bench.after(half_a_minute).await;
        assert_eq!(world.bench.heard().await.last().unwrap(), found);
        world.repo.push("ann", "dev", &[("a", "2")]);
    }
    world.bench.after(half_a_minute).await;
    assert_eq!(world.bench.heard().await.len(), 3);
    world.bench.after(half_a_minute).await;
    world.bench.clock.advance(FIVE_MINUTES - SignedDuration::from_secs(1));
    settle().await;
    assert!(world.bench.is_quiet(), "that one found nothing");
    world.bench.after(SignedDuration::from_secs(1)).await;
    world.bench.stop().await;
}

#[tokio::test]
async fn what_arrived_is_not_fetched_again_and_the_log_says_the_same() {
    let mut world = World::new();
    world.runs();
    settle().await;
    world.bench.start(sweep(&world));
    world.bench.through().await;
    world.bench.clock.set("2026-01-01T00:10:00Z".parse().unwrap());
    world.bench.through().await;
    world.repo.set_time("2026-01-01T00:10:00Z".parse().unwrap());
    world.repo.push("ann", "main", &[("a", "1")]);
    assert_eq!(world.sends().await.taken(), TakenAs::Event);
    world.bench.after(FIVE_MINUTES + SignedDuration::from_secs(60)).await;
    assert_eq!(world.scm.calls(ScmCall::ReplayDelivery), 0);
    assert_eq!(world.bench.events().await.len(), 1);
    world.bench.stop().await;
}

/// Lets time pass until a look is told of, a second at a time.
async fn look_in_time(bench: &mut Bench) -> Look {
    for _ in 0..1_000 {
        settle().await;
        if let Some(told) = bench.all_looks().await.pop() {
            return told;
        }
        bench.clock.advance(SignedDuration::from_secs(1));
    }
    panic!("no look ends")
}

#[tokio::test]
async fn what_cannot_be_read_at_once_is_read_a_second_later_and_in_its_turn() {
    let mut world = World::new();
    world.bench.start(sweep(&world));
    world.bench.through().await;
    world.repo.set_time("2026-01-01T00:01:00Z".parse().unwrap());
    world.repo.push("ann", "main", &[("a", "1")]);
    world.repo.push("ann", "main", &[("a", "2")]);
    world.scm.fail_next(ScmCall::ReplayDelivery, ErrorKind::Transient, "502");
    world.bench.clock.advance(FIVE_MINUTES);
    assert_eq!(look_in_time(&mut world.bench).await.failure, None);
    let heard = world.bench.heard().await;
    assert_eq!(heard, ["created refs/heads/main", "updated refs/heads/main"]);
    let now = workflows_core::Clock::now(&world.bench.clock);
    assert!(now < "2026-01-01T00:05:05Z".parse().unwrap(), "{now}");
    world.bench.stop().await;
}

#[tokio::test]
async fn a_delivery_that_the_log_keeps_no_longer_is_on_record_as_lost() {
    let mut world = World::new();
    world.bench.start(sweep(&world));
    world.bench.through().await;
    world.repo.set_time("2026-01-01T00:01:00Z".parse().unwrap());
    world.repo.push("ann", "main", &[("a", "3")]);
    let (_, _, lost) = world.last_delivery().await;
    world.repo.push("ann", "dev", &[("a", "4")]);
    world.scm.fail_next(ScmCall::ReplayDelivery, ErrorKind::NotFound, "404");
    world.bench.after(FIVE_MINUTES).await;
    assert_eq!(world.bench.heard().await, ["created refs/heads/dev"]);
    let recorded = world.recorded().await;
    let record = recorded.iter().find(|one| one.delivery == lost.delivery).unwrap();
    assert!(record.duplicate.as_ref().unwrap().contains("it is lost"), "{record:?}");

    let asked = world.scm.calls(ScmCall::ReplayDelivery);
    world.bench.after(FIVE_MINUTES).await;
    assert_eq!(world.scm.calls(ScmCall::ReplayDelivery), asked, "it is not asked for again");
    world.bench.stop().await;
}

#[tokio::test]
async fn a_look_that_a_limit_held_back_goes_on_when_the_limit_says() {
    use workflows_core::Clock;
    let mut world = World::new();
    world.bench.start(sweep(&world));
    world.bench.through().await;
    world.repo.set_time("2026-01-01T00:01:00Z".parse().unwrap());
    world.repo.push("ann", "main", &[("a", "1")]);
    world.bench.clock.advance(FIVE_MINUTES);
    for seconds in [3, 20] {
        let moment = SignedDuration::from_secs(seconds);
        let until = Some(world.bench.clock.now() + moment);
        world.scm.fail_next(ScmCall::ReplayDelivery, ErrorKind::RateLimited { until }, "slow down");
        let (kind, wait) = world.bench.look().await.failure.unwrap();
        assert_eq!((kind, wait), (ErrorKind::RateLimited { until }, moment));
        world.bench.clock.advance(wait);
    }
    world.bench.through().await;
    assert_eq!(world.bench.heard().await, ["created refs/heads/main"]);
    world.bench.stop().await;
}

#[tokio::test]
async fn a_new_ledger_looks_back_as_far_as_it_is_told() {
    let mut world = World::new();
    world.repo.push("ann", "main", &[("a", "1")]);
    world.bench.clock.advance(SignedDuration::from_hours(1));
    world.bench.start(sweep(&world).looking_back(SignedDuration::from_hours(2)));
    world.bench.through().await;
    assert_eq!(world.bench.heard().await, ["created refs/heads/main"]);
    world.bench.stop().await;
}

#[test]
fn a_sweep_has_an_interval() {
    let world = World::new();
    assert!(sweep(&world).every(SignedDuration::from_millis(10)).is_err());
    assert!(sweep(&world).every(SignedDuration::from_secs(30)).is_ok());
    assert_eq!(sweep(&world).name().as_str(), "hook-log/api");
}
