//! Check runs, which only an App can write (<https://docs.github.com/en/rest/checks/runs>).
//!
//! Creating one is not idempotent at GitHub. Each check run carries the id of what it is about as its
//! `external_id`; when an answer was lost, those of the commit are looked through for it before
//! another is created. A completed one is never opened again: another attempt is another check run.

use std::sync::Arc;

use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Error, ErrorKind, Result,
    repo::{EarlierReport, ReportedStatus, Status, StatusState},
    run::{Annotation, AnnotationLevel},
};

use super::{check_action::CheckAction, connection::GitHubRepository, credentials::Kind};
use crate::rest::{
    Priority,
    text::{cut_bytes, web_address},
};

const OPERATION: &str = "show a check run";
/// GitHub takes so many annotations in one request, and adds them to those that are there.
const BATCH: usize = 50;
/// More annotations help nobody.
const MOST_ANNOTATIONS: usize = 500;
/// Of a summary and of a text. The documentation says characters, GitHub counts bytes.
const TEXT: usize = 65_535;
/// GitHub refuses longer messages of annotations (64 KB).
const MESSAGE: usize = 60_000;

/// What is known of a check run between two reports; the engine keeps its JSON form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// GitHub's id of it.
    check: u64,
    /// Its `external_id`.
    of: Arc<str>,
    completed: bool,
    /// How many annotations it was given.
    #[serde(default)]
    annotations: usize,
    /// Whether a lost answer may have left another one about the same.
    #[serde(default)]
    maybe_twice: bool,
}

/// What GitHub says of a check run.
#[derive(Debug, Clone, Deserialize)]
struct CheckRun {
    id: u64,
    #[serde(default)]
    external_id: Option<String>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    html_url: Option<String>,
    #[serde(default)]
    output: ShownOutput,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ShownOutput {
    #[serde(default)]
    annotations_count: usize,
}

impl CheckRun {
    fn is_completed(&self) -> bool {
        self.status == "completed"
    }

    fn is_about(&self, external_id: &str) -> bool {
        self.external_id.as_deref() == Some(external_id)
    }
}

/// A request that creates or updates a check run.
#[derive(Debug, Clone, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_sha: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details_url: Option<&'a str>,
    external_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Timestamp>,
    output: Output<'a>,
    actions: Vec<Button>,
}

#[derive(Debug, Clone, Serialize)]
struct Output<'a> {
    title: &'a str,
    summary: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Remark<'a>>,
}

#[derive(Debug, Clone, Serialize)]
struct Remark<'a> {
    path: &'a str,
    start_line: u32,
    end_line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_column: Option<u32>,
    annotation_level: &'static str,
    message: &'a str,
}

/// A button. GitHub has room for 20 characters of label and identifier, and for 40 of description.
#[derive(Debug, Clone, Serialize)]
struct Button {
    label: &'static str,
    description: &'static str,
    identifier: String,
}

impl<'a> Body<'a> {
    fn of(status: &'a Status) -> Self {
        let (phase, conclusion) = phase(status.state);
        let ended = conclusion.is_some();
        Self {
            name: None,
            head_sha: None,
            details_url: web_address(status.link.as_deref()),
            external_id: &status.external_id,
            status: phase,
            conclusion,
            started_at: status.started_at,
            completed_at: status.finished_at.filter(|_| ended),
            output: Output {
                title: or(&status.title, &status.context),
                summary: or(cut_bytes(&status.summary, TEXT), &status.context),
                text: Some(cut_bytes(&status.details, TEXT)).filter(|text| !text.is_empty()),
                annotations: Vec::new(),
            },
            actions: status.actions.iter().filter_map(|action| button(*action)).collect(),
        }
    }

    fn is_completed(&self) -> bool {
        self.conclusion.is_some()
    }

    /// The same, with some of the annotations.
    fn with(&self, annotations: &'a [Annotation]) -> Self {
        let mut body = self.clone();
        body.output.annotations = annotations.iter().map(remark).collect();
        body
    }
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.trim().is_empty() { otherwise } else { text }
}

fn remark(annotation: &Annotation) -> Remark<'_> {
    let column = annotation.column.filter(|_| annotation.start_line == annotation.end_line);
    Remark {
        path: &annotation.path,
        start_line: annotation.start_line,
        end_line: annotation.end_line,
        start_column: column,
        end_column: column,
        annotation_level: match annotation.level {
            AnnotationLevel::Failure => "failure",
            AnnotationLevel::Warning => "warning",
            AnnotationLevel::Notice => "notice",
        },
        message: or(cut_bytes(&annotation.message, MESSAGE), "see there"),
    }
}

