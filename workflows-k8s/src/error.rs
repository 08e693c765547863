//! What a Kubernetes API server's refusals mean.

use jiff::{SignedDuration, Timestamp};
use kube::core::Status;
use workflows_core::{Error, ErrorKind};

/// An API server's answer, or the lack of one, as an error of the traits.
///
/// The kinds follow the [API conventions] and what admission and quota add to them:
///
/// | answer | kind |
/// | --- | --- |
/// | 404 for an object | `NotFound` |
/// | 404 for a kind or a namespace | `Denied`: somebody has to install or create it |
/// | 401, 403 | `Denied` |
/// | 403 for a quota that is used up | `Transient` |
/// | 409 | `Conflict` |
/// | 429, and whatever says when to come back | `RateLimited` |
/// | 400, 405, 413, 415, 422; an admission webhook that denies | `Invalid` |
/// | 5xx, an admission webhook that cannot be reached, no answer | `Transient` |
///
/// [API conventions]: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#http-status-codes
pub(crate) fn from_kube(operation: &'static str, error: kube::Error, now: Timestamp) -> Error {
    let (kind, message) = match &error {
        kube::Error::Api(status) => (kind(status, now), message(status)),
        kube::Error::Auth(_) => {
            (ErrorKind::Denied, "the cluster's credentials cannot be used".to_owned())
        }
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            (ErrorKind::Transient, "the API server's answer cannot be read".to_owned())
        }
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => {
            (ErrorKind::Invalid, "the request cannot be written".to_owned())
        }
        _ => (ErrorKind::Transient, "the API server does not answer".to_owned()),
    };
    Error::new(kind, operation, message).caused_by(error)
}

fn kind(status: &Status, now: Timestamp) -> ErrorKind {
    let retry_after = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let until = || now.checked_add(SignedDuration::from_secs(i64::from(retry_after))).ok();
    match status.code {
        404 if is_about_an_object(status) => ErrorKind::NotFound,
        401 | 404 => ErrorKind::Denied,
        403 if status.message.contains("exceeded quota") => ErrorKind::Transient,
        403 if status.message.starts_with("admission webhook ") => ErrorKind::Invalid,
        403 => ErrorKind::Denied,
        409 => ErrorKind::Conflict,
        429 if retry_after > 0 => ErrorKind::RateLimited { until: until() },
        429 => ErrorKind::RateLimited { until: None },
        400..=499 => ErrorKind::Invalid,
        _ if retry_after > 0 => ErrorKind::RateLimited { until: until() },
        _ => ErrorKind::Transient,
    }
}

/// Whether a 404 says that one object is not there, rather than its kind or its namespace.
fn is_about_an_object(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| !details.name.is_empty() && details.kind != "namespaces")
}

fn message(status: &Status) -> String {
    let mut message = status.message.clone();
    let details = status.details.as_ref();
    if status.code == 404 && details.is_none_or(|details| details.name.is_empty()) {
        message.push_str("; is Tekton Pipelines installed in this cluster?");
    }
    if status.code == 404 && details.is_some_and(|details| details.kind == "namespaces") {
        message.push_str("; create it, or map the tenant to another namespace");
    }
    if status.code == 401 {
        message.push_str("; the credentials for the cluster are missing or have expired");
    }
    if message.is_empty() {
        message = format!("the API server answered {} {}", status.code, status.reason);
    }
    message
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(status: Value) -> Error {
        let status: Status = serde_json::from_value(status).unwrap();
        from_kube("create a run", kube::Error::Api(status.boxed()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_object_that_is_not_there_is_not_found() {
        let error = refused(json!({
            "code": 404, "reason": "NotFound",
            "message": "pipelineruns.tekton.dev \"ci-1\" not found",
            "details": {"name": "ci-1", "group": "tekton.dev", "kind": "pipelineruns"},
        }));
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_kind_that_is_not_there_says_what_to_install() {
        let error = refused(json!({
            "code": 404, "reason": "NotFound",
            "message": "the server could not find the requested resource",
            "details": {},
        }));
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(
            error.to_string(),
            "create a run: the server could not find the requested resource; \
             is Tekton Pipelines installed in this cluster?"
        );
    }

    #[test]
    fn a_namespace_that_is_not_there_may_come() {
        let error = refused(json!({
            "code": 404, "reason": "NotFound", "message": "namespaces \"team-a\" not found",
            "details": {"name": "team-a", "kind": "namespaces"},
        }));
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().ends_with("create it, or map the tenant to another namespace"));
    }

    #[test]
    fn a_webhook_that_denies_is_told_from_one_that_is_down() {
        let denied = refused(json!({
            "code": 400, "reason": "BadRequest",
            "message": "admission webhook \"validation.webhook.pipeline.tekton.dev\" denied the request: \
                        validation failed: missing field(s): spec.pipelineRef.name",
        }));
        assert_eq!(denied.kind(), ErrorKind::Invalid);
        let down = refused(json!({
            "code": 500, "reason": "InternalError",
            "message": "Internal error occurred: failed calling webhook \
                        \"webhook.pipeline.tekton.dev\": connection refused",
        }));
        assert_eq!(down.kind(), ErrorKind::Transient);
    }

    #[test]
    fn a_used_up_quota_passes() {
        let error = refused(json!({
            "code": 403, "reason": "Forbidden",
            "message": "pipelineruns.tekton.dev \"ci-1\" is forbidden: exceeded quota: runs, \
                        requested: count/pipelineruns.tekton.dev=1, used: 10, limited: 10",
            "details": {"name": "ci-1", "group": "tekton.dev", "kind": "pipelineruns"},
        }));
        assert_eq!(error.kind(), ErrorKind::Transient);
    }

    #[test]
    fn when_to_come_back_is_kept() {
        let error = refused(json!({
            "code": 429, "reason": "TooManyRequests", "message": "too many requests",
            "details": {"retryAfterSeconds": 7},
        }));
        let until = Timestamp::from_second(7).ok();
        assert_eq!(error.kind(), ErrorKind::RateLimited { until });
    }
}
