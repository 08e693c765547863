//! Hundreds of deliveries that reached nobody, and a log that fails now and then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use workflows_core::{
    Error, ErrorKind, EventSource, Result, Store,
    repo::{DeliveredPayload, DeliveryLog, LoggedDelivery},
    store::ObservationQuery,
};
use workflows_github_standin::Fault;
use workflows_scm::{
    github::{GitHubCredentials, GitHubDeliveryLog, GitHubDriver},
    webhook::{DeliverySweep, WebhookReceiver},
};

use crate::{
    github_world::{As, GitHub},
    poll_support::{Bench, Told},
    process::SECRET,
};

const HALF_A_MINUTE: SignedDuration = SignedDuration::from_secs(30);
const ONE: &str = "GET /app/hook/deliveries/{delivery_id}";
const PAGE: &str = "GET /app/hook/deliveries";

struct World {
    github: GitHub,
    bench: Bench,
    driver: GitHubDriver,
}

impl World {
    /// With an App whose webhook leads nowhere, so that the log alone tells.
    fn new() -> Self {
        let github = GitHub::with_app();
        let As::App(app) = &github.known_as else { unreachable!("it is an App") };
        app.hook("http://127.0.0.1:9/", SECRET);
        let driver = github.driver();
        let mut bench = Bench::over(github.clock.clone());
        bench.drive("github", Arc::new(driver.clone()));
        Self { github, bench, driver }
    }

    fn sweep(&self, driver: &GitHubDriver) -> DeliverySweep {
        let receiver = WebhookReceiver::new("webhook", "github", driver.deliveries())
            .secret(SecretString::from(SECRET));
        let log = Arc::new(driver.app_deliveries().unwrap());
        DeliverySweep::of_log(receiver, log).every(HALF_A_MINUTE).unwrap()
    }

    async fn start(&mut self) {
        let sweep = self.sweep(&self.driver);
        self.bench.start(sweep);
        self.bench.through().await;
        self.github.later(1);
    }

    /// So many comments on a pull request. The numbers of their deliveries in the log.
    async fn comments(&self, many: usize) -> Vec<u64> {
        let repo = &self.github.repo;
        repo.push("topic", &[("a", "1")]);
        let number = repo.open_pull_request("Do it", "topic", "main");
        for one in 0..many {
            repo.comment(number, &format!("{one}"));
        }
        self.github.hub.settle().await;
        let sent = self.github.hub.deliveries();
        sent.iter().filter(|one| one.event == "issue_comment").map(|one| one.id).collect()
    }

    /// How the next look goes; time passes until then.
    async fn look(&mut self) -> Told {
        let clock = self.github.clock.clone();
        let ticking = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                clock.advance(SignedDuration::from_secs(1));
            }
        });
        let told = self.bench.look().await;
        ticking.abort();
        told
    }

    /// How often each delivery was asked for.
    fn asked(&self) -> BTreeMap<u64, usize> {
        let mut asked = BTreeMap::new();
        for call in self.github.hub.calls() {
            if let Some(id) = call.path.strip_prefix("/app/hook/deliveries/") {
                *asked.entry(id.parse().unwrap()).or_default() += 1;
            }
        }
        asked
    }

    async fn commented(&self) -> usize {
        let events = self.bench.all_events().await;
        events.iter().filter(|one| one.subject.as_str().starts_with("comment/")).count()
    }
}

fn at(id: u64) -> String {
    format!("GET /app/hook/deliveries/{id}")
}

