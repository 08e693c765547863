//! Whom runs tell, and what is told where there is no run.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use workflows_core::{
    DefaultPolicy, Delivered, NotificationView, Notifier, Policy, Result, RunPhase, RunState,
    Tenant, Transition,
    engine::{ConnectionOptions, NotifyPolicy},
    policy::{Facts, PlannedRun, Verdict},
    workflow::Notification,
};

use super::world::{World, workflow};

/// Keeps what it was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Vec<NotificationView>>>);

impl Recorder {
    pub(super) fn told(&self) -> Vec<NotificationView> {
        self.0.lock().unwrap().clone()
    }

    fn transitions(&self) -> Vec<Transition> {
        self.told().iter().map(|one| one.transition).collect()
    }
}

#[async_trait]
impl Notifier for Recorder {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        self.0.lock().unwrap().push(notification.clone());
        Ok(Delivered::default())
    }
}

/// An engine with the notifiers `team` and `audit`.
fn world(spec: &str, options: ConnectionOptions, policy: NotifyPolicy) -> (World, [Recorder; 2]) {
    let [team, audit] = [Recorder::default(), Recorder::default()];
    let notifiers = [team.clone(), audit.clone()];
    let world = World::built(&workflow("ci", spec), options, |builder| {
        builder.notifier("team", Arc::new(team)).notifier("audit", Arc::new(audit)).notify(policy)
    });
    (world, notifiers)
}

const PUSH: &str = "\n  triggers: [{ name: push, on: push }]";
const END: [Transition; 1] = [Transition::Succeeded];

async fn succeeds(world: &World) {
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let run = world.runs().await.remove(0);
    world.sink.set_phase(&run.key, RunPhase::Succeeded);
    world.passes(jiff::SignedDuration::from_secs(30));
    world.settles().await;
}

/// Whether `team` and `audit` were told of the end of a run.
async fn told(spec: &str, options: ConnectionOptions, policy: NotifyPolicy) -> (bool, bool) {
    let (world, [team, audit]) = world(&format!("{PUSH}{spec}"), options, policy);
    succeeds(&world).await;
    (!team.told().is_empty(), !audit.told().is_empty())
}

#[tokio::test]
async fn the_closest_that_says_anything_counts_and_some_are_told_in_any_case() {
    let team = || vec![Notification::new("team", END)];
    let audit = || vec![Notification::new("audit", END)];
    let nothing = ConnectionOptions::default;
    let own = "\n  notify: [{ notifier: audit, on: [succeeded] }]";
    let by_default = || NotifyPolicy::new().by_default(team());
    assert_eq!(told("", nothing(), NotifyPolicy::new()).await, (false, false));
    assert_eq!(told("", nothing(), by_default()).await, (true, false));
    assert_eq!(told("", nothing().with_notify(audit()), by_default()).await, (false, true));
    assert_eq!(told("", nothing().with_notify([]), by_default()).await, (false, false));
    assert_eq!(told(own, nothing(), by_default()).await, (false, true));
    assert_eq!(told("\n  notify: []", nothing(), by_default()).await, (false, false));
    let always = by_default().always(audit());
    assert_eq!(told("\n  notify: []", nothing(), always).await, (false, true));
}

#[tokio::test]
async fn who_is_told_can_be_said_while_the_engine_works_besides_what_it_was_built_with() {
    let tenant = Tenant::default();
    let built = NotifyPolicy::new().by_default([Notification::new("team", END)]);
    let (world, [team, audit]) = world(PUSH, ConnectionOptions::default(), built);
    let counts = || (team.told().len(), audit.told().len());
    let says = |policy| world.engine.handle().set_notify_policy(&tenant, policy);
    let one_more = async |content: &str| {
        world.hears(world.repo.push("alice", "main", &[("a", content)])).await;
        let run = world.runs().await.pop().unwrap();
        world.sink.set_phase(&run.key, RunPhase::Succeeded);
        world.passes(jiff::SignedDuration::from_secs(30));
        world.settles().await;
        run
    };
    one_more("1").await;
    assert_eq!(counts(), (1, 0));
    says(NotifyPolicy::new().always([Notification::new("audit", END)]));
    let run = one_more("2").await;
    assert_eq!(counts(), (2, 1));
    assert_eq!(run.asked_notifiers, []);
    says(NotifyPolicy::new().by_default([Notification::new("audit", END)]));
    one_more("3").await;
    assert_eq!(counts(), (2, 2));
    says(NotifyPolicy::new());
    one_more("4").await;
    assert_eq!(counts(), (3, 2));
}

