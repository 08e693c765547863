//! Secrets of the cluster.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::json;
use workflows_core::{ErrorKind, SecretRef, SecretStore};
use workflows_k8s::{KubernetesSecrets, Namespaces};
use workflows_kube_standin::Fault;

use crate::world::{World, tenant};

fn reference(name: &str, key: &str) -> SecretRef {
    SecretRef { name: name.into(), key: key.into() }
}

#[tokio::test]
async fn they_are_read_by_name_and_key_and_never_shown() {
    let world = World::new().await;
    let client = world.cluster.client();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "github"},
        "data": {"token": "czNjcmV0", "binary": "//4="},
    });
    let request = http::Request::post("/api/v1/namespaces/team-a/secrets")
        .header("content-type", "application/json")
        .body(secret.to_string().into_bytes())
        .unwrap();
    client.request::<serde_json::Value>(request).await.unwrap();
    let secrets = KubernetesSecrets::new(client, Namespaces::same_name());

    let value = secrets.get(&tenant(), &reference("github", "token")).await.unwrap();
    assert_eq!(value.expose_secret(), "s3cret");
    let error = secrets.get(&tenant(), &reference("github", "nope")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        "get secret: the Secret has no such key (namespace: team-a, name: github, key: nope)"
    );
    let error = secrets.get(&tenant(), &reference("gitlab", "token")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = secrets.get(&tenant(), &reference("github", "binary")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!format!("{error:?} {secrets:?}").contains("s3cret"));
}

#[tokio::test]
async fn while_the_api_server_cannot_be_asked_the_last_value_stands_in() {
    let world = World::stand_in("its server fails").await;
    let client = world.cluster.client();
    let at = "/api/v1/namespaces/team-a/secrets";
    let write = |request: http::request::Builder, kind: &str, body: serde_json::Value| {
        let request = request.header("content-type", kind).body(body.to_string().into_bytes());
        let client = client.clone();
        async move { client.request::<serde_json::Value>(request.unwrap()).await.unwrap() }
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "data": {"s": "b25l"},
    });
    write(http::Request::post(at), "application/json", secret).await;
    let secrets = KubernetesSecrets::new(client.clone(), Namespaces::same_name());
    let short = secrets.clone().standing_in(Duration::ZERO);
    let reference = reference("hook", "s");
    let value = async || {
        let value = secrets.get(&tenant(), &reference).await;
        value.map(|value| value.expose_secret().to_owned())
    };
    let of_it = format!("GET {at}/hook");
    world.cluster.fail(&of_it, 1, Fault::unavailable());
    assert_eq!(value().await.unwrap_err().kind(), ErrorKind::Transient, "nothing was read yet");
    assert_eq!(value().await.unwrap(), "one");

    world.cluster.fail(&of_it, 2, Fault::unavailable());
    assert_eq!(value().await.unwrap(), "one");
    assert!(short.get(&tenant(), &reference).await.is_err(), "whoever wants none gets none");
    world.cluster.fail(&of_it, 1, Fault::Slow(Duration::from_secs(3_600)));
    assert_eq!(value().await.unwrap(), "one", "it does not answer");

    let merge = "application/merge-patch+json";
    let changed = json!({"data": {"s": "dHdv"}});
    write(http::Request::patch(format!("{at}/hook")), merge, changed).await;
    assert_eq!(value().await.unwrap(), "two", "a rotation is seen at once");
    write(http::Request::patch(format!("{at}/hook")), merge, json!({"data": {"s": null}})).await;
    assert_eq!(value().await.unwrap_err().kind(), ErrorKind::NotFound);
    world.cluster.fail(&of_it, 1, Fault::unavailable());
    assert_eq!(
        value().await.unwrap_err().kind(),
        ErrorKind::Transient,
        "what is gone is forgotten"
    );
}
