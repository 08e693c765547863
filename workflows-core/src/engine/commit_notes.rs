//! What is told on a commit besides its runs: that a run was refused, waits for somebody, was not
//! needed or could not be decided, and what is wrong with the definitions.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    candidates::InRepository,
    core::Core,
    gate::{self, Gate},
    markdown,
    matcher::{AttemptRequest, Evaluation},
};
use crate::{
    CommitId, Event, Result,
    policy::Verdict,
    repo::{StatusAction, StatusState},
    store::{EventQuery, PageRequest, Rejected, StatusDesire, StatusKey, StatusSubject},
};

/// How many of a pull request's events are looked through for heads with broken definitions.
const EARLIER_EVENTS: u32 = 20;

/// Whose a note is on a commit. A commit belongs to no pull request: anybody can open one whose head
/// is the head of `main`. What nobody with rights let through is therefore behind every run and
/// every note of those who have them, whichever comes first.
pub(super) async fn note_order(
    gate: &Gate<'_>,
    event: &Event,
    request: &AttemptRequest,
) -> Result<i64> {
    let trusted = !gate::comes_from_outside(event) || gate.all().await?.1 == Verdict::Allow;
    Ok(if trusted { request.order } else { behind_everything(request.order) })
}

/// The place of an order among those that are behind all that the order of intake gives.
pub(super) fn behind_everything(order: i64) -> i64 {
    order.saturating_sub(i64::MAX)
}

impl Evaluation {
    pub(super) fn note(
        &mut self,
        event: &Event,
        order: i64,
        context: &Arc<str>,
        state: StatusState,
        title: &str,
        summary: &str,
    ) {
        let subject = StatusSubject::Note {
            state,
            title: title.to_owned(),
            summary: summary.to_owned(),
            actions: Vec::new(),
        };
        self.show(event, order, context, subject);
    }

    fn show(&mut self, event: &Event, order: i64, context: &Arc<str>, subject: StatusSubject) {
        let Some(head) = &event.head else { return };
        self.notes.push(StatusDesire {
            key: StatusKey {
                tenant: event.tenant.clone(),
                repo: event.repo.clone(),
                commit: head.sha.clone(),
                context: Arc::clone(context),
            },
            order,
            subject,
        });
    }

    pub(super) fn note_failure(
        &mut self,
        event: &Event,
        order: i64,
        context: Option<Arc<str>>,
        filter: &str,
        error: &str,
    ) {
        if let Some(context) = context {
            let title = format!("{filter} failed");
            self.note(event, order, &context, StatusState::Failure, &title, &quoted(error));
        }
    }

    pub(super) fn note_denied(
        &mut self,
        event: &Event,
        order: i64,
        context: &Arc<str>,
        rule: &str,
    ) {
        let title = "the platform does not allow this run";
        let summary = format!("Denied by the rule: {}", quoted(rule));
        self.note(event, order, context, StatusState::Failure, title, &summary);
    }

    pub(super) fn note_waiting(
        &mut self,
        event: &Event,
        order: i64,
        context: &Arc<str>,
        approvers: &str,
    ) {
        let head = event.head.as_ref().map_or("", |head| head.sha.as_str());
        let who = quoted(approvers);
        let summary = format!(
            "Nothing runs for commit {head} before it is approved by {who}. After a look at \
             that commit, comment:\n\n    /ok-to-test {head}\n\nA further commit needs a further \
             approval."
        );
        let pull_request = event.pull_request.as_ref().map(|one| one.number);
        let approve = pull_request.map(|pull_request| StatusAction::Approve { pull_request });
        let subject = StatusSubject::Note {
            state: StatusState::ActionRequired,
            title: format!("waits for the approval of {approvers}"),
            summary,
            actions: approve.into_iter().collect(),
        };
        self.show(event, order, context, subject);
    }

    /// Tells on the commit what is wrong with its definitions, and when that is mended.
    pub(super) async fn tell_of_directory(
        &mut self,
        core: &Core,
        event: &Event,
        order: i64,
        found: &InRepository,
    ) -> Result<()> {
        let InRepository { directory, commit, overruled } = found;
        self.batch
            .judged_by
            .insert("definitions".to_owned(), format!("{commit}, directory {}", directory.digest));
        for name in overruled {
            self.batch.judged_by.insert(
                format!("overruled/{name}"),
                "the platform registered a workflow of that name for the repository".to_owned(),
            );
        }
        if !directory.problems.is_empty() {
            self.batch.judged_by.insert("problems".to_owned(), directory.problems.join("\n"));
        }
        if event.head.as_ref().is_none_or(|head| head.sha != *commit) {
            return Ok(());
        }
        let context: Arc<str> = format!("{}/definitions", core.options.status_prefix).into();
        let mut lines = Vec::new();
        for problem in &directory.problems {
            lines.push(format!("- {}", quoted(problem)));
        }
        for name in overruled {
            let path = directory.workflows.get(name).map_or("", |one| one.loaded.source());
            lines.push(format!(
                "- {}: the workflow {} is not used, for the platform registered one of that name \
                 for this repository; rename it",
                quoted(path),
                quoted(name)
            ));
        }
        let (state, title) = match (directory.problems.len(), overruled.len()) {
            (0, 0) if was_broken(core, event, &context).await? => {
                (StatusState::Success, "every workflow loads again".to_owned())
            }
            (0, 0) => return Ok(()),
            (0, names) => (StatusState::Neutral, format!("{names} workflows are not used")),
            (1, _) => (StatusState::Failure, directory.problems[0].clone()),
            (problems, _) => {
                (StatusState::Failure, format!("{problems} problems: {}", directory.problems[0]))
            }
        };
        let title: String = title.chars().take(140).collect();
        self.note(event, order, &context, state, &title, &lines.join("\n"));
        Ok(())
    }
}

pub(super) fn skipped_because(rejected: &Rejected) -> String {
    let saw: String = rejected.saw.to_string().chars().take(500).collect();
    format!("`{}` wants `{}` and saw `{saw}`.", rejected.filter, rejected.wanted)
}

/// What came from outside, as text in Markdown: in a block of its own when it has several lines.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 10_000;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match lines.len() {
        0 | 1 => markdown::code(&markdown::cut(text, LONGEST)),
        _ => format!("\n\n{}", markdown::block(&lines, LONGEST)),
    }
}

/// Whether the definitions were told to be broken on this commit, or on one before it of the same
/// ref or pull request.
async fn was_broken(core: &Core, event: &Event, context: &Arc<str>) -> Result<bool> {
    let mut commits: BTreeSet<CommitId> = BTreeSet::new();
    commits.extend(event.head.iter().chain(&event.base).map(|one| one.sha.clone()));
    if let Some(pull_request) = &event.pull_request {
        let query = EventQuery::of(event.tenant.clone())
            .repo(Some(event.repo.id.clone()))
            .pull_request(Some(pull_request.number))
            .page(PageRequest { limit: EARLIER_EVENTS, after: None });
        let earlier = core.store.events(query).await?;
        commits.extend(earlier.items.into_iter().filter_map(|one| one.head).map(|one| one.sha));
    }
    for commit in commits {
        let key = StatusKey {
            tenant: event.tenant.clone(),
            repo: event.repo.clone(),
            commit,
            context: Arc::clone(context),
        };
        if let Some(record) = core.store.status(&key).await?
            && let StatusSubject::Note { state, .. } = record.desire.subject
            && state == StatusState::Failure
        {
            return Ok(true);
        }
    }
    Ok(false)
}
