//! By what a run can be told apart wherever it executes: its name, and the labels and annotations of
//! its PipelineRun.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{core::Core, planner::Candidate};
use crate::{AttemptId, Event, RunKey, event::Revision};

/// The prefix of the labels and annotations that say what a run is for.
pub(crate) const DOMAIN: &str = "workflows.tekton.dev";

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
