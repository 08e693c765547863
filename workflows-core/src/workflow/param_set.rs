//! The parameters of a run: compiled together, so that one may refer to another, and rendered in an
//! order in which each comes behind those that it refers to.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    document::Param,
    load::SELF,
    problem::{Problem, shown},
    reference::{Reference, Root},
    substitute::{Refusal, Scope, Source, Template, variable},
    validate::ParamShape,
};
use crate::Result;

/// The parameters of the runs of one trigger.
#[derive(Debug)]
pub(super) struct ParamSet {
    params: Box<[ParamTemplate]>,
    /// Indices, each behind those that it refers to.
    order: Box<[usize]>,
}

#[derive(Debug)]
struct ParamTemplate {
    name: Arc<str>,
    value: Option<Template>,
    /// What its name alone says, when it has neither a value nor a default.
    implied: Option<Template>,
    default: Option<Template>,
}

/// What a parameter is that has no more than its name, when no caller gives it.
const IMPLIED: [(&str, &str); 7] = [
    ("revision", "$(event.head.sha)"),
    ("ref", "$(event.head.ref)"),
    ("branch", "$(event.head.branch)"),
    ("tag", "$(event.head.tag)"),
    ("pull-request", "$(event.pull_request.number)"),
    ("repo", "$(event.repo.name)"),
    ("sender", "$(event.sender)"),
];
/// The name of the parameter that is where the workflow's repository can be cloned from.
const URL: &str = "url";

impl ParamSet {
    /// Compiles parameters, each with the field that it stands in.
    pub(super) fn compile(
        params: &[(String, &Param)],
        repos: &[&str],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let shape = |param: &Param| {
            let given = param.value.as_ref().or(param.default.as_ref());
            given.and_then(ParamShape::of).unwrap_or(ParamShape::Open)
        };
        let scope = Scope {
            repos: repos.to_vec(),
            params: params.iter().map(|(_, param)| (&*param.name, shape(param))).collect(),
        };
        let compiled: Box<[ParamTemplate]> = params
            .iter()
            .map(|(field, param)| {
                let mut compile = |name: &str, value: &Option<Value>| {
                    let value = value.as_ref()?;
                    Some(Template::compile(&format!("{field}.{name}"), value, &scope, problems))
                };
                let bare = param.value.is_none() && param.default.is_none();
                let implied = if bare { implied(&param.name, repos) } else { None };
                ParamTemplate {
                    name: Arc::clone(&param.name),
                    value: compile("value", &param.value),
                    implied: compile("value", &implied.map(Value::String)),
                    default: compile("default", &param.default),
                }
            })
            .collect();
        let order = in_order(&compiled).unwrap_or_else(|cycle| {
            let names: Vec<&str> = cycle.iter().map(|index| &*compiled[*index].name).collect();
            let field = cycle.first().map(|index| params[*index].0.clone()).unwrap_or_default();
            problems.push(Problem::at(
                field,
                format!("parameters refer to each other in a circle: {}", names.join(" -> ")),
            ));
            Box::default()
        });
        Self { params: compiled, order }
    }

    /// For each parameter that has no default, its index and the references in its value.
    pub(super) fn required(&self) -> impl Iterator<Item = (usize, Vec<&Reference>)> {
        self.params.iter().enumerate().filter(|(_, param)| param.default.is_none()).filter_map(
            |(index, param)| {
                Some((index, param.value.as_ref().or(param.implied.as_ref())?.references()))
            },
        )
    }

    /// Puts all values together, and leaves them in the source.
    pub(super) fn render(&self, source: &mut Source<'_>) -> Result<()> {
        for index in &self.order {
            let Some(param) = self.params.get(*index) else { continue };
            let value = param
                .render(source)
                .map_err(|refusal| refusal.into_error("params").with("param", &param.name))?;
            source.params.insert(Arc::clone(&param.name), value);
        }
        Ok(())
    }

    /// The names, in the order of the document.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.params.iter().map(|param| &param.name)
    }
}

impl ParamTemplate {
    fn render(&self, source: &Source<'_>) -> Result<Value, Refusal> {
        let asked = match &self.value {
            Some(value) => value.render(source),
            None => self.given_by_caller(source),
        };
        match (asked, self.default.as_ref().or(self.implied.as_ref())) {
            (Err(Refusal::NoValue(_)), Some(otherwise)) => otherwise.render(source),
            (asked, _) => asked,
        }
    }

