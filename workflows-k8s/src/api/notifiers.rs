//! Whether a notifier works.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
};
use schemars::JsonSchema;
use serde::Serialize;
use workflows_core::{Delivered, Error, ErrorKind};

use super::{
    Api,
    commands::creates,
    failure::{Failure, idempotency_key, tenant},
};

/// What came of a sample.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SampleView {
    /// Whether the receiver took it.
    pub(super) delivered: bool,
    /// The receiver's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    /// Why the receiver did not take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

impl From<Result<Delivered, Error>> for SampleView {
    fn from(came: Result<Delivered, Error>) -> Self {
        match came {
            Ok(Delivered { reference }) => Self { delivered: true, reference, problem: None },
            Err(error) => {
                Self { delivered: false, reference: None, problem: Some(error.to_string()) }
            }
        }
    }
}

pub(super) async fn test(
    State(api): State<Arc<Api>>,
    Path((namespace, notifier)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<SampleView>, Failure> {
    let caller = api.admit(&headers, creates(&namespace, "notifiers", "test")).await?;
    let key = idempotency_key(&headers, &caller, "test_notifier", &notifier)?;
    let notifier = notifier.as_str().into();
    match api.engine.test_notifier(&tenant(&namespace)?, &notifier, &key).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error.into()),
        came => Ok(Json(came.into())),
    }
}
