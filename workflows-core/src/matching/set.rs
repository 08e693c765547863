//! The triggers that an event may be for, and what each of them says to it.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    CompiledTrigger, Definition, Expression, FilterAnswer, FilterInput, Filters, MatchInput,
    Variables,
    expression::{abridged, value_at},
    trigger::{BRANCH, TriggerGuard},
};
use crate::{
    EventKind, Result, WorkflowId, hash_of,
    store::{Guard, Rejected},
    workflow::WhenSkipped,
};

/// The triggers of some workflows that are for one kind of event.
///
/// Triggers that hang on one path of the event being one of some texts (a branch filter without
/// wildcards, or `event.base.branch == "main"` at the top of an expression) are found through a
/// table, so that the cost of an event is that of what may match. What the table rules out is told
/// in [`SetDecision::guards`], together, and [`expand_described`] tells it one by one.
#[derive(Debug)]
pub struct TriggerSet {
    candidates: Vec<Candidate>,
    tables: Vec<Table>,
    /// Candidates that are in no table.
    others: Vec<u32>,
    description: OnceLock<(Arc<str>, Value)>,
}

/// A trigger of a set.
#[derive(Debug, Clone)]
pub struct Candidate {
    definition: Arc<Definition>,
    index: usize,
}

impl Candidate {
    /// The workflow.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The trigger's place in the workflow.
    pub fn trigger_index(&self) -> usize {
        self.index
    }

    /// The trigger.
    pub fn trigger(&self) -> &CompiledTrigger {
        &self.definition.triggers()[self.index]
    }
}

/// Candidates by the text that they want at one path.
#[derive(Debug)]
struct Table {
    path: Arc<str>,
    by_text: HashMap<Arc<str>, Vec<u32>>,
    members: Vec<Member>,
}

/// A candidate in a table, and which of its guards put it there.
#[derive(Debug, Clone, Copy)]
struct Member {
    place: u32,
    guard: usize,
}

/// With fewer candidates than this for one path each is asked by itself: it costs nothing, and the
/// record is plainer.
const SMALLEST_TABLE: usize = 8;

/// What a set says to an event.
#[derive(Debug, Clone, PartialEq)]
pub struct SetDecision {
    /// What single triggers say, by their place in the set, in order.
    pub verdicts: Vec<(usize, Verdict)>,
    /// What was ruled out together.
    pub guards: Vec<Guard>,
}

/// What a trigger says to an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is for the event.
    Matched {
        /// The command of the comment that it is for, when it is for one.
        command: Option<MatchedCommand>,
    },
    /// It is not.
    Rejected(Rejected),
    /// It cannot say.
    Failed {
        /// Which filter.
        filter: Arc<str>,
        /// With what.
        error: String,
    },
}

/// The command that started a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedCommand {
    /// Its place among the commands of the comment.
    pub index: usize,
    /// The command with its slash.
    pub name: Arc<str>,
    /// What stands behind it.
    pub arguments: Vec<String>,
}

/// A line of a set's description.
#[derive(Debug, Serialize, Deserialize)]
struct Described {
    workflow: WorkflowId,
    trigger: Arc<str>,
    path: Arc<str>,
    wanted: Vec<Arc<str>>,
    filter: Arc<str>,
    says: String,
}

impl TriggerSet {
    /// The triggers of these workflows that are for a kind of event.
    pub fn new(definitions: impl IntoIterator<Item = Arc<Definition>>, kind: &EventKind) -> Self {
        let mut definitions: Vec<_> = definitions.into_iter().collect();
        definitions.sort_by(|a, b| a.id().cmp(b.id()));
        let candidates: Vec<Candidate> = definitions
            .iter()
            .flat_map(|definition| {
                let of_kind = definition.triggers().iter().enumerate();
                of_kind
                    .filter(|(_, trigger)| trigger.kind() == kind)
                    .map(|(index, _)| Candidate { definition: Arc::clone(definition), index })
            })
            .collect();
        let (tables, others) = tables(&candidates);
        Self { candidates, tables, others, description: OnceLock::new() }
    }

    /// The triggers, in the order of their workflows' identities.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whether no trigger is in it.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// A name for what its tables hold: the same for the same triggers.
    pub fn digest(&self) -> &Arc<str> {
        &self.described().0
    }

    /// What is to be stored under the digest, so that [`expand_described`] can tell one by one what
    /// was ruled out together.
    pub fn describe(&self) -> &Value {
        &self.described().1
    }

