//! By what a run can be told apart wherever it executes: its name, and the labels and annotations of
//! its PipelineRun.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{core::Core, masking::fingerprints, planner::Candidate};
use crate::{
    AttemptId, Event, EventKey, RepoRef, Run, RunKey, RunState, SinkName, Tenant, WorkflowId,
    event::Revision,
    run::{GroupMembership, Origin},
    sink::ExistingRun,
    workflow::{Notification, Retention},
};

/// The prefix of the labels and annotations that say what a run is for.
pub(crate) const DOMAIN: &str = "workflows.tekton.dev";

/// The longest text that says whom a run tells: annotations are handed on to tasks and pods, and all
/// of an object's together have a limit.
const LONGEST_NOTIFY: usize = 16 * 1024;

/// The remark on runs that a ledger was rebuilt from.
pub(super) const ADOPTED: &str = "adopted";

/// What a run's PipelineRun tells besides its cause, for the day on which the ledger is lost.
pub(super) struct Shown<'a> {
    /// The digest of the document that defined it.
    pub(super) definition: &'a str,
    /// The name of its status.
    pub(super) status_context: &'a str,
    /// Its concurrency groups.
    pub(super) groups: &'a [GroupMembership],
    /// Whom it tells.
    pub(super) notify: &'a [Notification],
    /// How much of its workflow's history is kept.
    pub(super) retention: Option<&'a Retention>,
}

/// What a PipelineRun carries so that it can be told whose it is, whatever the ledger knows.
pub(super) struct RunIdentity {
    name: Arc<str>,
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl RunIdentity {
    /// What the run of a cause carries.
    pub(super) fn of(
        core: &Core,
        event: &Event,
        attempt: &AttemptId,
        candidate: &Candidate<'_>,
        run: &RunKey,
        name: &Arc<str>,
        shown: &Shown<'_>,
    ) -> Self {
        let Event { tenant, repo, kind, key, head, pull_request, .. } = event;
        let mut annotations = BTreeMap::new();
        let mut annotate = |name: &str, value: &str| {
            annotations.insert(format!("{DOMAIN}/{name}"), value.to_owned());
        };
        let number = pull_request.as_ref().map(|one| one.number.to_string());
        annotate("run-key", run.as_str());
        annotate("tenant", tenant.as_str());
        annotate("connection", repo.connection.as_str());
        annotate("repository", &repo.name);
        annotate("repository-id", repo.id.as_str());
        annotate("workflow", &candidate.id.to_string());
        annotate("trigger", candidate.trigger);
        annotate("event", key.as_str());
        annotate("attempt", attempt.as_str());
        if let Some(Revision { sha, reference }) = head {
            annotate("commit", sha.as_str());
            annotate("ref", reference);
        }
        if let Some(number) = &number {
            annotate("pull-request", number);
        }
        annotate("subject", event.subject.as_str());
        annotate("definition", shown.definition);
        annotate("status", shown.status_context);
        if !shown.groups.is_empty() {
            annotate("groups", &json!(shown.groups).to_string());
        }
        if !shown.notify.is_empty() {
            let notify = json!(shown.notify).to_string();
            if notify.len() <= LONGEST_NOTIFY {
                annotate("notify", &notify);
            }
        }
        if let Some(retention) = shown.retention {
            annotate("retention", &json!(retention).to_string());
        }
        let host = core.connections.get(tenant, &repo.connection);
        let archived = match host {
            Ok(connection) => format!("{}/{}", connection.driver.host(), repo.name),
            Err(_) => repo.name.to_string(),
        };
        let mut results = BTreeMap::from([
            ("repo", archived),
            ("event", kind.to_string()),
            ("event-id", key.to_string()),
            ("workflow", candidate.id.name.to_string()),
        ]);
        if let Some(Revision { sha, reference }) = head {
            results.insert("commit", sha.to_string());
            results.insert("ref", reference.to_string());
        }
        results.extend(number.clone().map(|number| ("pr", number)));
        // Tekton Results keeps these with the record, so that runs can be found by repository:
        // https://github.com/tektoncd/results/blob/main/docs/watcher/README.md
        let results = json!(results).to_string();
        for name in ["resultAnnotations", "recordSummaryAnnotations"] {
            annotations.insert(format!("results.tekton.dev/{name}"), results.clone());
        }
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, value: &str| {
            if let Some(value) = label_value(value) {
                labels.insert(format!("{DOMAIN}/{name}"), value);
            }
        };
        label("workflow", &candidate.id.name);
        label("trigger", candidate.trigger);
        label("repository", &repo.name);
        label("event", kind.as_str());
        if let Some(head) = head {
            label("commit", &head.sha.as_str()[..40]);
        }
        if let Some(number) = &number {
            label("pull-request", number);
        }
        Self { name: Arc::clone(name), annotations, labels }
    }

    /// Puts it on a PipelineRun, over whatever is there.
    pub(super) fn put_on(&self, pipeline_run: &mut Value) {
        let metadata = object(object_value(pipeline_run), "metadata");
        metadata.insert("name".to_owned(), json!(self.name));
        metadata.remove("generateName");
        metadata.remove("ownerReferences");
        for (field, values) in [("annotations", &self.annotations), ("labels", &self.labels)] {
            let target = object(metadata, field);
            target.extend(values.iter().map(|(name, value)| (name.clone(), json!(value))));
        }
    }
}

/// The run of which a PipelineRun tells that it is its; `None` when it tells of none, or of one whose
/// key is another's. What it does not tell is left out.
pub(super) fn read(sink: &SinkName, existing: ExistingRun, now: Timestamp) -> Option<Run> {
    let metadata = &existing.pipeline_run["metadata"];
    let told = |name: &str| metadata["annotations"][format!("{DOMAIN}/{name}")].as_str();
    let workflow = told("workflow")?;
    let workflow = match workflow.rsplit_once('#') {
        Some((repo, name)) => WorkflowId::in_repository(repo.into(), name),
        None => WorkflowId::registered(workflow),
    };
    let tenant = Tenant::new(told("tenant")?).ok()?;
    let trigger: Arc<str> = told("trigger")?.into();
    let event = EventKey::new(told("event")?);
    let attempt = AttemptId::new(told("attempt").unwrap_or_default());
    let key = RunKey::of(&tenant, &workflow, &trigger, &event, &attempt);
    if told("run-key")? != key.as_str() {
        return None;
    }
    let groups = told("groups").and_then(|groups| serde_json::from_str(groups).ok());
    let notify = told("notify").filter(|notify| notify.len() <= LONGEST_NOTIFY);
    let notify = notify.and_then(|notify| serde_json::from_str(notify).ok());
    let credential = existing.credential.as_ref();
    let created_at = metadata["creationTimestamp"].as_str().and_then(|at| at.parse().ok());
    Some(Run {
        key,
        version: 0,
        tenant,
        repo: RepoRef {
            connection: told("connection")?.into(),
            id: told("repository-id")?.into(),
            name: told("repository")?.into(),
        },
        workflow,
        trigger,
        event,
        order: 0,
        subject: serde_json::from_value(json!(told("subject")?)).ok()?,
        unchained: false,
        attempt,
        commit: told("commit").and_then(|commit| commit.parse().ok()),
        reference: told("ref").map(Into::into),
        pull_request: told("pull-request").and_then(|number| number.parse().ok()),
        origin: Origin { digest: told("definition")?.into(), commit: None, path: None },
        name: metadata["name"].as_str()?.into(),
        sink: sink.clone(),
        pipeline_run: Arc::new(existing.pipeline_run.clone()),
        groups: groups.unwrap_or_default(),
        state: RunState::Created,
        message: String::new(),
        cancel: None,
        replaces: Vec::new(),
        handle: Some(existing.handle),
        link: existing.link,
        tasks: Vec::new(),
        results: Vec::new(),
        failure: None,
        secrets: credential.map(fingerprints).unwrap_or_default(),
        credential_until: credential.and_then(|credential| credential.expires_at),
        remarks: BTreeMap::from([(ADOPTED.to_owned(), "the ledger was rebuilt".to_owned())]),
        notify: notify.unwrap_or_default(),
        asked_notifiers: Vec::new(),
        status_context: told("status").map(Into::into),
        retention: told("retention").and_then(|retention| serde_json::from_str(retention).ok()),
        facts: Vec::new(),
        judged_by: BTreeMap::new(),
        created_at: created_at.map_or(now, |at: Timestamp| at.min(now)),
        started_at: None,
        finished_at: None,
    })
}

fn object_value(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object"),
    }
}