    /// The caller's parameter of the same name: a manual event brings them as `data.params`, and
    /// events of a platform's own kinds as their data.
    fn given_by_caller(&self, source: &Source<'_>) -> Result<Value, Refusal> {
        let event = source.values.event;
        let kind = event.get("kind").and_then(Value::as_str).unwrap_or_default();
        let kind = crate::EventKind::new(kind);
        let (given, place) = match event.get("data") {
            Some(data) if kind == crate::EventKind::MANUAL => (data.get("params"), "data.params"),
            Some(data) if !kind.is_built_in() => (Some(data), "data"),
            _ => (None, "data"),
        };
        let Some(given) = given.and_then(|given| given.get(&*self.name)) else {
            return Err(Refusal::NoValue(format!("$(event.{place}[\"{}\"])", self.name)));
        };
        let name = format!("the caller's parameter {}", shown(&self.name));
        let array = matches!(self.default, Some(Template::List(_) | Template::All(_)));
        let object = matches!(self.default, Some(Template::Object(_) | Template::All(_)));
        let (given, fits) = match given {
            Value::Number(_) | Value::Bool(_) => {
                (Value::String(given.to_string()), !array && !object)
            }
            Value::Array(_) => (given.clone(), array),
            Value::Object(_) => (given.clone(), object),
            other => (other.clone(), other.is_string() && !array && !object),
        };
        if !fits || ParamShape::of(&given).is_none() {
            let found = super::decode::describe(&given);
            return Err(Refusal::Wrong(format!(
                "{name} is {found}, which is not what its default is"
            )));
        }
        if given.to_string().contains("$(") {
            return Err(variable(&name));
        }
        Ok(given)
    }

    fn refers_to(&self) -> impl Iterator<Item = &str> {
        let templates = self.value.iter().chain(&self.implied).chain(&self.default);
        templates
            .flat_map(Template::references)
            .filter(|reference| reference.root == Root::Params)
            .map(Reference::first)
    }
}

/// The reference that a parameter's name alone stands for.
fn implied(name: &str, repos: &[&str]) -> Option<String> {
    if name == URL {
        let own = repos.iter().find(|repo| **repo == SELF).or(repos.first())?;
        return Some(format!("$(repos.{own}.url)"));
    }
    let known = IMPLIED.iter().find(|(known, _)| *known == name);
    known.map(|(_, reference)| (*reference).to_owned())
}

/// The names that stand for something by themselves.
pub(super) fn implied_names() -> impl Iterator<Item = &'static str> {
    IMPLIED.iter().map(|(name, _)| *name).chain([URL])
}

/// Indices of parameters, each behind those that it refers to; or a circle.
fn in_order(params: &[ParamTemplate]) -> Result<Box<[usize]>, Vec<usize>> {
    let index_of: BTreeMap<&str, usize> =
        params.iter().enumerate().map(|(index, param)| (&*param.name, index)).collect();
    let needs: Vec<Vec<usize>> = params
        .iter()
        .map(|param| param.refers_to().filter_map(|name| index_of.get(name).copied()).collect())
        .collect();
    let mut waited_for_by = vec![Vec::new(); params.len()];
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    for (index, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|need| waited_for_by[*need].push(index));
    }
    let mut order: Vec<usize> = (0..params.len()).filter(|index| missing[*index] == 0).collect();
    let mut next = 0;
    while let Some(index) = order.get(next).copied() {
        next += 1;
        for waiting in &waited_for_by[index] {
            missing[*waiting] -= 1;
            if missing[*waiting] == 0 {
                order.push(*waiting);
            }
        }
    }
    if order.len() < params.len() {
        let mut done = vec![false; params.len()];
        order.iter().for_each(|index| done[*index] = true);
        return Err(circle(&needs, &done));
    }
    Ok(order.into())
}

/// A circle among those that are not done. Each of them needs another one that is not done.
fn circle(needs: &[Vec<usize>], done: &[bool]) -> Vec<usize> {
    let mut path: Vec<usize> = Vec::new();
    let mut at = done.iter().position(|done| !done).unwrap_or_default();
    while !path.contains(&at) {
        path.push(at);
        at = needs[at].iter().copied().find(|need| !done[*need]).unwrap_or(at);
    }
    let start = path.iter().position(|index| *index == at).unwrap_or_default();
    let mut circle = path.split_off(start);
    circle.push(at);
    circle
}