    fn described(&self) -> &(Arc<str>, Value) {
        self.description.get_or_init(|| {
            let lines: Vec<Described> = self
                .tables
                .iter()
                .flat_map(|table| {
                    table.members.iter().filter_map(|member| {
                        let candidate = self.candidates.get(member.place as usize)?;
                        let guards = indexable(candidate.trigger());
                        let chosen = guards.into_iter().nth(member.guard)?;
                        Some(Described {
                            workflow: candidate.definition.id().clone(),
                            trigger: Arc::clone(candidate.trigger().name()),
                            path: chosen.guard.path,
                            wanted: chosen.guard.wanted.into(),
                            filter: chosen.filter.into(),
                            says: chosen.wanted_text,
                        })
                    })
                })
                .collect();
            let description = json!({ "triggers": lines });
            (hash_of(&[&description.to_string()]).into(), description)
        })
    }

    /// What each trigger says to an event. Filters are asked from cheap to dear; what has to be
    /// fetched is fetched when a trigger hangs on it alone.
    ///
    /// # Errors
    ///
    /// What could not be fetched now and may be later: decide again then. What can never be had is
    /// a [`Verdict::Failed`].
    pub async fn decide(&self, input: &MatchInput, filters: &Filters) -> Result<SetDecision> {
        let mut guards = Vec::new();
        let mut survivors = self.others.clone();
        for table in &self.tables {
            let Some(saw) = self.look_up(table, input).await? else {
                survivors.extend(table.members.iter().map(|member| member.place));
                continue;
            };
            let kept = match &saw {
                Value::String(text) => table.by_text.get(&**text).map_or(&[][..], Vec::as_slice),
                _ => &[],
            };
            survivors.extend(kept);
            let rejected = u32::try_from(table.members.len() - kept.len()).unwrap_or(u32::MAX);
            if rejected > 0 {
                let (set, path) = (Arc::clone(self.digest()), Arc::clone(&table.path));
                guards.push(Guard { set, path, saw, rejected });
            }
        }
        survivors.sort_unstable();
        let mut verdicts = Vec::with_capacity(survivors.len());
        for place in survivors {
            let place = place as usize;
            if let Some(candidate) = self.candidates.get(place) {
                verdicts.push((place, judge(candidate, input, filters).await?));
            }
        }
        Ok(SetDecision { verdicts, guards })
    }

    /// What stands at a table's path; `None` when that cannot be told, and each member is to be
    /// asked by itself.
    async fn look_up(&self, table: &Table, input: &MatchInput) -> Result<Option<Value>> {
        if &*table.path == BRANCH {
            return Ok(Some(input.event().branch().into()));
        }
        let mut variables = Variables::of_event(input.view());
        if table.path.starts_with("body.") {
            match input.payload().await? {
                Ok(Some(payload)) => variables.body = payload.body.as_ref().ok(),
                _ => return Ok(None),
            }
        }
        Ok(match value_at(&table.path, &variables) {
            Ok(Some(Value::String(text))) if text.len() > Expression::MAX_SOURCE => {
                // Longer than any text that can be wanted.
                Some(abridged(&Value::String(text.clone())))
            }
            Ok(Some(Value::String(text))) => Some(Value::String(text.clone())),
            Ok(value) => Some(value.map_or(Value::Null, abridged)),
            Err(()) => None,
        })
    }

    /// What a guard of a decision stands for, one by one.
    pub fn expand(&self, guard: &Guard) -> Vec<(WorkflowId, Arc<str>, Rejected)> {
        expand_described(self.describe(), guard)
    }
}

/// What a guard of a decision stands for, one by one, from the stored description of its set.
/// Lines that cannot be read are left out.
pub fn expand_described(
    description: &Value,
    guard: &Guard,
) -> Vec<(WorkflowId, Arc<str>, Rejected)> {
    let lines = description.get("triggers").and_then(Value::as_array);
    lines
        .into_iter()
        .flatten()
        .filter_map(|line| Described::deserialize(line).ok())
        .filter(|line| line.path == guard.path)
        .filter(|line| !line.wanted.iter().any(|wanted| guard.saw.as_str() == Some(&**wanted)))
        .map(|line| {
            let rejected =
                Rejected { filter: line.filter, wanted: line.says, saw: guard.saw.clone() };
            (line.workflow, line.trigger, rejected)
        })
        .collect()
}

