//! The rules of the document that its types cannot say.

mod names;
mod pipeline;
mod trigger;

use std::collections::BTreeSet;

use serde_json::Value;

pub(crate) use self::{
    pipeline::{ParamShape, check_against_pipeline},
    trigger::compile as compile_triggers,
};
use super::{
    concurrency::{Concurrency, Strategy},
    document::{Notification, RepoSelector, Retention, Workflow},
    duration::parse_duration,
    load::{DocumentPlace, LoadContext, SELF},
    problem::{Problem, did_you_mean, shown},
};
use crate::{
    Error, Result,
    matching::{Expression, Pattern},
};

/// The most items of a list of the document.
const LONGEST_LIST: usize = 256;

/// All rules that a document breaks.
pub(crate) fn validate(workflow: &Workflow, context: &LoadContext) -> Vec<Problem> {
    let mut problems = Problems::default();
    let spec = &workflow.spec;
    let lists = [
        ("repos", spec.repos.len()),
        ("triggers", spec.triggers.len()),
        ("params", spec.params.len()),
        ("workspaces", spec.workspaces.len()),
        ("concurrency", spec.concurrency.len()),
        ("notify", spec.notify.as_ref().map_or(0, Vec::len)),
    ];
    for (name, length) in lists.into_iter().filter(|(_, length)| *length > LONGEST_LIST) {
        let message = format!("the list has {length} items; at most {LONGEST_LIST} are allowed");
        problems.add_with(format!("spec.{name}"), message, "split the workflow");
    }
    if !problems.0.is_empty() {
        return problems.0;
    }
    metadata(workflow, &mut problems);
    repos(&spec.repos, context, &mut problems);
    trigger::check(&spec.triggers, context, &mut problems);
    pipeline::check(spec, &mut problems);
    for (index, group) in spec.concurrency.iter().enumerate() {
        concurrency(&format!("spec.concurrency[{index}]"), group, &mut problems);
    }
    for (index, notification) in spec.notify.iter().flatten().enumerate() {
        notify(&format!("spec.notify[{index}]"), notification, context, &mut problems);
    }
    if let Some(retention) = &spec.retention {
        self::retention(retention, &mut problems);
    }
    if let Some(sink) = &spec.sink {
        problems.known("spec.sink", "sink", sink.as_str(), context.sinks.as_ref());
    }
    problems.0
}

/// The problems found so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::at(field, message));
    }

    fn add_with(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.0.push(Problem::at(field, message).help(help));
    }

    /// Refuses a name that the platform does not offer, when it said what it offers.
    fn known(&mut self, field: &str, what: &str, name: &str, known: Option<&BTreeSet<String>>) {
        let Some(known) = known else { return };
        if !known.contains(name) {
            let meant = did_you_mean(name, known.iter().map(String::as_str));
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            self.add_with(
                field,
                format!("there is no {what} named {}{meant}", shown(name)),
                format!("the platform offers: {names}"),
            );
        }
    }

    fn duration(&mut self, field: &str, text: &str) {
        match parse_duration(text) {
            Err(error) => {
                self.add_with(field, error.message(), "write it as 90s, 30m, 1h30m or 7d")
            }
            Ok(duration) if duration.is_zero() => {
                self.add_with(field, "no time at all has no meaning here", "leave the field out");
            }
            Ok(_) => {}
        }
    }

    /// Refuses `$(...)` in a field that is taken as it is written.
    fn literal(&mut self, field: &str, text: &str) {
        if text.contains("$(") {
            self.add_with(
                field,
                "references are not substituted here",
                "references have a meaning in params, concurrency groups, workspaces and the \
                 params of a resolver",
            );
        }
    }
}

fn metadata(workflow: &Workflow, problems: &mut Problems) {
    let metadata = &workflow.metadata;
    if !names::is_subdomain(&metadata.name, 63) {
        problems.add_with(
            "metadata.name",
            format!("{} cannot be a workflow's name", shown(&metadata.name)),
            names::SUBDOMAIN,
        );
    }
    for (key, value) in &metadata.labels {
        let field = format!("metadata.labels.{key}");
        label_key(&field, key, problems);
        if !names::is_label_value(value) {
            problems.add_with(
                &field,
                format!("{} cannot be a label's value", shown(value)),
                "at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter \
                 or digit",
            );
        }
    }
    for key in metadata.annotations.keys() {
        label_key(&format!("metadata.annotations.{key}"), key, problems);
    }
}

fn label_key(field: &str, key: &str, problems: &mut Problems) {
    if !names::is_qualified(key) {
        problems.add_with(
            field,
            format!("{} cannot be a label's or annotation's name", shown(key)),
            "a name of at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before \
             it where wanted",
        );
    } else if key.starts_with("workflows.tekton.dev/") {
        problems.add_with(
            field,
            format!("{} is set by the platform", shown(key)),
            "use a domain of your own",
        );
    }
}

