//! A client that shows everything of an answer.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use workflows_core::ManualClock;
use workflows_github_standin::{AppHandle, Hub};

pub(crate) fn hub() -> (Hub, ManualClock) {
    let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().expect("an instant"));
    (Hub::start(Arc::new(clock.clone())), clock)
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// What a `Link` header says of a relation.
    pub(crate) fn link(&self, relation: &str) -> Option<String> {
        let wanted = format!("rel=\"{relation}\"");
        let found = self.header("link")?.split(", ").find(|link| link.ends_with(&wanted))?;
        Some(found.trim_start_matches('<').split('>').next()?.to_owned())
    }
}

impl Client {
    pub(crate) fn new(hub: &Hub, token: Option<&str>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self { base: hub.api(), token: token.map(ToOwned::to_owned), http }
    }

    /// With an assertion that the App signs.
    pub(crate) fn as_app(hub: &Hub, app: &AppHandle, issued: Timestamp, lasts: i64) -> Self {
        let key = EncodingKey::from_rsa_pem(app.private_key().as_bytes()).expect("a key");
        let claims = json!({
            "iss": app.id().to_string(), "iat": issued.as_second() - 60,
            "exp": issued.as_second() - 60 + lasts,
        });
        let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key);
        Self::new(hub, Some(&token.expect("an assertion")))
    }

    /// With a token of the App's installation for an account.
    pub(crate) async fn of_installation(
        hub: &Hub,
        app: &AppHandle,
        installation: u64,
        now: Timestamp,
        narrowed: Value,
    ) -> Self {
        let path = format!("/app/installations/{installation}/access_tokens");
        let answer = Self::as_app(hub, app, now, 540).post(&path, narrowed).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        Self::new(hub, answer.body["token"].as_str())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Response> {
        let url = match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}{path}", self.base),
        };
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_string()).header("content-type", "application/json");
        }
        request.send().await
    }

    async fn whole(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let response = self.send(method, path, body, headers).await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.whole(Method::GET, path, None, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.whole(Method::GET, path, None, headers).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.whole(Method::POST, path, Some(body), &[]).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.whole(Method::PATCH, path, Some(body), &[]).await
    }
}
