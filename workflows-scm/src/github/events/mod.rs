//! GitHub's webhook events, read into claims:
//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads>.
//!
//! | event | what it becomes |
//! | --- | --- |
//! | `push` | where a branch or tag stands |
//! | `pull_request` | how the pull request is; of `labeled` and `unlabeled`, the label |
//! | `issue_comment` on a pull request, `pull_request_review_comment`, `pull_request_review` with a text, `commit_comment` | a comment, when it is new |
//! | `check_run` and `check_suite` re-requested, `check_run` with a button pressed | a [`Command`](workflows_core::engine::Command) |
//! | `merge_group`, `release`, `repository_dispatch` | an event of the kind of that name |
//! | `installation`, `installation_repositories` | a change of what the App reaches |
//!
//! Everything else is recorded as of no interest. The raw payload goes with each event, for
//! expressions over `body`.

mod checks;
mod comments;
mod format;
mod pull_requests;
mod refs;
mod releases;

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use workflows_core::{DeliveryId, Result, SubjectClaim, Verified};

pub use self::format::GitHubDeliveries;
use super::{GitHubDriver, pull_request::Account};
use crate::webhook::{AccessChange, DeliveredRepo, Delivery, DeliveryHeaders, Payload, Told};

const OPERATION: &str = "read a GitHub delivery";

/// What is looked at of a payload.
const KEPT: &[&str] = &[
    "action",
    "after",
    "before",
    "branch",
    "changes",
    "check_run",
    "check_suite",
    "client_payload",
    "comment",
    "forced",
    "head_commit",
    "installation",
    "issue",
    "label",
    "merge_group",
    "pull_request",
    "ref",
    "release",
    "repositories",
    "repositories_added",
    "repositories_removed",
    "repository",
    "requested_action",
    "review",
    "sender",
];

/// Reads a delivery.
fn decode(driver: &GitHubDriver, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery> {
    let event = headers.get("x-github-event").ok_or_else(|| {
        workflows_core::Error::invalid(
            OPERATION,
            "there is no `X-GitHub-Event` header; does the sender speak for GitHub?",
        )
    })?;
    let id = delivery_id(headers, body.body());
    let payload = Payload::parse(OPERATION, event, body.body(), KEPT)?;
    let action = payload.action();
    let what: Arc<str> = match &action {
        Some(action) => format!("{event}.{action}").into(),
        None => event.into(),
    };
    let repo = payload.repository(driver);
    if let (Some(repo), Some(installation)) = (&repo, payload.installation())
        && let Some((owner, _)) = repo.name.split_once('/')
    {
        driver.note_installation(owner, installation);
    }
    let told = match &repo {
        Some(_) => read(event, action.as_deref().unwrap_or(""), &id, &payload),
        None => read_of_no_repository(event, &payload),
    };
    let told = told.map_err(|error| error.with("event", &what).with("delivery", &id))?;
    Ok(Delivery {
        id,
        what,
        repo,
        sender: payload.sender().map(|sender| sender.login),
        occurred_at: None,
        told,
    })
}

fn read_of_no_repository(event: &str, payload: &Payload<'_>) -> Result<Told> {
    match event {
        "installation" | "installation_repositories" => access(payload),
        "ping" => Ok(nothing("the hook works")),
        _ => Ok(nothing("it is about no repository")),
    }
}

fn read(event: &str, action: &str, id: &DeliveryId, payload: &Payload<'_>) -> Result<Told> {
    if let Some(reason) = why_nothing(event, action) {
        return Ok(nothing(reason));
    }
    match (event, action) {
        ("push", _) => refs::push(payload),
        ("pull_request", action) => pull_requests::changed(action, payload),
        ("issue_comment", "created") => comments::in_conversation(payload),
        ("pull_request_review_comment", "created") => comments::on_line(payload),
        ("pull_request_review", "submitted") => comments::review(payload),
        ("commit_comment", "created") => comments::on_commit(payload),
        ("check_run", "rerequested") => checks::run_again(id, payload),
        ("check_run", "requested_action") => checks::button(id, payload),
        ("check_suite", "rerequested") => checks::suite_again(id, payload),
        ("merge_group", "checks_requested") => releases::merge_group(payload),
        ("release", action) => releases::release(action, payload),
        ("repository_dispatch", _) => releases::dispatch(action, id, payload),
        _ => Ok(nothing(NOBODY_WAITS)),
    }
}

const NOBODY_WAITS: &str = "no workflow can wait for events of this kind";

/// Why nothing can come of an event with that action, whatever its payload holds.
pub(super) fn why_nothing(event: &str, action: &str) -> Option<&'static str> {
    match (event, action) {
        (
            "push"
            | "pull_request"
            | "release"
            | "repository_dispatch"
            | "installation"
            | "installation_repositories",
            _,
        )
        | ("issue_comment" | "pull_request_review_comment" | "commit_comment", "created")
        | ("pull_request_review", "submitted")
        | ("check_run", "rerequested" | "requested_action")
        | ("check_suite", "rerequested")
        | ("merge_group", "checks_requested") => None,
        ("create", _) => Some("the push that comes with it tells the commit"),
        ("delete", _) => Some("the push that comes with it tells what was there"),
        (
            "issue_comment"
            | "pull_request_review_comment"
            | "pull_request_review"
            | "commit_comment",
            _,
        ) => Some("only a new comment counts"),
        ("check_run" | "check_suite", _) => Some("only what is asked for again counts"),
        ("merge_group", _) => Some("a group that is no more needs no checks"),
        ("repository", _) => Some("the repository keeps its id"),
        ("ping", _) => Some("the hook works"),
        _ => Some(NOBODY_WAITS),
    }
}

