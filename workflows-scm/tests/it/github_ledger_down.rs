//! A ledger that is down while GitHub delivers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, EventSource, Result, Store,
    conformance::{StoreCall, StoreTap, TappedStore},
};
use workflows_github_standin::SentDelivery;
use workflows_scm::webhook::{DeliverySweep, WebhookReceiver, webhook_router};

use crate::{
    github_world::{As, GitHub},
    poll_support::Bench,
    process::SECRET,
};

/// A ledger that can be reached or not.
#[derive(Debug, Default)]
struct Line {
    is_down: AtomicBool,
}

#[async_trait]
impl StoreTap for Line {
    async fn before(&self, call: StoreCall) -> Result<()> {
        if call.writes() && self.is_down.load(Ordering::SeqCst) {
            return Err(Error::transient("reach the ledger", "nobody answers"));
        }
        Ok(())
    }
}

struct World {
    github: GitHub,
    bench: Bench,
    line: Arc<Line>,
    receiver: WebhookReceiver,
}

impl World {
    async fn new() -> Self {
        let github = GitHub::with_app();
        let mut bench = Bench::over(github.clock.clone());
        let driver = github.driver();
        let receiver = WebhookReceiver::new("webhook", "github", driver.deliveries())
            .secret(secrecy::SecretString::from(SECRET));
        bench.drive("github", Arc::new(driver));
        let line = Arc::new(Line::default());
        let tapped = TappedStore::new(bench.store.clone(), Arc::clone(&line) as _);
        let store: Arc<dyn Store> = Arc::new(tapped);
        let (context, _) = bench.context_of(receiver.name(), store);
        let running = receiver.clone();
        tokio::spawn(async move { running.run(context, CancellationToken::new()).await });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = webhook_router([("/hook", receiver.clone())]);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let As::App(app) = &github.known_as else { unreachable!("it is an App") };
        app.hook(&address, SECRET);
        Self { github, bench, line, receiver }
    }

    fn is_down(&self, is_down: bool) {
        self.line.is_down.store(is_down, Ordering::SeqCst);
    }

    /// What GitHub sent of the last push, and again.
    async fn pushes_sent(&self) -> Vec<SentDelivery> {
        self.github.hub.settle().await;
        let mut sent = self.github.hub.deliveries();
        sent.retain(|one| one.event == "push");
        sent
    }
}

#[tokio::test]
async fn what_was_refused_while_the_ledger_was_down_is_taken_in_when_it_is_sent_again() {
    let world = World::new().await;
    world.is_down(true);
    world.github.repo.push("main", &[("a", "1")]);
    let sent = world.pushes_sent().await;
    assert_eq!(sent[0].status, Some(503), "who sent it knows that it has to be sent again");
    assert_eq!(world.bench.heard().await, [""; 0]);

    world.is_down(false);
    for _ in 0..2 {
        world.github.hub.redeliver(sent[0].id);
    }
    let again = world.pushes_sent().await;
    let answers: Vec<Option<u16>> = again.iter().map(|one| one.status).collect();
    assert_eq!(answers, [Some(503), Some(202), Some(202)]);
    assert_eq!(world.bench.heard().await, ["updated refs/heads/main"]);
}

#[tokio::test]
async fn what_was_refused_while_the_ledger_was_down_is_found_in_the_log() {
    let mut world = World::new().await;
    let driver = world.github.driver();
    let log = Arc::new(driver.app_deliveries().unwrap());
    let minute = SignedDuration::from_mins(1);
    world.bench.start(DeliverySweep::of_log(world.receiver.clone(), log).every(minute).unwrap());
    world.bench.through().await;
    world.bench.clock.advance(SignedDuration::from_secs(1));
    world.is_down(true);
    world.github.repo.push("main", &[("a", "1")]);
    assert_eq!(world.pushes_sent().await[0].status, Some(503));
    world.is_down(false);
    world.bench.after(minute).await;
    assert_eq!(world.bench.heard().await, ["updated refs/heads/main"]);
    assert_eq!(world.pushes_sent().await.len(), 1, "GitHub was not asked to send it again");
    world.bench.stop().await;
}