/// The guards of a trigger that a table can hold: those whose value is the same for every trigger,
/// and of which nothing is shown when they fail.
fn indexable(trigger: &CompiledTrigger) -> Vec<TriggerGuard> {
    let is_shown = trigger.when_skipped() == WhenSkipped::Neutral;
    let mut guards = trigger.guards();
    guards.retain(|guard| {
        let is_filled_later = guard.guard.path.starts_with("event.comment.command");
        let must_be_evaluated = is_shown && guard.filter == "filter";
        !is_filled_later && !must_be_evaluated
    });
    guards
}

/// Puts each candidate that has a guard into the table of the path that tells the candidates apart
/// best.
fn tables(candidates: &[Candidate]) -> (Vec<Table>, Vec<u32>) {
    let guards: Vec<Vec<TriggerGuard>> =
        candidates.iter().map(|candidate| indexable(candidate.trigger())).collect();
    // For each path the texts that are wanted there.
    let mut texts: HashMap<Arc<str>, HashMap<Arc<str>, usize>> = HashMap::new();
    for guard in guards.iter().flatten() {
        let at_path = texts.entry(Arc::clone(&guard.guard.path)).or_default();
        for text in &guard.guard.wanted {
            *at_path.entry(Arc::clone(text)).or_default() += 1;
        }
    }
    let mut tables: HashMap<Arc<str>, Table> = HashMap::new();
    let mut others = Vec::new();
    for (place, guards) in (0u32..).zip(&guards) {
        // Fewest others for the same texts; the event before the payload, which may be missing.
        let best = guards.iter().enumerate().min_by_key(|(_, guard)| {
            let sharing: usize = guard
                .guard
                .wanted
                .iter()
                .filter_map(|text| texts.get(&guard.guard.path)?.get(text))
                .sum();
            (guard.guard.path.starts_with("body."), sharing, &guard.guard.path)
        });
        match best {
            Some((guard, best)) => {
                let table = tables.entry(Arc::clone(&best.guard.path)).or_insert_with(|| Table {
                    path: Arc::clone(&best.guard.path),
                    by_text: HashMap::new(),
                    members: Vec::new(),
                });
                table.members.push(Member { place, guard });
                for text in &best.guard.wanted {
                    table.by_text.entry(Arc::clone(text)).or_default().push(place);
                }
            }
            None => others.push(place),
        }
    }
    let mut kept: Vec<Table> = Vec::new();
    for table in tables.into_values() {
        if table.members.len() < SMALLEST_TABLE {
            others.extend(table.members.iter().map(|member| member.place));
        } else {
            kept.push(table);
        }
    }
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    (kept, others)
}

fn rejected(filter: &str, wanted: impl Into<String>, saw: Value) -> Verdict {
    Verdict::Rejected(Rejected { filter: filter.into(), wanted: wanted.into(), saw })
}

fn failed(filter: &str, error: impl Into<String>) -> Verdict {
    Verdict::Failed { filter: filter.into(), error: error.into() }
}

/// Asks the filters of a trigger from cheap to dear, and stops at the first that does not say yes.
async fn judge(candidate: &Candidate, input: &MatchInput, filters: &Filters) -> Result<Verdict> {
    let trigger = candidate.trigger();
    let command = match judge_event(trigger, input) {
        Ok(command) => command,
        Err(verdict) => return Ok(*verdict),
    };
    let mut expressions: Vec<&Expression> = trigger.expressions.iter().collect();
    // Stable: within what costs the same, the order of the document.
    expressions.sort_by_key(|expression| {
        let needs = expression.needs();
        (needs.changed_files, needs.body || needs.headers)
    });
    let (before_files, with_files) = expressions
        .split_at(expressions.partition_point(|expression| !expression.needs().changed_files));
    for expression in before_files {
        if let Some(verdict) = judge_expression(expression, input, command.as_ref()).await? {
            return Ok(verdict);
        }
    }
    if let Some(paths) = &trigger.paths {
        match input.changed_files().await? {
            Ok(files) if paths.accepts(files) => {}
            Ok(files) => {
                let first: Vec<_> = files.paths.iter().take(10).collect();
                let saw = json!({ "files": files.paths.len(), "first": first });
                return Ok(rejected("paths", paths.patterns().to_string(), saw));
            }
            Err(error) => return Ok(failed("paths", error)),
        }
    }
    for expression in with_files {
        if let Some(verdict) = judge_expression(expression, input, command.as_ref()).await? {
            return Ok(verdict);
        }
    }
    if let Some(name) = &trigger.custom_filter {
        let Some(filter) = filters.get(name) else {
            let error = format!("the platform has no filter `{name}`");
            return Ok(failed("customFilter", error));
        };
        let asked =
            FilterInput::new(input.event(), candidate.definition.id(), trigger.name(), input);
        match filter.accepts(&asked).await {
            Ok(FilterAnswer::Yes) => {}
            Ok(FilterAnswer::No { wanted, saw }) => {
                return Ok(rejected("customFilter", format!("{name}: {wanted}"), saw));
            }
            Err(error) if error.kind().is_retryable() => return Err(error),
            Err(error) => return Ok(failed("customFilter", error.to_string())),
        }
    }
    Ok(Verdict::Matched { command })
}