fn nothing(reason: &str) -> Told {
    Told::Nothing(reason.to_owned())
}

fn claim(claim: SubjectClaim) -> Told {
    Told::Claims(vec![claim])
}

/// What an App is installed on.
fn access(payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Installation {
        #[serde(default)]
        account: Option<Account>,
    }
    #[derive(Deserialize)]
    struct Named {
        full_name: Arc<str>,
    }
    let names = |named: Option<Vec<Named>>| {
        named.into_iter().flatten().map(|one| one.full_name).collect::<Vec<_>>()
    };
    let installation: Option<Installation> = payload.optional("installation")?;
    let mut added = names(payload.optional("repositories_added")?);
    let mut removed = names(payload.optional("repositories_removed")?);
    let listed = names(payload.optional("repositories")?);
    match payload.action().as_deref() {
        Some("deleted" | "suspend") => removed.extend(listed),
        _ => added.extend(listed),
    }
    let owner = installation.and_then(|one| one.account).map(|account| account.login);
    Ok(Told::AccessChanged(AccessChange { owner, added, removed }))
}

/// `X-GitHub-Delivery`, which a redelivery repeats; of a delivery without one, what its bytes are.
fn delivery_id(headers: &DeliveryHeaders, body: &Bytes) -> DeliveryId {
    const LONGEST: usize = 100;
    match headers.get("x-github-delivery") {
        Some(id) if !id.is_empty() && id.len() <= LONGEST => id.into(),
        _ => format!("sha256/{}", HEXLOWER.encode(&Sha256::digest(body))).into(),
    }
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: u64,
    full_name: Arc<str>,
}

/// What GitHub tells with every event.
trait Common {
    fn repository(&self, driver: &GitHubDriver) -> Option<DeliveredRepo>;
    fn installation(&self) -> Option<u64>;
    fn sender(&self) -> Option<Account>;
    fn action(&self) -> Option<String>;
}

impl Common for Payload<'_> {
    /// The repository, when the payload is about one.
    fn repository(&self, driver: &GitHubDriver) -> Option<DeliveredRepo> {
        let found: Repository = self.lenient("repository")?;
        driver.note_name(found.id, &found.full_name);
        Some(DeliveredRepo { id: driver.repo_id(found.id), name: found.full_name })
    }

    /// The App's installation that was told of it.
    fn installation(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Installation {
            id: u64,
        }
        self.lenient::<Installation>("installation").map(|one| one.id)
    }

    /// Who did it.
    fn sender(&self) -> Option<Account> {
        self.lenient("sender")
    }

    /// The action, where the event has one.
    fn action(&self) -> Option<String> {
        const LONGEST: usize = 100;
        self.lenient::<String>("action").filter(|action| action.len() <= LONGEST)
    }
}
