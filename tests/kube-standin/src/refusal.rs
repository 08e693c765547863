//! What an API server says when it refuses, in its own words.

use serde_json::{Value, json};

use crate::resource::Resource;

/// A `Status` that is sent instead of an answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Refusal {
    /// Any refusal.
    pub fn new(code: u16, reason: &str, message: impl Into<String>, details: Value) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "reason": reason, "details": details, "code": code,
        });
        Self { code, body }
    }

    /// What an admission webhook says no to.
    pub fn denied(webhook: &str, message: &str) -> Self {
        let message = format!("admission webhook {webhook:?} denied the request: {message}");
        Self::new(400, "BadRequest", message, json!({}))
    }

    /// An admission webhook that cannot be reached.
    pub fn webhook_is_down(webhook: &str) -> Self {
        let message = format!(
            "Internal error occurred: failed calling webhook {webhook:?}: connection refused"
        );
        Self::new(
            500,
            "InternalError",
            message,
            json!({"causes": [{"message": "connection refused"}]}),
        )
    }

    /// A namespace's quota that is used up.
    pub fn quota(resource: &Resource, name: &str) -> Self {
        let kind = resource.qualified();
        let message = format!(
            "{kind} {name:?} is forbidden: exceeded quota: runs, requested: count/{kind}=1, \
             used: 1, limited: 1"
        );
        Self::new(403, "Forbidden", message, resource.details(name))
    }

    pub(crate) fn no_such_kind() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource", json!({}))
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(404, "NotFound", message, resource.details(name))
    }

    pub(crate) fn no_namespace(name: &str) -> Self {
        let message = format!("namespaces {name:?} not found");
        Self::new(404, "NotFound", message, json!({"name": name, "kind": "namespaces"}))
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message, resource.details(name))
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::new(409, "Conflict", message, resource.details(name))
    }

    /// A write that holds a version which is not the newest.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(resource, name, why)
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is invalid: {field}: {why}", resource.kind_in_group());
        let mut details = resource.details(name);
        details["kind"] = resource.kind.clone().into();
        details["causes"] =
            json!([{"reason": "FieldValueInvalid", "message": why, "field": field}]);
        Self::new(422, "Invalid", message, details)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, json!({}))
    }

    pub(crate) fn expired() -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. \
                       You can start a new list without the continue parameter.";
        Self::new(410, "Expired", message, json!({}))
    }

    pub(crate) fn too_old(from: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {from} ({oldest})"), json!({}))
    }
}