#[tokio::test]
async fn a_policy_is_asked_about_what_a_workflow_asks_for_and_about_nothing_else() {
    let spec = "
  triggers: [{ name: push, on: push }]
  concurrency: [{ group: all, strategy: queue, maxRunning: 1 }]";
    let asked = NotifiersAsked::default();
    let built = NotifyPolicy::new().by_default([Notification::new("team", END)]);
    let world = World::built(&workflow("ci", spec), ConnectionOptions::default(), |builder| {
        let [team, audit] = [Recorder::default(), Recorder::default()];
        let builder = builder.notifier("team", Arc::new(team)).notifier("audit", Arc::new(audit));
        builder.notify(built).policy(Arc::new(asked.clone()))
    });
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    world.hears(world.repo.push("alice", "main", &[("a", "2")])).await;
    // The second run was planned when others were told by default than when it is created.
    let default = NotifyPolicy::new().by_default([Notification::new("audit", END)]);
    world.engine.handle().set_notify_policy(&Tenant::default(), default);
    let first = world.runs().await.remove(0);
    world.sink.set_phase(&first.key, RunPhase::Succeeded);
    world.passes(jiff::SignedDuration::from_secs(30));
    world.settles().await;
    assert_eq!(world.runs().await[1].state, RunState::Running);
    assert_eq!(*asked.0.lock().unwrap(), [""; 4]);

    let own = workflow("ci", &format!("{spec}\n  notify: [{{ notifier: audit, on: [started] }}]"));
    world.hears(world.repo.push("alice", "main", &[(".tekton/ci.yaml", &own)])).await;
    assert_eq!(asked.0.lock().unwrap().last().unwrap(), "audit");
}

/// Allows everything, and keeps which notifiers it was asked about.
#[derive(Debug, Clone, Default)]
struct NotifiersAsked(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Policy for NotifiersAsked {
    async fn decide(&self, facts: &Facts) -> Result<Verdict> {
        DefaultPolicy.decide(facts).await
    }

    async fn judge(&self, run: &PlannedRun<'_>) -> Result<Verdict> {
        self.0.lock().unwrap().push(run.notifiers.join(","));
        Ok(Verdict::Allow)
    }

    fn version(&self, _: &Tenant) -> String {
        "1".to_owned()
    }
}

#[test]
fn an_entry_that_cannot_be_used_says_why() {
    assert!(Notification::of("team").check().is_ok());
    let wrong = Notification::new("", []).only_if("run.state == ");
    let problem = wrong.check().unwrap_err().to_string();
    for part in ["notifier: a notifier has a name", "on: nobody would ever be told", "filter: "] {
        assert!(problem.contains(part), "{problem}");
    }
}

#[tokio::test]
async fn what_waits_is_told_once_and_the_run_that_comes_of_it_is_the_same() {
    let spec = "\n  triggers: [{ name: pull-request, on: pull_request }]\n  notify: [{ notifier: \
                team, on: [waiting_for_approval, started] }]";
    let (world, [team, _]) = world(spec, ConnectionOptions::default(), NotifyPolicy::new());
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    assert_eq!(team.transitions(), [Transition::WaitingForApproval]);
    let head = world.repo.pull_request(number).head.sha;
    let approval = format!("/ok-to-test {head}");
    world.hears(world.repo.comment("alice", number, &approval)).await;
    let run = world.runs().await.remove(0);
    world.sink.set_phase(&run.key, RunPhase::Running);
    world.passes(jiff::SignedDuration::from_secs(30));
    world.settles().await;
    assert_eq!(team.transitions(), [Transition::WaitingForApproval, Transition::Started]);
    assert_eq!(team.told()[0].run.key, team.told()[1].run.key);
}

#[tokio::test]
async fn what_waits_of_a_registered_workflow_is_told_and_so_is_what_is_refused() {
    use super::world::registered;
    let document = |spec: &str| {
        let repos = "\n  repos: [{ name: code, connection: scm, repo: acme/api }]";
        let notify =
            "\n  notify: [{ notifier: team, on: [waiting_for_approval, refused, started] }]";
        workflow("checks", &format!("{repos}{notify}{spec}"))
    };
    let team = Recorder::default();
    let told = team.clone();
    let spec = "\n  triggers: [{ name: pull-request, on: pull_request }, { name: push, on: push }]\n  \
                params: [{ name: x, value: $(body.nothing) }]";
    let world = World::built("", ConnectionOptions::registered_only(), |builder| {
        builder.notifier("team", Arc::new(team)).workflow(registered(&document(spec)))
    });
    let (_, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    assert_eq!(told.transitions(), [Transition::WaitingForApproval]);
    let waiting = told.told().remove(0);
    assert_eq!(waiting.run.author.as_deref(), Some("mallory"));
    assert!(waiting.run.message.starts_with("nothing runs before it is approved by "));
    let tenant = Tenant::default();
    let key = workflows_core::RunKey::from(waiting.run.key.to_string());
    assert!(world.engine.handle().run(&tenant, &key).await.unwrap().is_none());

    world.hears(world.repo.push("alice", "main", &[("b", "1")])).await;
    let refused = told.told().pop().unwrap();
    assert_eq!(refused.transition, Transition::Refused);
    assert!(refused.run.message.starts_with("no run can be made of it: "), "{:?}", refused.run);
}