fn button(action: workflows_core::repo::StatusAction) -> Option<Button> {
    use workflows_core::repo::StatusAction;
    let (action, label, description) = match action {
        StatusAction::Approve { pull_request } => (
            CheckAction::Approve { pull_request },
            "Approve this commit",
            "Let what waits run for this very commit",
        ),
        StatusAction::Cancel => (CheckAction::Cancel, "Cancel", "End this run"),
        _ => return None,
    };
    Some(Button { label, description, identifier: action.identifier()? })
}

/// A check run's status and conclusion. Waiting for an approval is a conclusion at GitHub: the
/// check fails until somebody acts.
fn phase(state: StatusState) -> (&'static str, Option<&'static str>) {
    let conclusion = match state {
        StatusState::Queued => return ("queued", None),
        StatusState::InProgress => return ("in_progress", None),
        StatusState::ActionRequired => "action_required",
        StatusState::Success => "success",
        StatusState::Failure => "failure",
        StatusState::Cancelled => "cancelled",
        StatusState::TimedOut => "timed_out",
        StatusState::Neutral => "neutral",
        other if other.is_final() => "neutral",
        _ => return ("in_progress", None),
    };
    ("completed", Some(conclusion))
}

/// Makes a check run show a status.
pub(super) async fn report(
    repository: &GitHubRepository,
    status: &Status,
    earlier: EarlierReport<'_>,
) -> Result<ReportedStatus> {
    let reporting = Reporting { repository, status, body: Body::of(status) };
    let known: Option<Known> = earlier.id.and_then(|id| serde_json::from_str(id).ok());
    let mut may_be_another = earlier.may_have_reached;
    if let Some(known) = &known {
        if reporting.is_shown_by(known) {
            match reporting.go_on(known.clone(), earlier.may_have_reached).await {
                // It was removed, as GitHub does with the oldest of a thousand of one name; or not all
                // of GitHub knows it yet.
                Err(error) if error.kind() == ErrorKind::NotFound => may_be_another = true,
                reported => return reported,
            }
        } else if !known.completed {
            may_be_another |= !reporting.leave_to_another(known.check).await?;
        }
    }
    match may_be_another {
        false => reporting.create(false).await,
        true => reporting.find_or_create().await,
    }
    .map_err(unknown_commit)
}

struct Reporting<'a> {
    repository: &'a GitHubRepository,
    status: &'a Status,
    body: Body<'a>,
}

