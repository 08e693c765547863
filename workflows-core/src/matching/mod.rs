//! Which triggers an event is for: patterns, commands, filter expressions, and the index that leads
//! from an event to the triggers that may want it.

mod command;
mod definition;
mod expression;
mod filter;
mod index;
mod input;
mod paths;
mod pattern;
mod set;
#[cfg(test)]
mod testing;
mod trigger;

pub(crate) use self::index::{narrowest, note_interests};
pub use self::{
    command::{Command, CommandError, PlatformCommand, commands, is_command},
    definition::Definition,
    expression::{Expression, Guard, Needs, Variables},
    filter::{Filter, FilterAnswer, FilterInput, Filters},
    index::Index,
    input::{EventDetails, MatchInput, NoDetails, ParsedPayload},
    paths::{ChangedFiles, PathFilter},
    pattern::{Pattern, Patterns},
    set::{Candidate, MatchedCommand, SetDecision, TriggerSet, Verdict, expand_described},
    trigger::{CompiledTrigger, default_actions},
};

/// What is wrong with a part of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
#[non_exhaustive]
pub struct Problem {
    /// Where in the trigger, such as `branches.include[0]`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Problem {
    /// A problem of a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A foreign text in quotes, with control characters escaped, for a message.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, 80))
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