#[tokio::test]
async fn of_hundreds_that_were_missed_one_that_always_fails_is_left_and_the_others_run() {
    let mut world = World::new();
    world.start().await;
    let ids = world.comments(350).await;
    let hub = &world.github.hub;
    hub.forget_calls();
    for once in [3, 4, 77, 150, 151, 349] {
        hub.fail(&at(ids[once]), 1, Fault::Status(502));
    }
    hub.fail(&at(ids[200]), u32::MAX, Fault::Status(502));
    let (kind, wait) = world.look().await.failure.expect("one is left");
    assert_eq!(kind, ErrorKind::Transient);
    assert!(wait <= SignedDuration::from_secs(10), "{wait}");
    assert_eq!(world.commented().await, 349);
    let subjects: Vec<_> =
        world.bench.all_events().await.into_iter().rev().map(|one| one.sequence).collect();
    assert!(subjects.is_sorted(), "oldest first");
    // Besides the comments the push and the pull request, and not what came of the push besides
    // (`create`).
    let asked = world.asked();
    assert_eq!(asked.len(), 350 + 2);
    let more_than_once: Vec<u64> =
        asked.iter().filter(|(_, times)| **times > 1).map(|(id, _)| *id).collect();
    assert_eq!(more_than_once, [3, 4, 77, 150, 151, 200, 349].map(|one| ids[one]));

    // Another process goes on with it, and looks through no more than it has to.
    world.bench.stop().await;
    world.github.later(10);
    world.github.hub.forget_calls();
    let sweep = world.sweep(&world.github.driver());
    world.bench.start(sweep);
    let told = world.look().await;
    assert!(told.failure.is_some(), "{told:?}");
    assert_eq!(world.asked().into_keys().collect::<Vec<_>>(), [ids[200]]);
    world.github.hub.mend();
    while world.look().await.failure.is_some() {}
    assert_eq!(world.commented().await, 350);
    world.bench.stop().await;
}

#[tokio::test]
async fn what_is_sent_before_the_log_was_ever_read_counts_whatever_comes_between() {
    let mut world = World::new();
    // It is ready, and ends before it asks GitHub anything.
    let sweep = world.sweep(&world.driver);
    let (context, _told) = world.bench.context(sweep.name());
    sweep.begin(&context).await.unwrap();
    sweep.begin(&context).await.unwrap();
    assert_eq!(world.github.hub.count(PAGE), 0);
    world.github.later(1);
    world.comments(1).await;
    // The next one cannot read the log and ends, too.
    world.github.later(5);
    world.github.hub.fail(PAGE, u32::MAX, Fault::Status(502));
    world.bench.start(world.sweep(&world.driver));
    assert!(world.look().await.failure.is_some());
    world.bench.stop().await;
    world.github.repo.push("other", &[("a", "2")]);
    world.github.hub.settle().await;
    world.github.later(600);
    world.github.hub.mend();
    world.bench.start(world.sweep(&world.driver));
    while world.look().await.failure.is_some() {}
    assert_eq!(world.commented().await, 1);
    let heard = world.bench.heard().await;
    assert!(heard.iter().any(|one| one.contains("refs/heads/other")), "{heard:?}");
    world.bench.stop().await;
}