impl Reporting<'_> {
    /// Whether that check run is about the same, and can show it: what was completed stays so.
    fn is_shown_by(&self, known: &Known) -> bool {
        known.of == self.status.external_id && (self.body.is_completed() || !known.completed)
    }

    fn annotations(&self) -> &[Annotation] {
        &self.status.annotations[..self.status.annotations.len().min(MOST_ANNOTATIONS)]
    }

    /// Updates a check run that is known.
    async fn go_on(&self, mut known: Known, may_have_reached: bool) -> Result<ReportedStatus> {
        if may_have_reached && known.annotations < self.annotations().len() {
            // What a lost call added is not added again.
            let route = self.route(known.check);
            let now: CheckRun = self.client().get(OPERATION, &route).await?;
            known.annotations = now.output.annotations_count;
        }
        let left = self.annotations().get(known.annotations..).unwrap_or_default();
        let (first, rest) = left.split_at(left.len().min(BATCH));
        let shown = self.change(known.check, first).await?;
        self.annotate(known.check, rest).await?;
        known.annotations = known.annotations.max(self.annotations().len());
        known.completed = self.body.is_completed();
        if known.completed && known.maybe_twice {
            self.settle_twins(known.check).await?;
        }
        reported(&known, shown)
    }

    async fn find_or_create(&self) -> Result<ReportedStatus> {
        let listed = self.listed().await?;
        let about_it = listed.iter().filter(|one| one.is_about(&self.status.external_id));
        let Some(found) = about_it.max_by_key(|one| one.id) else {
            self.leave_older(&listed, u64::MAX).await?;
            return self.create(true).await;
        };
        if found.is_completed() && !self.body.is_completed() {
            return Err(Error::conflict(OPERATION, "the check run is completed already")
                .with("check run", found.id)
                .with("context", &self.status.context));
        }
        self.leave_older(&listed, found.id).await?;
        let known = Known {
            check: found.id,
            of: Arc::clone(&self.status.external_id),
            completed: found.is_completed(),
            annotations: found.output.annotations_count,
            maybe_twice: true,
        };
        self.go_on(known, false).await
    }

    async fn create(&self, maybe_twice: bool) -> Result<ReportedStatus> {
        let (first, rest) = self.annotations().split_at(self.annotations().len().min(BATCH));
        let created = match self.make(first).await {
            Err(error) if is_about_annotations(&error, first) => self.make(&[]).await?,
            created => created?,
        };
        self.annotate(created.id, rest).await?;
        let known = Known {
            check: created.id,
            of: Arc::clone(&self.status.external_id),
            completed: self.body.is_completed(),
            annotations: self.annotations().len(),
            maybe_twice,
        };
        reported(&known, created)
    }

    async fn make(&self, annotations: &[Annotation]) -> Result<CheckRun> {
        let mut body = self.body.with(annotations);
        body.name = Some(&self.status.context);
        body.head_sha = Some(self.status.commit.as_str());
        self.client().post(OPERATION, &self.repository.route(["check-runs"]), &body).await
    }

    /// Updates a check run, with some annotations; without them when GitHub does not take those, for
    /// the result counts for more.
    async fn change(&self, check: u64, annotations: &[Annotation]) -> Result<CheckRun> {
        let route = self.route(check);
        let body = self.body.with(annotations);
        match self.client().patch(OPERATION, &route, &body).await {
            Err(error) if is_about_annotations(&error, annotations) => {
                tracing::warn!(%error, "annotations are left out");
                self.client().patch(OPERATION, &route, &self.body).await
            }
            changed => changed,
        }
    }

    /// Adds annotations to a check run that shows all the rest.
    async fn annotate(&self, check: u64, annotations: &[Annotation]) -> Result<()> {
        for batch in annotations.chunks(BATCH) {
            self.change(check, batch).await?;
        }
        Ok(())
    }

    /// The check runs of this context that this App made at the commit.
    async fn listed(&self) -> Result<Vec<CheckRun>> {
        let commit = self.status.commit.as_str();
        let mut route = self
            .repository
            .route(["commits", commit, "check-runs"])
            .query("check_name", &self.status.context)
            .query("filter", "all")
            .query("per_page", 100);
        if let Kind::App { id, .. } = self.repository.api.authorizer().kind() {
            route = route.query("app_id", id);
        }
        self.client().pages_in(OPERATION, route, "check_runs").try_collect().await
    }

    /// Ends the check runs of earlier attempts that a lost answer left open.
    async fn leave_older(&self, listed: &[CheckRun], than: u64) -> Result<()> {
        for one in listed.iter().filter(|one| one.id < than && !one.is_completed()) {
            self.leave_to_another(one.id).await?;
        }
        Ok(())
    }

    /// Ends a check run because another one shows what it showed. Returns whether it was there.
    async fn leave_to_another(&self, check: u64) -> Result<bool> {
        #[derive(Serialize)]
        struct Left {
            status: &'static str,
            conclusion: &'static str,
            output: Output<'static>,
            actions: [Button; 0],
        }
        let left = Left {
            status: "completed",
            conclusion: "cancelled",
            output: Output {
                title: "Another attempt took its place",
                summary: "Another attempt took its place; see the newest check of this name.",
                text: None,
                annotations: Vec::new(),
            },
            actions: [],
        };
        match self.client().patch::<CheckRun>(OPERATION, &self.route(check), &left).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Of two check runs about the same the newer one is seen: each shows the same in the end.
    async fn settle_twins(&self, check: u64) -> Result<()> {
        for twin in self.listed().await? {
            let is_twin = twin.id != check && twin.is_about(&self.status.external_id);
            if is_twin && !twin.is_completed() {
                self.change(twin.id, &[]).await?;
            }
        }
        Ok(())
    }

    fn client(&self) -> super::api::Client {
        self.repository.client(Priority::Status)
    }

    fn route(&self, check: u64) -> crate::rest::Route {
        self.repository.route(["check-runs", &check.to_string()])
    }
}

fn reported(known: &Known, shown: CheckRun) -> Result<ReportedStatus> {
    let id = serde_json::to_string(known).map_err(|error| {
        Error::invalid(OPERATION, "what is known of it cannot be written").caused_by(error)
    })?;
    Ok(ReportedStatus { id, link: shown.html_url })
}

fn is_about_annotations(error: &Error, annotations: &[Annotation]) -> bool {
    let no_commit = error.to_string().contains(NO_COMMIT);
    error.kind() == ErrorKind::Invalid && !annotations.is_empty() && !no_commit
}

/// What GitHub says, with 422, of a commit that it does not know or not know yet.
const NO_COMMIT: &str = "No commit found";

pub(super) fn unknown_commit(error: Error) -> Error {
    if error.kind() == ErrorKind::Invalid && error.to_string().contains(NO_COMMIT) {
        return Error::not_found(OPERATION, "GitHub does not know the commit").caused_by(error);
    }
    error
}
