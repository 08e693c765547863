//! Connections and notifiers that come, change and go while the engine works.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{
    ErrorKind, NotificationView, Notifier, Permission, Result, Tenant,
    conformance::ScriptedScm,
    engine::{ConnectionOptions, Submission},
    notify::Delivered,
    repo::StatusState,
};

use super::world::{CI, World, workflow};

#[derive(Debug)]
struct Silent;

#[async_trait]
impl Notifier for Silent {
    async fn deliver(&self, _notification: &NotificationView) -> Result<Delivered> {
        Ok(Delivered::default())
    }
}

#[tokio::test]
async fn a_connection_that_comes_later_is_used_and_one_that_goes_is_not() {
    let world = World::with(CI);
    let handle = world.engine.handle();
    let later = ScriptedScm::new();
    let repo = later.create("acme/later");
    repo.permit("alice", Permission::Write);
    repo.push("alice", "main", &[(".tekton/ci.yaml", CI)]);
    let ask = |key: &str| Submission::new("later", "acme/later", key, "alice");

    let error = handle.submit(ask("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let tenant = Tenant::default();
    let options = ConnectionOptions::default();
    handle.register_connection(&tenant, "later", Arc::new(later), options);
    let event = handle.submit(ask("1")).await.unwrap();
    assert_eq!(&*event.repo.name, "acme/later");
    assert!(handle.watch_repository(&tenant, &"later".into(), "acme/later").await.unwrap());
    assert_eq!(handle.health().await.unwrap().connections.len(), 2);

    assert!(handle.unregister_connection(&tenant, &"later".into()));
    assert!(!handle.unregister_connection(&tenant, &"later".into()));
    let error = handle.submit(ask("2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(handle.health().await.unwrap().connections.len(), 1);
}

#[tokio::test]
async fn a_connection_that_is_replaced_reaches_through_the_new_driver() {
    let world = World::with(CI);
    let handle = world.engine.handle();
    let tenant = Tenant::default();
    let name = world.scm.connection();
    let ask = |key: &str| Submission::new(name.clone(), "acme/api", key, "alice");
    let before = handle.submit(ask("1")).await.unwrap();

    let other = ScriptedScm::new();
    let repo = other.create("acme/api");
    repo.push("alice", "main", &[("a", "another history")]);
    let head = repo.head("main");
    let options = ConnectionOptions::default();
    handle.register_connection(&tenant, name.clone(), Arc::new(other), options);
    let after = handle.submit(ask("2")).await.unwrap();
    assert_ne!(before.head.unwrap().sha, head);
    assert_eq!(after.head.unwrap().sha, head);
}

#[tokio::test]
async fn a_document_that_names_a_notifier_is_right_once_there_is_one() {
    let world = World::with(CI);
    let named = workflow(
        "told",
        "\n  triggers: [{ name: push, on: push }]\n  notify: [{ notifier: chat, on: [failed] }]",
    );
    world.hears(world.repo.push("alice", "main", &[(".tekton/told.yaml", &named)])).await;
    let head = world.repo.head("main");
    let status = world.status(&head, "workflows/definitions");
    assert_eq!(status.state, StatusState::Failure);
    assert!(status.summary.contains("chat"), "{}", status.summary);
    let runs = world.runs().await.len();

    let handle = world.engine.handle();
    handle.register_notifier(&Tenant::default(), "chat", Arc::new(Silent));
    world.hears(world.repo.push("alice", "main", &[("README.md", "again")])).await;
    assert_eq!(world.runs().await.len(), runs + 2, "both workflows run");

    assert!(handle.unregister_notifier(&Tenant::default(), &"chat".into()));
    assert!(!handle.unregister_notifier(&Tenant::default(), &"chat".into()));
    world.hears(world.repo.push("alice", "main", &[("README.md", "once more")])).await;
    assert_eq!(world.runs().await.len(), runs + 3);
}
