//! What is answered when a request comes to nothing, and the checks that come before it does.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};
use workflows_core::{Error, ErrorKind, Tenant, hash_of};

use super::{
    Api,
    access::{Asked, Caller},
};

/// Why a request came to nothing.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure {
    /// `unauthorized`, `forbidden`, `notFound`, `invalid`, `unsupported`, `conflict`, `unavailable`.
    pub(super) reason: &'static str,
    /// What was wrong, and what to do.
    pub(super) message: String,
    #[serde(skip)]
    pub(super) code: u16,
}

impl Failure {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), code: code.as_u16() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "notFound", message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, reason) = match error.kind() {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "notFound"),
            ErrorKind::Denied => (StatusCode::FORBIDDEN, "forbidden"),
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(code, reason, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, Json(self)).into_response()
    }
}

impl Api {
    /// Lets a caller through who may do this.
    pub(super) async fn admit(
        self: &Arc<Self>,
        headers: &HeaderMap,
        asked: Asked<'_>,
    ) -> Result<Caller, Failure> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = shown.and_then(|text| text.strip_prefix("Bearer ")) else {
            let message = "show a token of the cluster: Authorization: Bearer ...";
            return Err(Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
        };
        let caller = match self.access.caller(&SecretString::from(token)).await {
            Ok(caller) => caller,
            Err(error) if error.kind() == ErrorKind::Denied => {
                return Err(Failure::new(
                    StatusCode::UNAUTHORIZED,
                    "unauthorized",
                    error.message(),
                ));
            }
            Err(error) => return Err(error.into()),
        };
        if self.access.allows(&caller, &asked).await? {
            return Ok(caller);
        }
        let part = if asked.part.is_empty() { String::new() } else { format!("/{}", asked.part) };
        let message = format!(
            "{} may not {} {}{part} of workflows.tekton.dev in {:?}",
            caller.user, asked.verb, asked.resource, asked.namespace
        );
        Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

/// What was sent, as JSON. Nothing is an object without fields.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            Failure::new(rejection.status(), "invalid", format!("the body: {rejection}"))
        })?;
        let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
        match serde_json::from_slice(bytes) {
            Ok(sent) => Ok(Self(sent)),
            Err(error) => Err(Failure::invalid(format!("the body: {error}"))),
        }
    }
}

/// What the address says after the question mark.
pub(super) struct Narrowed<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Narrowed<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Failure::invalid(rejection.body_text())),
        }
    }
}

/// The tenant of a namespace.
pub(super) fn tenant(namespace: &str) -> Result<Tenant, Failure> {
    Ok(Tenant::new(namespace)?)
}

/// What makes a request the same one when it is sent again: the key that the caller gave, for this
/// caller, this command and what it is about.
pub(super) fn idempotency_key(
    headers: &HeaderMap,
    caller: &Caller,
    command: &str,
    about: &str,
) -> Result<String, Failure> {
    const LONGEST: usize = 200;
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    match key {
        Some(key) if !key.is_empty() && key.len() <= LONGEST => {
            Ok(hash_of(&[&caller.user, command, about, key]))
        }
        Some(_) => Err(Failure::invalid(format!(
            "the header Idempotency-Key must have 1 to {LONGEST} characters"
        ))),
        None => Err(Failure::invalid(
            "the header Idempotency-Key is missing: any text of yours that is the same when you send \
             this request again, and other for another one",
        )),
    }
}