/// The filters that look at the event alone.
fn judge_event(
    trigger: &CompiledTrigger,
    input: &MatchInput,
) -> Result<Option<MatchedCommand>, Box<Verdict>> {
    let event = input.event();
    if !trigger.accepts_action(event) {
        return Err(Box::new(rejected(
            "actions",
            trigger.actions.join(", "),
            json!(event.actions),
        )));
    }
    let names =
        [("branches", &trigger.branches, event.branch()), ("tags", &trigger.tags, event.tag())];
    for (filter, patterns, name) in names {
        if let Some(patterns) = patterns
            && !name.is_some_and(|name| patterns.accepts(name))
        {
            return Err(Box::new(rejected(filter, patterns.to_string(), json!(name))));
        }
    }
    if !trigger.labels.is_empty() {
        let wants = |label: &Arc<str>| trigger.labels.contains(label);
        let (accepted, saw) = match (&event.label, &event.pull_request) {
            (Some(label), _) => (wants(label), json!(label)),
            (None, Some(pull_request)) => {
                (pull_request.labels.iter().any(wants), json!(pull_request.labels))
            }
            (None, None) => (false, Value::Null),
        };
        if !accepted {
            return Err(Box::new(rejected("labels", trigger.labels.join(", "), saw)));
        }
    }
    let Some(wanted) = &trigger.command else { return Ok(None) };
    match input.commands().iter().find(|command| command.name == *wanted) {
        Some(command) => match &command.arguments {
            Ok(arguments) => Ok(Some(MatchedCommand {
                index: command.index,
                name: Arc::clone(wanted),
                arguments: arguments.clone(),
            })),
            Err(error) => Err(Box::new(failed("command", error.to_string()))),
        },
        None => {
            let saw: Vec<_> = input.commands().iter().map(|command| &command.name).collect();
            Err(Box::new(rejected("command", &**wanted, json!(saw))))
        }
    }
}

/// What an expression says, unless it is yes.
async fn judge_expression(
    expression: &Expression,
    input: &MatchInput,
    command: Option<&MatchedCommand>,
) -> Result<Option<Verdict>> {
    let needs = expression.needs();
    let with_command;
    let mut variables = Variables::of_event(input.view());
    if let (true, Some(command)) = (needs.command, command) {
        let mut view = input.view().clone();
        if let Some(Value::Object(comment)) = view.get_mut("comment") {
            comment.insert("command".to_owned(), json!(command.name));
            comment.insert("arguments".to_owned(), json!(command.arguments));
        }
        with_command = view;
        variables.event = &with_command;
    }
    if needs.body || needs.headers {
        match input.payload().await? {
            Ok(Some(payload)) => {
                variables.headers = Some(&payload.headers);
                match &payload.body {
                    Ok(body) => variables.body = Some(body),
                    Err(error) if needs.body => return Ok(Some(failed("filter", error))),
                    Err(_) => {}
                }
            }
            Ok(None) => {}
            Err(error) => return Ok(Some(failed("filter", error))),
        }
    }
    if needs.changed_files {
        match input.changed_files().await? {
            Ok(files) if files.complete => variables.changed_files = Some(&files.paths),
            Ok(files) => {
                let error = format!(
                    "the list of changed files is not complete: only {} are known",
                    files.paths.len()
                );
                return Ok(Some(failed("filter", error)));
            }
            Err(error) => return Ok(Some(failed("filter", error))),
        }
    }
    Ok(match expression.evaluate(&variables) {
        Ok(true) => None,
        Ok(false) => Some(rejected("filter", &**expression.source(), expression.saw(&variables))),
        Err(error) => Some(failed("filter", format!("{}: {error}", expression.source()))),
    })
}

#[cfg(test)]
mod tests;
