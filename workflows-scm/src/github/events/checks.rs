//! Buttons of check runs and suites, which are commands. The engine asks what who pressed one may do.

use std::sync::Arc;

use serde::Deserialize;
use workflows_core::{
    CancelMode, CommitId, DeliveryId, Result, RunKey, SubjectClaim,
    engine::{Command, RerunOf},
};

use super::{claim, nothing};
use crate::{
    github::check_action::CheckAction,
    webhook::{Payload, Told},
};

#[derive(Debug, Deserialize)]
struct CheckRun {
    head_sha: CommitId,
    #[serde(default)]
    external_id: Option<Arc<str>>,
}

impl CheckRun {
    /// The check's own id, which whoever made the check gave it.
    fn external_id(&self) -> Option<Arc<str>> {
        self.external_id.clone().filter(|id| !id.is_empty())
    }
}

/// Reads `check_run.rerequested`: one check is to run again. GitHub sends it to the App alone that
/// made the check.
pub(super) fn run_again(id: &DeliveryId, payload: &Payload<'_>) -> Result<Told> {
    let check: CheckRun = payload.required("check_run")?;
    Ok(again(id, &check))
}

fn again(id: &DeliveryId, check: &CheckRun) -> Told {
    match check.external_id() {
        Some(external_id) => {
            let of = RerunOf::Shown { external_id, commit: check.head_sha.clone() };
            command(id, Command::Rerun { of })
        }
        None => nothing(NO_ID),
    }
}

/// Reads `check_suite.rerequested`: all checks of a commit are to run again.
pub(super) fn suite_again(id: &DeliveryId, payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct CheckSuite {
        head_sha: CommitId,
    }
    let suite: CheckSuite = payload.required("check_suite")?;
    Ok(command(id, Command::Rerun { of: RerunOf::All { commit: suite.head_sha } }))
}

/// Reads `check_run.requested_action`: somebody pressed a button that this program made.
pub(super) fn button(id: &DeliveryId, payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Requested {
        identifier: String,
    }
    let check: CheckRun = payload.required("check_run")?;
    let requested: Requested = payload.required("requested_action")?;
    Ok(match CheckAction::parse(&requested.identifier) {
        Some(CheckAction::Approve { pull_request }) => {
            let head = check.head_sha;
            command(id, Command::Approve { pull_request, head })
        }
        Some(CheckAction::Cancel) => match check.external_id() {
            Some(run) => {
                let run = RunKey::from(run.to_string());
                command(id, Command::Cancel { run, mode: CancelMode::RunFinally })
            }
            None => nothing(NO_ID),
        },
        Some(CheckAction::Rerun) => again(id, &check),
        None => nothing("the button is another program's"),
    })
}

const NO_ID: &str = "the check is another program's: it has no `external_id`";

/// A command whose idempotency key is the id of the delivery, which a redelivery repeats.
fn command(id: &DeliveryId, command: Command) -> Told {
    claim(SubjectClaim::Occurrence(Box::new(command.occurrence(id.as_str()))))
}
