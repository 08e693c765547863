//! One trigger, compiled.

use std::sync::{Arc, LazyLock};

use super::{
    Expression, Guard, PathFilter, Patterns, PlatformCommand, Problem, is_command, quoted,
};
use crate::{
    Event, EventKind,
    workflow::{Trigger, WhenSkipped},
};

/// A trigger whose patterns and expressions are compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledTrigger {
    pub(super) name: Arc<str>,
    pub(super) kind: EventKind,
    /// Any of these; any action at all when empty.
    pub(super) actions: Arc<[Arc<str>]>,
    pub(super) branches: Option<Box<Patterns>>,
    pub(super) tags: Option<Box<Patterns>>,
    pub(super) labels: Box<[Arc<str>]>,
    pub(super) command: Option<Arc<str>>,
    pub(super) expressions: Box<[Expression]>,
    pub(super) paths: Option<Box<PathFilter>>,
    pub(super) custom_filter: Option<Arc<str>>,
    pub(super) when_skipped: WhenSkipped,
}

impl CompiledTrigger {
    /// The most expressions of one trigger.
    pub const MAX_EXPRESSIONS: usize = 16;

    /// Compiles a trigger.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with its patterns, its command and its expressions; which fields go
    /// with which kind of event is the document's to check.
    pub fn compile(trigger: &Trigger) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keep = |result: Result<Patterns, Vec<Problem>>| match result {
            Ok(patterns) => Some(Box::new(patterns)),
            Err(found) => {
                problems.extend(found);
                None
            }
        };
        let branches = trigger.branches.as_ref().and_then(|patterns| {
            let (include, exclude) = (patterns.include(), patterns.exclude());
            keep(Patterns::of_refs("branches", "refs/heads/", include, exclude))
        });
        let tags = trigger.tags.as_ref().and_then(|patterns| {
            let (include, exclude) = (patterns.include(), patterns.exclude());
            keep(Patterns::of_refs("tags", "refs/tags/", include, exclude))
        });
        let paths = trigger.paths.as_ref().and_then(|filter| match PathFilter::new(filter) {
            Ok(filter) => Some(Box::new(filter)),
            Err(found) => {
                problems.extend(found);
                None
            }
        });
        if let Some(command) = &trigger.command {
            problems.extend(check_command(command));
        }
        let sources = trigger.filter.expressions();
        let mut expressions = Vec::with_capacity(sources.len());
        if sources.len() > Self::MAX_EXPRESSIONS {
            problems.push(Problem::new(
                "filter",
                format!(
                    "a trigger has at most {} expressions, and this one {}",
                    Self::MAX_EXPRESSIONS,
                    sources.len()
                ),
            ));
        } else {
            for (index, source) in sources.iter().enumerate() {
                match Expression::compile(source) {
                    Ok(expression) => expressions.push(expression),
                    Err(message) => {
                        let field = match sources.len() {
                            1 => "filter".to_owned(),
                            _ => format!("filter[{index}]"),
                        };
                        let message =
                            format!("the filter {} is refused: {message}", quoted(source));
                        problems.push(Problem::new(field, message));
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: Arc::clone(&trigger.name),
            kind: trigger.on.clone(),
            actions: match &*trigger.actions {
                [] => default_actions(&trigger.on),
                given => given.into(),
            },
            branches,
            tags,
            labels: trigger.labels.as_slice().into(),
            command: trigger.command.clone(),
            expressions: expressions.into(),
            paths,
            custom_filter: trigger.custom_filter.clone(),
            when_skipped: trigger.when_skipped,
        })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The kind of event that it is for.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// The actions that it is for; any when empty.
    pub fn actions(&self) -> &[Arc<str>] {
        &self.actions
    }

    /// What the commit shows when a path filter or an expression said no.
    pub fn when_skipped(&self) -> WhenSkipped {
        self.when_skipped
    }

    /// The name of the platform's filter that it asks.
    pub fn custom_filter(&self) -> Option<&Arc<str>> {
        self.custom_filter.as_ref()
    }

    /// The expressions that must hold, in the order of the document.
    pub(crate) fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// The command that it is for.
    pub fn command(&self) -> Option<&Arc<str>> {
        self.command.as_ref()
    }

    /// What the branches or tags that it is for all begin with, as full ref names; every ref of
    /// its kind when it names none.
    pub(super) fn ref_prefixes(&self) -> Vec<Arc<str>> {
        let (namespace, patterns) = match &self.kind {
            kind if *kind == EventKind::PUSH => ("refs/heads/", &self.branches),
            kind if *kind == EventKind::TAG => ("refs/tags/", &self.tags),
            _ => return Vec::new(),
        };
        match patterns.as_deref().map(Patterns::include) {
            None | Some([]) => vec![namespace.into()],
            Some(include) => include
                .iter()
                .map(|pattern| format!("{namespace}{}", pattern.literal_prefix()).into())
                .collect(),
        }
    }

    /// The conditions on one path each that must hold for it to match, with the filter that each
    /// is of.
    pub(super) fn guards(&self) -> Vec<TriggerGuard> {
        let branches = self.branches.as_deref().and_then(Patterns::as_literals).map(|names| {
            let mut wanted: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
            wanted.sort();
            wanted.dedup();
            TriggerGuard {
                filter: "branches",
                wanted_text: self.branches.as_deref().map(ToString::to_string).unwrap_or_default(),
                guard: Guard { path: BRANCH.into(), wanted: wanted.into() },
            }
        });
        let of_expressions = self.expressions.iter().flat_map(|expression| {
            expression.guards().iter().map(|guard| TriggerGuard {
                filter: "filter",
                wanted_text: expression.source().to_string(),
                guard: guard.clone(),
            })
        });
        branches.into_iter().chain(of_expressions).collect()
    }

    pub(super) fn accepts_action(&self, event: &Event) -> bool {
        self.actions.is_empty() || self.actions.iter().any(|action| event.has_action(action))
    }
}

/// What an index calls the branch that branch filters look at ([`Event::branch`]).
pub(super) const BRANCH: &str = "branch";

/// A condition that a trigger hangs on, and the filter that it is of.
#[derive(Debug, Clone)]
pub(super) struct TriggerGuard {
    pub(super) filter: &'static str,
    pub(super) wanted_text: String,
    pub(super) guard: Guard,
}

fn check_command(command: &str) -> Option<Problem> {
    let message = if PlatformCommand::NAMES.contains(&command) {
        format!("the command `{command}` belongs to the platform; choose another name")
    } else if !is_command(command) {
        format!(
            "the command {} is refused: a command is `/` and a word of letters, digits, `-` and \
             `_` that begins with a letter, such as `/bench`",
            quoted(command)
        )
    } else {
        return None;
    };
    Some(Problem::new("command", message))
}

/// The actions that a trigger is for when it names none; any for an empty list.
pub fn default_actions(kind: &EventKind) -> Arc<[Arc<str>]> {
    fn list(actions: &[&str]) -> Arc<[Arc<str>]> {
        actions.iter().map(|action| Arc::from(*action)).collect()
    }
    // Shared by all triggers, of which there may be many.
    static OF_PULL_REQUEST: LazyLock<Arc<[Arc<str>]>> =
        LazyLock::new(|| list(&["opened", "updated", "reopened", "retargeted", "ready"]));
    static OF_REF: LazyLock<Arc<[Arc<str>]>> =
        LazyLock::new(|| list(&["created", "updated", "forced"]));
    static OF_LABEL: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| list(&["labeled"]));
    static OF_COMMENT: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| list(&["created"]));
    static ANY: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| list(&[]));
    Arc::clone(match kind {
        kind if *kind == EventKind::PULL_REQUEST => &OF_PULL_REQUEST,
        kind if *kind == EventKind::PUSH || *kind == EventKind::TAG => &OF_REF,
        kind if *kind == EventKind::LABEL => &OF_LABEL,
        kind if *kind == EventKind::COMMENT => &OF_COMMENT,
        _ => &ANY,
    })
}

#[cfg(test)]
mod tests;
