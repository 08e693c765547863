//! The Secret of a run that holds its clone credential.

use data_encoding::BASE64;
use futures::TryStreamExt;
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use workflows_core::{
    Clock, CloneCredential, ErrorKind, RunSink,
    sink::{GivenCredential, RunRequest},
};
use workflows_kube_standin::{Fault, Refusal, Resource};

use crate::world::{TEAM, World, request, sink_run};

const TOKEN: &str = "s3cret-token";

fn with_credential(name: &str, token: &str) -> RunRequest {
    let credential = CloneCredential {
        username: "x-access-token".into(),
        token: token.to_owned().into(),
        expires_at: None,
    };
    request(name)
        .with_credential(Some(credential))
        .with_clone_url("https://git.example.com/acme/api.git")
}

fn secret(world: &World, name: &str) -> Option<Value> {
    let secrets = Resource::namespaced("", "v1", "Secret", "secrets").without_status();
    world.cluster.object(&secrets, TEAM, name)
}

fn text(secret: &Value, key: &str) -> String {
    let encoded = secret["data"][key].as_str().unwrap();
    String::from_utf8(BASE64.decode(encoded.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn it_is_there_before_the_run_and_goes_with_it() {
    let world = World::new().await;
    world.sink.ensure(&with_credential("ci-1", TOKEN)).await.unwrap();
    let posts: Vec<_> =
        world.cluster.requests().into_iter().filter(|(method, _)| method == "POST").collect();
    assert!(posts[0].1.contains("/secrets"), "{posts:?}");
    assert!(posts[1].1.contains("/pipelineruns"), "{posts:?}");

    let kept = secret(&world, "ci-1-git").unwrap();
    assert_eq!(text(&kept, "token"), TOKEN);
    assert_eq!(
        text(&kept, ".git-credentials"),
        "https://x-access-token:s3cret-token@git.example.com\n"
    );
    assert!(text(&kept, ".gitconfig").contains("[credential \"https://git.example.com\"]"));
    let run = world.run("ci-1");
    assert_eq!(kept["metadata"]["ownerReferences"][0]["uid"], run["metadata"]["uid"]);
    assert!(!run.to_string().contains(TOKEN), "the token is in the PipelineRun");
    assert!(!kept["metadata"].to_string().contains(TOKEN), "the token is in the metadata");
}

#[tokio::test]
async fn a_second_call_renews_it() {
    let world = World::new().await;
    world.sink.ensure(&with_credential("ci-1", "first")).await.unwrap();
    let again = world.sink.ensure(&with_credential("ci-1", "second")).await.unwrap();
    assert!(!again.created);
    let kept = secret(&world, "ci-1-git").unwrap();
    assert_eq!(text(&kept, "token"), "second");
    assert_eq!(kept["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn it_is_renewed_while_the_run_lives() {
    let world = World::new().await;
    let request = with_credential("ci-1", "first");
    let ensured = world.sink.ensure(&request).await.unwrap();
    let run = sink_run(&request, &ensured);
    let given = |token: &str| {
        let request = with_credential("ci-1", token);
        GivenCredential::new(request.credential.unwrap(), request.clone_url.unwrap())
    };
    world.sink.renew(&run, &given("second")).await.unwrap();
    let kept = secret(&world, "ci-1-git").unwrap();
    assert_eq!(text(&kept, "token"), "second");
    assert_eq!(kept["metadata"]["ownerReferences"][0]["uid"], world.run("ci-1")["metadata"]["uid"]);

    world.tekton.finish(TEAM, "ci-1", true);
    world.sink.renew(&run, &given("third")).await.unwrap();
    let kept = secret(&world, "ci-1-git").unwrap();
    assert_eq!(text(&kept, "token"), "second", "a run that has ended needs none");
}

#[tokio::test]
async fn a_run_that_is_found_has_the_credential_that_it_was_given_last() {
    let world = World::new().await;
    let end = world.clock.now() + SignedDuration::from_hours(1);
    for (name, token, until) in [("ci-1", "first", None), ("ci-1", "second", Some(end))] {
        let mut request = with_credential(name, token);
        request.credential.as_mut().unwrap().expires_at = until;
        world.sink.ensure(&request).await.unwrap();
    }
    world.sink.ensure(&request("ci-2")).await.unwrap();
    // One that has the name of a run's, and is not its.
    world.sink.ensure(&with_credential("ci-3", TOKEN)).await.unwrap();
    let foreign =
        serde_json::json!({"metadata": {"annotations": {"workflows.tekton.dev/run-key": "x"}}});
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
        kube::Api::namespaced(world.cluster.client(), TEAM);
    let patch = kube::api::Patch::Merge(&foreign);
    secrets.patch("ci-3-git", &kube::api::PatchParams::default(), &patch).await.unwrap();

    let existing: Vec<_> = world.sink.existing().try_collect().await.unwrap();
    let given = |name: &str| {
        let is_it =
            |one: &&workflows_core::sink::ExistingRun| one.pipeline_run["metadata"]["name"] == name;
        existing.iter().find(is_it).expect("it is found").credential.as_ref()
    };
    let found = given("ci-1").expect("it has one");
    assert_eq!((&*found.username, found.token.expose_secret()), ("x-access-token", "second"));
    assert_eq!(found.expires_at, Some(end));
    assert!(given("ci-2").is_none());
    assert!(given("ci-3").is_none());
    assert!(!format!("{existing:?}").contains("second"), "a token shows in Debug");
}

#[tokio::test]
async fn a_program_that_may_see_no_secrets_finds_its_runs_all_the_same() {
    let world = World::stand_in("a request is refused").await;
    world.sink.ensure(&request("ci-1")).await.unwrap();
    let refusal =
        || Fault::Refused(Refusal::new(403, "Forbidden", "secrets is forbidden", Value::Null));
    world.cluster.fail("GET /api/v1/namespaces/team-a/secrets", 1, refusal());
    let existing: Vec<_> = world.sink.existing().try_collect().await.unwrap();
    assert_eq!(existing.len(), 1);
    // What passes is another matter.
    world.cluster.fail("GET /api/v1/namespaces/team-a/secrets", 1, Fault::unavailable());
    let found: Result<Vec<_>, _> = world.sink.existing().try_collect().await;
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Transient);
}

#[tokio::test]
async fn a_secret_that_is_swept_up_meanwhile_refuses_no_run() {
    let world = World::stand_in("a request is refused").await;
    let request = with_credential("ci-1", TOKEN);
    assert!(world.sink.ensure(&request).await.unwrap().created);
    for method in ["GET", "PATCH"] {
        let gone = Refusal::new(
            404,
            "NotFound",
            "secrets \"ci-1-git\" not found",
            json!({"name": "ci-1-git", "kind": "secrets"}),
        );
        let path = format!("{method} /api/v1/namespaces/team-a/secrets/ci-1-git");
        world.cluster.fail(&path, 1, Fault::Refused(gone));
        let error = world.sink.ensure(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(!world.sink.ensure(&request).await.unwrap().created);
    }
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() {
    let world = World::new().await;
    world.sink.ensure(&with_credential("ci-1", TOKEN)).await.unwrap();
    let mut other = with_credential("ci-2", "other");
    other.name = "ci-1".into();
    let mut run = (*other.pipeline_run).clone();
    run["metadata"]["name"] = "ci-1".into();
    other.pipeline_run = run.into();
    let error = world.sink.ensure(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "write a run's credential: there is a Secret of that name which is not this run's; remove \
         or rename it (secret: ci-1-git)"
    );
    assert_eq!(text(&secret(&world, "ci-1-git").unwrap(), "token"), TOKEN);
}

#[tokio::test]
async fn it_goes_when_the_run_is_refused() {
    let world = World::new().await;
    let refusal = Refusal::denied("policy.example.com", "no runs on Fridays");
    world.cluster.fail("POST /apis/tekton.dev", 1, Fault::Refused(refusal));
    let error = world.sink.ensure(&with_credential("ci-1", TOKEN)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(secret(&world, "ci-1-git"), None);
}

#[tokio::test]
async fn a_sweep_adopts_what_a_crash_left_and_removes_what_nobody_needs() {
    let world = World::new().await;
    // A crash between the creation and the owner.
    world.cluster.fail("PATCH", 1, Fault::unavailable());
    world.sink.ensure(&with_credential("ci-1", TOKEN)).await.unwrap();
    // A crash before the creation.
    world.cluster.fail("POST /apis/tekton.dev", 1, Fault::unavailable());
    world.sink.ensure(&with_credential("ci-2", TOKEN)).await.unwrap_err();

    let swept = world.sink.sweep().await.unwrap();
    assert_eq!((swept.adopted, swept.removed), (1, 0), "the second may be about to be created");
    assert!(secret(&world, "ci-1-git").unwrap()["metadata"]["ownerReferences"].is_array());

    world.clock.advance(SignedDuration::from_mins(20));
    let swept = world.sink.sweep().await.unwrap();
    assert_eq!((swept.adopted, swept.removed), (0, 1));
    assert_eq!(secret(&world, "ci-2-git"), None);

    world.tekton.finish(TEAM, "ci-1", true);
    let swept = world.sink.sweep().await.unwrap();
    assert_eq!((swept.adopted, swept.removed), (0, 1), "an ended run needs none");
    assert_eq!(world.sink.sweep().await.unwrap(), Default::default());
}

#[tokio::test]
async fn an_address_that_git_would_send_it_elsewhere_for_is_refused() {
    let world = World::new().await;
    let wrong = with_credential("ci-1", TOKEN).with_clone_url("https://user@evil.example.com/x");
    let error = world.sink.ensure(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!format!("{error:?}").contains(TOKEN));
    assert_eq!(world.tekton.runs().len(), 0);
}
