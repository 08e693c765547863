//! People who ask the engine over HTTP, each answer held against the description.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;
use workflows_k8s::api::{ClusterAccess, openapi, router};
use workflows_kube_standin::Subject;

use crate::{
    platform::{CONTROLLER, Platform},
    world::TEAM,
};

/// Somebody who asks.
pub(crate) struct Asker {
    pub(crate) router: Router,
    description: Value,
    token: &'static str,
}

impl Asker {
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        if method == Method::POST {
            request = request.header("idempotency-key", "once");
        }
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let answer = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        self.hold(&method, path, code, &answer);
        (code, answer)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Holds an answer against the description.
    fn hold(&self, method: &Method, path: &str, code: u16, answer: &Value) {
        let path = path.split('?').next().unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let templates: Vec<&str> = template.split('/').collect();
            templates.len() == parts.len()
                && templates.iter().zip(&parts).all(|(one, two)| one.starts_with('{') || one == two)
        };
        let paths = self.description["paths"].as_object().unwrap();
        let mut described: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
        // The one with the fewest placeholders is meant.
        described.sort_by_key(|(template, _)| template.matches('{').count());
        let (template, methods) =
            described.first().unwrap_or_else(|| panic!("{path} is not described"));
        let answers = &methods[method.as_str().to_lowercase()]["responses"];
        let one = answers.get(code.to_string()).unwrap_or(&answers["default"]);
        if let Some(schema) = one["content"]["application/json"].get("schema") {
            let mut schema = schema.clone();
            schema["components"] = self.description["components"].clone();
            let validator = jsonschema::validator_for(&schema).unwrap();
            let wrong: Vec<String> = validator
                .iter_errors(answer)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(wrong.is_empty(), "{method} {template}: {wrong:?}\n{answer:#}");
            let mut missing = Vec::new();
            undescribed(&self.description, &schema, answer, "", &mut missing);
            assert_eq!(missing, [""; 0], "{method} {template}: not described");
        } else {
            assert!(answer.is_string(), "{method} {template} {code} is not described");
        }
    }
}

/// Fields that an answer has and its description has not.
fn undescribed(all: &Value, schema: &Value, value: &Value, at: &str, missing: &mut Vec<String>) {
    let mut schema = schema;
    while let Some(name) = schema["$ref"].as_str() {
        schema = all.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name}"));
    }
    match value {
        Value::Array(items) => {
            items.iter().for_each(|one| undescribed(all, &schema["items"], one, at, missing));
        }
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            for (name, value) in fields {
                match properties.get(name) {
                    Some(inner) => undescribed(all, inner, value, &format!("{at}/{name}"), missing),
                    None => missing.push(format!("{at}/{name}")),
                }
            }
        }
        _ => {}
    }
}

pub(crate) fn asked(platform: &Platform, token: &'static str) -> Asker {
    let client = platform.cluster.client_with(CONTROLLER);
    let access = Arc::new(ClusterAccess::new(client));
    Asker { router: router(platform.handle.clone(), access), description: openapi(), token }
}

/// What the cluster's own `view`, `edit` and `admin` get from the deployment's roles, given to the
/// namespace's people.
const PEOPLE: &str = "
kind: RoleBinding
metadata: { name: sees, namespace: team-a }
roleRef: { kind: ClusterRole, name: workflows-view }
subjects: [{ kind: User, name: carol }, { kind: User, name: dave }, { kind: Group, name: team-a-admins }]
---
kind: RoleBinding
metadata: { name: edits, namespace: team-a }
roleRef: { kind: ClusterRole, name: workflows-edit }
subjects: [{ kind: User, name: dave }, { kind: Group, name: team-a-admins }]
---
kind: RoleBinding
metadata: { name: administers, namespace: team-a }
roleRef: { kind: ClusterRole, name: workflows-admin }
subjects: [{ kind: Group, name: team-a-admins }]
";

/// A platform where alice administers the team's namespace, dave edits it and carol views it, as the
/// deployment's roles have it, and where bob may look at runs alone.
pub(crate) async fn platform() -> Platform {
    let platform = Platform::start().await;
    let cluster = &platform.cluster;
    cluster.token("alices-token", "alice", &["team-a-admins", "workflows-operators"]);
    for (token, user) in [("bobs-token", "bob"), ("carols-token", "carol"), ("daves-token", "dave")]
    {
        cluster.token(token, user, &[]);
    }
    let roles = include_str!("../../../examples/controller/deploy/roles-for-users.yaml");
    cluster.bind_manifests(&[roles, PEOPLE]);
    let looks = json!({
        "apiGroups": ["workflows.tekton.dev"], "resources": ["runs"], "verbs": ["get", "list"],
    });
    cluster.bind(Subject::User("bob".to_owned()), Some(TEAM), &[looks]);
    platform
}

/// Waits until something is answered.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "it did not become so in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
