//! Apps, their assertions and tokens.

use jiff::SignedDuration;
use serde_json::json;
use workflows_core::Clock;

use crate::client::{Client, hub};

#[tokio::test]
async fn assertions_are_checked() {
    let (hub, clock) = hub();
    let app = hub.create_app("ci");
    let now = clock.now();
    assert_eq!(Client::as_app(&hub, &app, now, 540).get("/app").await.body["slug"], "ci");
    let too_long = Client::as_app(&hub, &app, now, 1_200).get("/app").await;
    assert!(too_long.message().contains("too far in the future"), "{}", too_long.body);
    let future = now + SignedDuration::from_mins(5);
    let future = Client::as_app(&hub, &app, future, 540).get("/app").await;
    assert!(future.message().contains("'iat'"), "{}", future.body);
    let old =
        Client::as_app(&hub, &app, now - SignedDuration::from_hours(1), 540).get("/app").await;
    assert_eq!(old.status, 401);
    let mut forged = hub.create_app("other");
    forged.rotate_key();
    assert_eq!(Client::as_app(&hub, &forged, now, 540).get("/app").await.body["slug"], "other");
    let none = Client::new(&hub, None).get("/app").await;
    assert_eq!(none.message(), "A JSON web token could not be decoded");
}

#[tokio::test]
async fn a_rotated_key_replaces_the_old_one() {
    let (hub, clock) = hub();
    let mut app = hub.create_app("ci");
    let old = Client::as_app(&hub, &app, clock.now(), 540);
    app.rotate_key();
    let new = Client::as_app(&hub, &app, clock.now(), 540);
    assert_eq!(old.get("/app").await.status, 200);
    app.forget_old_keys();
    assert_eq!(old.get("/app").await.status, 401);
    assert_eq!(new.get("/app").await.status, 200);
}

#[tokio::test]
async fn tokens_expire_and_are_narrow() {
    let (hub, clock) = hub();
    for name in ["acme/api", "acme/web"] {
        hub.create_private_repo(name).push("main", &[("a", "1")]);
    }
    let app = hub.create_app("ci");
    let installation = app.install("acme");
    let now = clock.now();
    let found = Client::as_app(&hub, &app, now, 540).get("/repos/acme/api/installation").await;
    assert_eq!(found.body["id"], installation);

    let wide = Client::of_installation(&hub, &app, installation, now, json!({})).await;
    assert_eq!(wide.get("/repos/acme/web").await.status, 200);
    let asked = json!({ "repositories": ["api"], "permissions": { "contents": "read" } });
    let narrow = Client::of_installation(&hub, &app, installation, now, asked).await;
    assert_eq!(narrow.get("/repos/acme/api/contents/a").await.status, 200);
    assert_eq!(narrow.get("/repos/acme/web").await.status, 404);
    let refused = narrow.get("/repos/acme/api/pulls").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.message(), "Resource not accessible by integration");
    let listed = narrow.get("/installation/repositories").await;
    assert_eq!(listed.body["total_count"], 1);

    let path = format!("/app/installations/{installation}/access_tokens");
    let as_app = Client::as_app(&hub, &app, now, 540);
    for asked in [
        json!({ "permissions": { "administration": "write" } }),
        json!({ "permissions": { "contents": "write" } }),
        json!({ "repositories": ["none"] }),
    ] {
        assert_eq!(as_app.post(&path, asked).await.status, 422);
    }

    clock.advance(SignedDuration::from_mins(59));
    assert_eq!(wide.get("/repos/acme/web").await.status, 200);
    clock.advance(SignedDuration::from_mins(1));
    let expired = wide.get("/repos/acme/web").await;
    assert_eq!((expired.status.as_u16(), expired.message()), (401, "Bad credentials"));
}

#[tokio::test]
async fn an_installation_ends() {
    let (hub, clock) = hub();
    hub.create_repo("acme/api").push("main", &[("a", "1")]);
    hub.create_repo("acme/web").push("main", &[("a", "1")]);
    let app = hub.create_app("ci");
    let installation = app.install_on("acme", &["acme/api"]);
    let now = clock.now();
    let as_app = Client::as_app(&hub, &app, now, 540);
    assert_eq!(as_app.get("/repos/acme/web/installation").await.status, 404);
    assert_eq!(as_app.get("/orgs/acme/installation").await.body["id"], installation);
    let client = Client::of_installation(&hub, &app, installation, now, json!({})).await;
    app.suspend("acme", true);
    let refused = client.get("/repos/acme/api").await;
    assert_eq!(refused.message(), "This installation has been suspended");
    app.suspend("acme", false);
    assert_eq!(client.get("/repos/acme/api").await.status, 200);
    app.uninstall("acme");
    assert_eq!(client.get("/repos/acme/api").await.status, 401);
    assert_eq!(as_app.get("/repos/acme/api/installation").await.status, 404);
}
