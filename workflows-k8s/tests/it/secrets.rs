//! Secrets of the cluster.

use secrecy::ExposeSecret;
use serde_json::json;
use workflows_core::{ErrorKind, SecretRef, SecretStore};
use workflows_k8s::{KubernetesSecrets, Namespaces};

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