fn repos(repos: &[RepoSelector], context: &LoadContext, problems: &mut Problems) {
    let registered = context.place == DocumentPlace::Registered;
    if registered && repos.is_empty() {
        problems.add_with(
            "spec",
            "a registered workflow names the repository that it is about",
            "add `repos: [{ name: code, connection: <connection>, repo: <owner/name> }]`",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, repo) in repos.iter().enumerate() {
        let field = format!("spec.repos[{index}]");
        if !names::is_label(&repo.name) {
            problems.add_with(
                format!("{field}.name"),
                format!("{} cannot be a repository's name in the document", shown(&repo.name)),
                names::LABEL,
            );
        }
        // Of a registered document it may as well be called what it would be called in there.
        if &*repo.name == SELF && !(registered && index == 0) {
            problems.add_with(
                format!("{field}.name"),
                "`self` means the repository that a document stands in",
                "choose another name",
            );
        }
        if !seen.insert(&*repo.name) {
            problems.add_with(
                format!("{field}.name"),
                format!("another repository is named {}", shown(&repo.name)),
                "rename one of them",
            );
        }
        problems.known(
            &format!("{field}.connection"),
            "connection",
            repo.connection.as_str(),
            context.connections.as_ref(),
        );
        let name_field = format!("{field}.repo");
        problems.literal(&name_field, &repo.repo);
        let spaced = repo.repo.chars().any(|c| c.is_whitespace() || c.is_control());
        if repo.repo.is_empty() || repo.repo.len() > 500 || spaced {
            problems.add_with(
                &name_field,
                format!("{} is no repository's full name", shown(&repo.repo)),
                "such as acme/api",
            );
        } else if repo.repo.contains(['*', '?', '[', ']', '{', '}']) && !(registered && index == 0)
        {
            let help = if registered {
                "only the first repository can be a pattern"
            } else {
                "a document in a repository names each further repository in full"
            };
            problems.add_with(
                &name_field,
                format!("{} is a pattern, which is not allowed here", shown(&repo.repo)),
                help,
            );
        }
        if let Err(message) = Pattern::of_repository(&repo.repo) {
            problems.add(&name_field, message);
        }
        if let Some(reference) = &repo.reference {
            git_ref(&format!("{field}.ref"), reference, problems);
        }
    }
}

/// What git allows as the name of a ref, roughly: what no host would accept is refused.
fn git_ref(field: &str, reference: &str, problems: &mut Problems) {
    let wrong = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if reference.is_empty()
        || reference.len() > 500
        || reference.contains(wrong)
        || reference.contains("..")
        || reference.starts_with(['/', '-'])
    {
        problems.add_with(
            field,
            format!("{} cannot be a branch, a tag or a full ref name", shown(reference)),
            "such as main, v1.2 or refs/heads/main",
        );
    }
}

fn concurrency(field: &str, group: &Concurrency, problems: &mut Problems) {
    if group.group.trim().is_empty() {
        problems.add_with(
            format!("{field}.group"),
            "a group has a key",
            "such as $(workflow.name)/$(event.pull_request.number)",
        );
    }
    if let Strategy::Queue(limits) = &group.strategy {
        if limits.max_running == 0 {
            problems.add_with(
                format!("{field}.maxRunning"),
                "nothing would ever run",
                "at least 1",
            );
        }
        if let Some(wait) = &limits.max_wait {
            problems.duration(&format!("{field}.maxWait"), wait);
        }
    }
}

fn notify(
    field: &str,
    notification: &Notification,
    context: &LoadContext,
    problems: &mut Problems,
) {
    problems.known(
        &format!("{field}.notifier"),
        "notifier",
        notification.notifier.as_str(),
        context.notifiers.as_ref(),
    );
    if notification.notifier.as_str().is_empty() {
        problems.add(format!("{field}.notifier"), "a notifier has a name");
    }
    if notification.on.is_empty() {
        problems.add_with(
            format!("{field}.on"),
            "nobody would ever be told anything",
            "name transitions, or leave the field out for failed, timed_out and recovered",
        );
    }
    if let Some(filter) = &notification.filter
        && let Err(error) = Expression::over_runs(filter)
    {
        problems.add(format!("{field}.filter"), error);
    }
}

impl Notification {
    /// Checks what does not hang on which notifiers there are: that it names one, that it is about some
    /// transition, and that its filter is CEL over `run` and `event`.
    ///
    /// # Errors
    ///
    /// `Invalid`, with each field and what is wrong with it.
    pub fn check(&self) -> Result<()> {
        let mut problems = Problems::default();
        notify("", self, &LoadContext::registered(), &mut problems);
        if problems.0.is_empty() {
            return Ok(());
        }
        let told = problems.0.iter().map(|problem| {
            let field = problem.field.trim_start_matches('.');
            let remedy = problem.remedy.iter().map(|remedy| format!("; {remedy}"));
            format!("{field}: {}{}", problem.message, remedy.collect::<String>())
        });
        let told: Vec<String> = told.collect();
        Err(Error::invalid("read a notification", told.join("; ")))
    }
}

fn retention(retention: &Retention, problems: &mut Problems) {
    if retention.runs == Some(0) {
        problems.add_with("spec.retention.runs", "no run would be kept", "at least 1");
    }
    if let Some(age) = &retention.age {
        problems.duration("spec.retention.age", age);
    }
}

/// The text of a field of a mapping.
fn text_of<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}