fn object<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    object_value(parent.entry(field.to_owned()).or_insert(Value::Null))
}

/// The name of a run: a DNS-1123 label of at most 63 characters that begins with the workflow's name
/// and ends with the first digits of the run's key.
pub(super) fn run_name(workflow: &str, key: &RunKey) -> String {
    const LONGEST: usize = 50;
    let mut name: String = workflow
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(LONGEST)
        .collect();
    let digits: String = key.as_str().chars().take(12).collect();
    name.truncate(name.trim_end_matches('-').len());
    match name.trim_start_matches('-') {
        "" => format!("run-{digits}"),
        name => format!("{name}-{digits}"),
    }
}

/// A text as the value of a label: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit
/// at both ends; `None` when nothing is left of it. See
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.
fn label_value(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let clean: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).take(63).collect();
    let trimmed = clean.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RunKey {
        RunKey::from("0123456789abcdef".repeat(4))
    }

    #[test]
    fn a_runs_name_is_a_dns_label_that_ends_with_its_key() {
        assert_eq!(run_name("ci", &key()), "ci-0123456789ab");
        assert_eq!(run_name("Build.All_", &key()), "build-all-0123456789ab");
        assert_eq!(run_name("...", &key()), "run-0123456789ab");
        let long = run_name(&"w".repeat(253), &key());
        assert_eq!(long.len(), 63);
    }

    #[test]
    fn a_label_keeps_what_a_label_may_hold() {
        assert_eq!(label_value("acme/api").as_deref(), Some("acme-api"));
        assert_eq!(label_value("feature/ü x/").as_deref(), Some("feature---x"));
        assert_eq!(label_value("//"), None);
        let long = label_value(&"a/".repeat(100)).unwrap();
        assert_eq!(long.len(), 63);
    }
}