#[tokio::test]
async fn what_is_sent_while_the_first_looks_fail_counts() {
    let mut world = World::new();
    world.github.hub.fail(PAGE, 7, Fault::Status(502));
    world.bench.start(world.sweep(&world.driver));
    assert!(world.look().await.failure.is_some());
    world.comments(2).await;
    while world.look().await.failure.is_some() {}
    assert_eq!(world.commented().await, 2);
    world.bench.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_listed_for_a_while_is_asked_again_soon() {
    let mut world = World::new();
    world.start().await;
    world.comments(3).await;
    world.github.hub.fail(PAGE, 3, Fault::Status(502));
    let mut waits = Vec::new();
    loop {
        let told = world.look().await;
        match told.failure {
            Some((_, wait)) => waits.push(wait.as_secs()),
            None => break,
        }
    }
    assert_eq!(waits, [10, 20, 40]);
    assert_eq!(world.commented().await, 3);
    world.bench.stop().await;
}

#[tokio::test]
async fn while_github_fails_altogether_the_look_ends_and_nothing_is_given_up() {
    let mut world = World::new();
    world.start().await;
    world.comments(60).await;
    world.github.hub.forget_calls();
    world.github.hub.fail(ONE, u32::MAX, Fault::Status(503));
    let told = world.look().await;
    assert_eq!(told.failure.map(|(kind, _)| kind), Some(ErrorKind::Transient));
    let asked = world.github.hub.count(ONE);
    assert!((48..=72).contains(&asked), "sixteen in a row, three times each: {asked}");
    world.github.hub.mend();
    while world.look().await.failure.is_some() {}
    assert_eq!(world.commented().await, 60);
    world.bench.stop().await;
}

#[tokio::test]
async fn what_is_lost_is_on_record() {
    let mut world = World::new();
    world.start().await;
    let ids = world.comments(5).await;
    world.github.hub.fail(&at(ids[2]), 1, Fault::Status(404));
    let told = world.look().await;
    assert_eq!(told.failure, None);
    assert_eq!(world.commented().await, 4);
    let query = ObservationQuery::of(Default::default());
    let recorded = world.bench.store.observations(query).await.unwrap().items;
    let is_lost = |reason: &Option<String>| reason.as_ref().is_some_and(|it| it.contains("lost"));
    let lost = recorded.iter().filter(|one| is_lost(&one.duplicate));
    let lost: Vec<String> = lost.map(|one| one.delivery.to_string()).collect();
    let sent = world.github.hub.deliveries();
    let guid = sent.iter().find(|one| one.id == ids[2]).map(|one| one.guid.clone());
    assert_eq!(lost, [guid.unwrap()]);
    world.bench.stop().await;
}

#[tokio::test]
async fn what_nothing_can_come_of_is_not_fetched() {
    let mut world = World::new();
    let As::App(app) = &world.github.known_as else { unreachable!("it is an App") };
    let (id, key) = (app.id(), app.private_key().to_owned());
    let driver = GitHubDriver::builder()
        .base(world.github.hub.api())
        .credentials(GitHubCredentials::app(id, SecretString::from(key)))
        .clock(Arc::new(world.github.clock.clone()))
        .allow("acme/api")
        .build()
        .unwrap();
    world.driver = driver;
    let foreign = world.github.hub.create_repo("acme/other");
    world.start().await;
    world.github.hub.forget_calls();
    foreign.push("main", &[("a", "1")]);
    world.github.hub.settle().await;
    assert_eq!(world.look().await.failure, None);
    // One tells what the repository is called, and nobody asks for an hour what happens there.
    assert_eq!(world.github.hub.count(ONE), 1);
    foreign.push("main", &[("a", "2")]);
    world.github.repo.push("topic", &[("a", "2")]);
    world.github.hub.settle().await;
    assert_eq!(world.look().await.failure, None);
    let events: Vec<_> =
        world.github.hub.deliveries().iter().map(|one| one.event.clone()).collect();
    assert!(events.iter().any(|one| one == "create"), "{events:?}");
    assert_eq!(world.github.hub.count(ONE), 2, "the push, and not the creation of the branch");
    assert_eq!(world.bench.heard().await, ["created refs/heads/topic"]);
    world.bench.stop().await;
}

/// A log with more pages than are read.
#[derive(Debug)]
struct Endless(GitHubDeliveryLog);

#[async_trait]
impl DeliveryLog for Endless {
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>> {
        let no_end = Error::invalid("list deliveries", "the pages of the answer do not end");
        self.0.list(since).chain(stream::iter([Err(no_end)])).boxed()
    }

    async fn replay(&self, id: &str) -> Result<DeliveredPayload> {
        self.0.replay(id).await
    }
}

#[tokio::test]
async fn beyond_the_most_pages_it_says_so_and_goes_on() {
    let mut world = World::new();
    let receiver = WebhookReceiver::new("webhook", "github", world.driver.deliveries());
    let log = Arc::new(Endless(world.driver.app_deliveries().unwrap()));
    let sweep = DeliverySweep::of_log(receiver, log).every(HALF_A_MINUTE).unwrap();
    world.comments(3).await;
    world.github.later(1);
    world.bench.start(sweep.looking_back(SignedDuration::from_hours(1)));
    let told = world.look().await;
    assert_eq!(told.failure, Some((ErrorKind::Invalid, HALF_A_MINUTE)));
    assert_eq!(world.commented().await, 3);
    world.bench.stop().await;
}
