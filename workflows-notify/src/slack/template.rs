//! Headlines in somebody's own words.

use std::collections::BTreeMap;

use workflows_core::{Error, Result, RunView, Transition};

use crate::describe::{describe, short_duration};

/// What a template may name, between `$(` and `)`.
const NAMES: [&str; 16] = [
    "run.attempt",
    "run.author",
    "run.commit",
    "run.duration",
    "run.exit_code",
    "run.failed_step",
    "run.failed_task",
    "run.message",
    "run.pull_request",
    "run.ref",
    "run.repo",
    "run.summary",
    "run.title",
    "run.transition",
    "run.trigger",
    "run.workflow",
];

/// The longest template, in characters.
const LONGEST: usize = 250;

/// Templates by what happened.
#[derive(Debug, Clone, Default)]
pub(super) struct Templates(BTreeMap<Transition, Template>);

impl Templates {
    pub(super) fn add(
        &mut self,
        on: impl IntoIterator<Item = Transition>,
        text: &str,
    ) -> Result<()> {
        let template = Template::read(text)?;
        self.0.extend(on.into_iter().map(|transition| (transition, template.clone())));
        Ok(())
    }

    pub(super) fn of(&self, transition: Transition) -> Option<&Template> {
        self.0.get(&transition)
    }
}

/// A text with names in it. What is put in for a name stays a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(&'static str),
}

impl Template {
    fn read(text: &str) -> Result<Self> {
        let refuse = |why: String| {
            Error::invalid("read a template", why).with("template", format!("{text:?}"))
        };
        if text.trim().is_empty() || text.chars().count() > LONGEST {
            return Err(refuse(format!("a template has 1 to {LONGEST} characters")));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once("$(") {
            let at = text.len() - rest.len() + before.len();
            let (name, after) = from.split_once(')').ok_or_else(|| {
                refuse(format!("the `$(` at byte {at} is not closed; write `$(run.workflow)`"))
            })?;
            let known = NAMES.iter().find(|known| **known == name.trim()).ok_or_else(|| {
                let names = NAMES.join(", ");
                refuse(format!("`{}` at byte {at} does not exist; there are {names}", name.trim()))
            })?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Name(known));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The text for a run. What a run does not have is left out.
    pub(super) fn fill(&self, transition: Transition, run: &RunView) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Name(name) => value(name, transition, run),
            })
            .collect()
    }
}

fn value(name: &str, transition: Transition, run: &RunView) -> String {
    let failure = run.failure.as_ref();
    let number = |number: Option<String>| number.unwrap_or_default();
    match name {
        "run.attempt" => run.attempt.to_string(),
        "run.author" => run.author.as_deref().unwrap_or_default().to_owned(),
        "run.commit" => run.commit.as_ref().map_or("", |commit| commit.short()).to_owned(),
        "run.duration" => match (run.started_at, run.finished_at) {
            (Some(from), Some(to)) => short_duration(to.duration_since(from)),
            _ => String::new(),
        },
        "run.exit_code" => number(failure.and_then(|one| one.exit_code).map(|n| n.to_string())),
        "run.failed_step" => failure.map_or("", |one| &one.step).to_owned(),
        "run.failed_task" => failure.map_or("", |one| &one.task).to_owned(),
        "run.message" => run.message.clone(),
        "run.pull_request" => number(run.pull_request.map(|n| n.to_string())),
        "run.ref" => run.reference.as_deref().unwrap_or_default().to_owned(),
        "run.repo" => run.repo.to_string(),
        "run.summary" => describe(transition, run),
        "run.title" => run.title.clone().unwrap_or_default(),
        "run.transition" => transition.as_str().to_owned(),
        "run.trigger" => run.trigger.to_string(),
        "run.workflow" => run.workflow.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use workflows_core::RunState;

    use super::*;

    #[test]
    fn names_become_texts_and_are_not_looked_at_again() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut run = RunView::new("k", "acme/api", "ci", RunState::Failed, at);
        run.title = Some("$(run.repo) <!channel>".into());
        let template = Template::read("$( run.workflow ) broke: $(run.title) (5$)").unwrap();
        let filled = template.fill(Transition::Failed, &run);
        assert_eq!(filled, "ci broke: $(run.repo) <!channel> (5$)");
        for name in NAMES {
            Template::read(&format!("$({name})")).unwrap().fill(Transition::Failed, &run);
        }
    }

    #[test]
    fn a_template_that_is_wrong_is_refused_with_its_place() {
        let error = |text| Template::read(text).unwrap_err().message().to_owned();
        assert!(
            error("x $(run.nmae)").starts_with("`run.nmae` at byte 2 does not exist; there are")
        );
        assert!(error("x $(run.name").starts_with("the `$(` at byte 2 is not closed"));
        assert_eq!(error(" "), "a template has 1 to 250 characters");
        assert_eq!(error(&"x".repeat(251)), "a template has 1 to 250 characters");
    }
}
