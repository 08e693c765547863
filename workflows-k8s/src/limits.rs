//! What an API server accepts in the metadata of a PipelineRun.

use std::fmt;

use serde_json::Value;

/// The longest name of a PipelineRun: it becomes a label of its TaskRuns and pods.
const MAX_NAME: usize = 63;
/// The longest label value, and the longest name part of a key.
const MAX_LABEL: usize = 63;
/// The longest prefix of a key.
const MAX_PREFIX: usize = 253;
/// The most bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Something in a PipelineRun that an API server or an archive refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `metadata.labels["a/b"]`.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything in the metadata of a PipelineRun that would be refused, or that would keep Tekton
/// Results from finding it.
///
/// The rules are those of Kubernetes for [names], [labels] and [annotations]. An owner reference is
/// a violation too: Tekton Results takes a run with any owner for a part of something larger and
/// gives it no summary.
///
/// [names]: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
/// [labels]: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
/// [annotations]: https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
///
/// ```
/// let run = serde_json::json!({
///     "apiVersion": "tekton.dev/v1",
///     "kind": "PipelineRun",
///     "metadata": {"name": "ci-3f2a1c5d", "labels": {"branch": "feature/x"}},
/// });
/// let violations = workflows_k8s::violations(&run);
/// assert_eq!(
///     violations[0].to_string(),
///     "metadata.labels[\"branch\"]: \"feature/x\" is no label value: at most 63 characters of \
///      a-z, A-Z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit"
/// );
/// ```
pub fn violations(pipeline_run: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    for (field, wanted) in [("apiVersion", "tekton.dev/v1"), ("kind", "PipelineRun")] {
        if pipeline_run[field] != wanted {
            let message = format!("it must be {wanted}");
            found.push(Violation { field: field.to_owned(), message });
        }
    }
    found.extend(of_metadata(pipeline_run));
    found
}

/// Everything in the metadata of a run that would be refused, whatever its kind.
pub(crate) fn of_metadata(run: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut violation = |field: String, message: String| found.push(Violation { field, message });
    let metadata = &run["metadata"];
    match metadata["name"].as_str() {
        Some(name) if is_dns_label(name) => {}
        Some(name) => violation(
            "metadata.name".into(),
            format!(
                "{name:?} is no DNS label: at most {MAX_NAME} characters of a-z, 0-9 and '-', \
                 beginning and ending with a letter or digit"
            ),
        ),
        None => violation(
            "metadata.name".into(),
            "it is missing: a generated name makes a second run when an answer is lost".into(),
        ),
    }
    if metadata.get("ownerReferences").is_some() {
        violation(
            "metadata.ownerReferences".into(),
            "a run has no owner: its history would go with it, and archives skip owned runs".into(),
        );
    }
    for (kind, entries) in
        [("labels", &metadata["labels"]), ("annotations", &metadata["annotations"])]
    {
        for (key, value) in entries.as_object().into_iter().flatten() {
            let field = || format!("metadata.{kind}[{key:?}]");
            if !is_qualified_name(key) {
                violation(field(), "the key is no qualified name: [prefix/]name".into());
            }
            let Some(value) = value.as_str() else {
                violation(field(), "the value must be a string".into());
                continue;
            };
            if kind == "labels" && !is_label_value(value) {
                violation(
                    field(),
                    format!(
                        "{value:?} is no label value: at most {MAX_LABEL} characters of a-z, A-Z, \
                         0-9, '-', '_' and '.', beginning and ending with a letter or digit"
                    ),
                );
            }
        }
    }
    let annotations = metadata["annotations"].as_object();
    let bytes: usize = annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > MAX_ANNOTATIONS {
        violation(
            "metadata.annotations".into(),
            format!("they have {bytes} bytes; at most {MAX_ANNOTATIONS} are allowed"),
        );
    }
    found
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= MAX_NAME && text.chars().all(inner) && has_alphanumeric_ends(text)
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

fn is_name_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= MAX_LABEL && text.chars().all(inner) && has_alphanumeric_ends(text)
}

fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name_part(key),
        Some((prefix, name)) => {
            prefix.len() <= MAX_PREFIX && prefix.split('.').all(is_dns_label) && is_name_part(name)
        }
    }
}

fn has_alphanumeric_ends(text: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    alphanumeric(text.chars().next()) && alphanumeric(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(run: &Value) -> Vec<String> {
        violations(run).into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_plain_run_is_accepted() {
        let run = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": {
                "name": "ci-3f2a1c5d",
                "labels": {"workflows.tekton.dev/workflow": "ci", "empty": ""},
                "annotations": {"workflows.tekton.dev/ref": "refs/heads/feature/x"},
            },
        });
        assert_eq!(violations(&run), []);
    }

    #[test]
    fn every_violation_is_reported_at_once() {
        let run = json!({
            "apiVersion": "tekton.dev/v1beta1",
            "kind": "TaskRun",
            "metadata": {
                "name": "CI_1",
                "ownerReferences": [],
                "labels": {"a/b/c": "x", "n": 1, "long": "x".repeat(64), "dash": "-x"},
                "annotations": {"big": "x".repeat(MAX_ANNOTATIONS)},
            },
        });
        assert_eq!(
            fields(&run),
            [
                "apiVersion",
                "kind",
                "metadata.name",
                "metadata.ownerReferences",
                "metadata.labels[\"a/b/c\"]",
                "metadata.labels[\"dash\"]",
                "metadata.labels[\"long\"]",
                "metadata.labels[\"n\"]",
                "metadata.annotations",
            ]
        );
    }

    #[test]
    fn a_run_without_a_name_of_its_own_is_refused() {
        let run = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": {"generateName": "ci-"},
        });
        assert_eq!(fields(&run), ["metadata.name"]);
    }

    #[test]
    fn a_name_of_63_characters_is_the_longest() {
        for (length, accepted) in [(63, true), (64, false)] {
            let run = json!({
                "apiVersion": "tekton.dev/v1",
                "kind": "PipelineRun",
                "metadata": {"name": "x".repeat(length)},
            });
            assert_eq!(violations(&run).is_empty(), accepted, "{length}");
        }
    }
}
