//! GitLab's webhook events, read into claims:
//! <https://docs.gitlab.com/user/project/integrations/webhook_events/>, and those of system hooks:
//! <https://docs.gitlab.com/administration/system_hooks/>.
//!
//! | event | what it becomes |
//! | --- | --- |
//! | `push`, `tag_push`, also without commits | where a branch or tag stands |
//! | `repository_update` | where the branches of one push stand, however many |
//! | `merge_request`, whatever the action | how the merge request is, and each label that came or went |
//! | `note` on a merge request or a commit | a comment, when it is new |
//! | `release` that is created | an event of the kind `release` |
//!
//! Everything else, pipelines and jobs among it, is recorded as of no interest: GitLab disables a hook
//! whose deliveries are refused. The raw payload goes with each event, for expressions over `body`.

mod format;
mod merge_requests;
mod notes;
mod refs;
mod releases;

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use workflows_core::{DeliveryId, Result, SubjectClaim, Verified};

pub use self::format::GitLabDeliveries;
use super::{GitLabDriver, merge_request::Account};
use crate::webhook::{DeliveredRepo, Delivery, DeliveryHeaders, Payload, Told};

const OPERATION: &str = "read a GitLab delivery";

/// What is looked at of a payload.
const KEPT: &[&str] = &[
    "action",
    "after",
    "before",
    "changes",
    "checkout_sha",
    "commit",
    "event_name",
    "id",
    "merge_request",
    "name",
    "object_attributes",
    "object_kind",
    "project",
    "project_id",
    "ref",
    "released_at",
    "tag",
    "user",
    "user_username",
];

/// Reads a delivery.
fn decode(driver: &GitLabDriver, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery> {
    let header = headers.get("x-gitlab-event").ok_or_else(|| {
        workflows_core::Error::invalid(
            OPERATION,
            "there is no `X-Gitlab-Event` header; does the sender speak for GitLab?",
        )
    })?;
    let id = delivery_id(headers, body.body());
    let payload = Payload::parse(OPERATION, header, body.body(), KEPT)?;
    let short =
        |name: &'static str| payload.lenient::<String>(name).filter(|text| text.len() <= 100);
    // System hooks tell pushes by the second alone.
    let kind = short("object_kind").or_else(|| short("event_name"));
    let kind = kind.unwrap_or_else(|| "unknown".to_owned());
    let action = action(&payload);
    let what: Arc<str> = match &action {
        Some(action) => format!("{kind}.{action}").into(),
        None => kind.as_str().into(),
    };
    let read = || read(&kind, action.as_deref().unwrap_or(""), &payload);
    let told = read().map_err(|error| error.with("event", &what).with("delivery", &id))?;
    Ok(Delivery {
        id,
        what,
        repo: repository(driver, &payload),
        sender: sender(&payload),
        occurred_at: None,
        told,
    })
}

fn read(kind: &str, action: &str, payload: &Payload<'_>) -> Result<Told> {
    if project(payload).is_none() {
        return Ok(nothing("it is about no project"));
    }
    match kind {
        "push" | "tag_push" => refs::push(payload),
        "repository_update" => refs::update(payload),
        "merge_request" => merge_requests::changed(payload),
        "note" => notes::note(action, payload),
        "release" => releases::release(action, payload),
        "pipeline" | "build" => Ok(nothing("GitLab's own pipelines start no workflow")),
        "access_token" => Ok(nothing("a token of the project or group expires soon")),
        _ => Ok(nothing("no workflow can wait for events of this kind")),
    }
}

fn nothing(reason: &str) -> Told {
    Told::Nothing(reason.to_owned())
}

/// `Idempotency-Key`, which a delivery that is sent again repeats; `webhook-id`, which is the same; of a
/// delivery without either, what it is and its bytes are. `X-Gitlab-Event-UUID` will not do: hooks that
/// set off each other share it.
pub(super) fn delivery_id(headers: &DeliveryHeaders, body: &[u8]) -> DeliveryId {
    const LONGEST: usize = 100;
    let told = ["idempotency-key", "webhook-id"].into_iter().find_map(|name| headers.get(name));
    match told {
        Some(id) if !id.is_empty() && id.len() <= LONGEST => id.into(),
        _ => {
            let mut digest = Sha256::new();
            for name in ["x-gitlab-webhook-uuid", "x-gitlab-event"] {
                digest.update(headers.get(name).unwrap_or_default());
                digest.update([0]);
            }
            digest.update(body);
            format!("sha256/{}", HEXLOWER.encode(&digest.finalize())).into()
        }
    }
}

#[derive(Debug, Deserialize)]
struct Project {
    /// Not told by older versions.
    #[serde(default)]
    id: Option<u64>,
    path_with_namespace: Arc<str>,
}

/// The number and the path of the project, when the payload is about one.
fn project(payload: &Payload<'_>) -> Option<(u64, Arc<str>)> {
    let found: Project = payload.lenient("project")?;
    let number = found.id.or_else(|| payload.lenient("project_id"))?;
    Some((number, found.path_with_namespace))
}

fn repository(driver: &GitLabDriver, payload: &Payload<'_>) -> Option<DeliveredRepo> {
    let (number, name) = project(payload)?;
    Some(DeliveredRepo { id: driver.repo_id(number), name })
}

/// Who did it.
fn sender(payload: &Payload<'_>) -> Option<Arc<str>> {
    let user = payload.lenient::<Account>("user").map(|user| user.username);
    user.or_else(|| payload.lenient("user_username"))
}

fn action(payload: &Payload<'_>) -> Option<String> {
    #[derive(Deserialize)]
    struct Attributes {
        #[serde(default)]
        action: Option<String>,
    }
    let of_object = payload.lenient::<Attributes>("object_attributes").and_then(|one| one.action);
    of_object.or_else(|| payload.lenient("action")).filter(|action| action.len() <= 100)
}

fn claim(claim: SubjectClaim) -> Told {
    Told::Claims(vec![claim])
}
