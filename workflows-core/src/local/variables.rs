//! Tekton's variables, `$(params.x)` and its kin, as strings in a PipelineRun use them.
//!
//! The list of variables is <https://tekton.dev/docs/pipelines/variables/>. A text is taken apart
//! once; what is put in for a variable is never looked at again, so that a value that looks like a
//! variable, or like shell, stays text. As in Tekton there is no escape: `$$(params.x)` is a dollar
//! sign and the value. Everything else in `$(...)` is left alone: in a script it is the shell's.
//!
//! In `command`, `args` and `env` Kubernetes looks at what Tekton left: `$(NAME)` is the value of an
//! environment variable of the step where there is one of that name, and `$$(` is a literal `$(`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The value of a parameter or a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum ParamValue {
    Text(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

/// The declared type of a parameter or a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    List,
    Map,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "string",
            Self::List => "array",
            Self::Map => "object",
        })
    }
}

/// Scalars that are not strings count as their JSON text, as in Tekton.
pub(super) fn scalar(json: &Value) -> Result<String, String> {
    match json {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(json.to_string()),
        Value::Null => Err("a value is missing".into()),
        Value::Array(_) | Value::Object(_) => {
            Err("arrays and objects can hold only strings".into())
        }
    }
}

impl ParamValue {
    pub(super) fn from_json(json: &Value) -> Result<Self, String> {
        match json {
            Value::Array(items) => {
                items.iter().map(scalar).collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(entries) => entries
                .iter()
                .map(|(key, value)| Ok((key.clone(), scalar(value)?)))
                .collect::<Result<_, _>>()
                .map(Self::Map),
            other => scalar(other).map(Self::Text),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::List(items) => Value::from(items.clone()),
            Self::Map(entries) => entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::List(_) => Kind::List,
            Self::Map(_) => Kind::Map,
        }
    }
}

/// Which part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    /// The value as it is.
    Whole,
    /// `[*]`: all of an array or object.
    All,
    /// `[2]`
    Index(usize),
    /// `.key`
    Key(String),
}

/// What a variable stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// `params.NAME`
    Param(String),
    /// `tasks.TASK.results.NAME`
    TaskResult { task: String, result: String },
    /// `tasks.TASK.status`
    TaskStatus(String),
    /// `tasks.status`
    AllTasksStatus,
    /// `workspaces.NAME.path`
    WorkspacePath(String),
    /// `workspaces.NAME.bound`
    WorkspaceBound(String),
    /// `results.NAME.path`
    ResultPath(String),
    /// `context.KIND.FIELD`, without `context.`
    Context(String),
    /// An environment variable of the step, Kubernetes' `$(NAME)`; text where there is none.
    Environment(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) subject: Subject,
    selector: Selector,
    /// As it was written, with `$(` and `)`.
    written: String,
}

/// What the variables of a text are, by type.
pub(super) trait Declared {
    /// The type of the whole value; an error says what is wrong with the reference.
    fn kind(&self, subject: &Subject) -> Result<Kind, String>;
}

/// What the variables of a text are, by value.
pub(super) trait Scope {
    /// The whole value; `None` for an environment variable that there is not.
    fn value(&self, subject: &Subject) -> Result<Option<ParamValue>, String>;
}

impl Variable {
    fn kind(&self, declared: &dyn Declared) -> Result<Kind, String> {
        let whole = declared.kind(&self.subject).map_err(|wrong| self.wrong(&wrong))?;
        match (&self.selector, whole) {
            (Selector::Whole, kind) | (Selector::All, kind @ (Kind::List | Kind::Map)) => Ok(kind),
            (Selector::Index(_), Kind::List) | (Selector::Key(_), Kind::Map) => Ok(Kind::Text),
            (Selector::All, Kind::Text) => Err(self.wrong("[*] needs an array or an object")),
            (Selector::Index(_), kind) => {
                Err(self.wrong(&format!("an index needs an array, and this is of type {kind}")))
            }
            (Selector::Key(_), kind) => {
                Err(self.wrong(&format!("a key needs an object, and this is of type {kind}")))
            }
        }
    }

    fn value(&self, scope: &dyn Scope) -> Result<ParamValue, String> {
        let Some(whole) = scope.value(&self.subject).map_err(|wrong| self.wrong(&wrong))? else {
            return Ok(ParamValue::Text(self.written.clone()));
        };
        match (&self.selector, whole) {
            (Selector::Whole | Selector::All, whole) => Ok(whole),
            (Selector::Index(index), ParamValue::List(items)) => {
                items.get(*index).cloned().map(ParamValue::Text).ok_or_else(|| {
                    self.wrong(&format!("the array has only {} elements", items.len()))
                })
            }
            (Selector::Key(key), ParamValue::Map(entries)) => entries
                .get(key)
                .cloned()
                .map(ParamValue::Text)
                .ok_or_else(|| self.wrong("the object has no such key")),
            (Selector::Index(_), _) => Err(self.wrong("it is not an array")),
            (Selector::Key(_), _) => Err(self.wrong("it is not an object")),
        }
    }

    fn wrong(&self, what: &str) -> String {
        format!("{}: {what}", self.written)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// A text in which only Tekton's variables count.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse(text, &|_| None, "")
    }

    /// A text in which also Kubernetes' references to environment variables and its `$$(` count.
    pub(super) fn parse_argument(text: &str) -> Result<Self, String> {
        let environment =
            |name: &str| is_identifier(name).then(|| Subject::Environment(name.to_owned()));
        parse(text, &environment, "$$(")
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The one variable of which the text consists.
    fn only_variable(&self) -> Option<&Variable> {
        match self.0.as_slice() {
            [Part::Variable(variable)] => Some(variable),
            _ => None,
        }
    }

    /// Checks it as a string.
    pub(super) fn check_text(&self, declared: &dyn Declared) -> Result<(), String> {
        for variable in self.variables() {
            let kind = variable.kind(declared)?;
            if kind != Kind::Text {
                let what = format!("a value of type {kind} cannot stand in a string");
                return Err(variable.wrong(&what));
            }
        }
        Ok(())
    }

    /// Checks it as an element of an array, where a whole array may stand alone.
    pub(super) fn check_element(&self, declared: &dyn Declared) -> Result<(), String> {
        match self.only_variable().map(|variable| variable.kind(declared)).transpose()? {
            Some(Kind::Text | Kind::List) => Ok(()),
            _ => self.check_text(declared),
        }
    }

    /// Checks it as a value, where a whole array or object may stand alone.
    pub(super) fn check_value(&self, declared: &dyn Declared) -> Result<Kind, String> {
        match self.only_variable() {
            Some(variable) => variable.kind(declared),
            None => self.check_text(declared).map(|()| Kind::Text),
        }
    }

    /// The string.
    pub(super) fn text(&self, scope: &dyn Scope) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(variable) => match variable.value(scope)? {
                    ParamValue::Text(value) => text.push_str(&value),
                    other => {
                        let kind = other.kind();
                        let what = format!("a value of type {kind} cannot stand in a string");
                        return Err(variable.wrong(&what));
                    }
                },
            }
        }
        Ok(text)
    }

    /// The elements that it makes in an array.
    pub(super) fn elements(&self, scope: &dyn Scope) -> Result<Vec<String>, String> {
        if let Some(variable) = self.only_variable()
            && let ParamValue::List(items) = variable.value(scope)?
        {
            return Ok(items);
        }
        Ok(vec![self.text(scope)?])
    }

    /// The value.
    pub(super) fn value(&self, scope: &dyn Scope) -> Result<ParamValue, String> {
        match self.only_variable() {
            Some(variable) => variable.value(scope),
            None => self.text(scope).map(ParamValue::Text),
        }
    }
}

/// A string, an array or an object whose strings may have variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ValueTemplate {
    Text(Template),
    List(Vec<Template>),
    Map(BTreeMap<String, Template>),
}

impl ValueTemplate {
    pub(super) fn parse(json: &Value) -> Result<Self, String> {
        Ok(match ParamValue::from_json(json)? {
            ParamValue::Text(text) => Self::Text(Template::parse(&text)?),
            ParamValue::List(items) => Self::List(
                items.iter().map(|item| Template::parse(item)).collect::<Result<_, _>>()?,
            ),
            ParamValue::Map(entries) => Self::Map(
                entries
                    .into_iter()
                    .map(|(key, text)| Ok((key, Template::parse(&text)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }

    pub(super) fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Text(template) => vec![template],
            Self::List(templates) => templates.iter().collect(),
            Self::Map(templates) => templates.values().collect(),
        }
    }

    pub(super) fn check(&self, declared: &dyn Declared) -> Result<Kind, String> {
        match self {
            Self::Text(template) => template.check_value(declared),
            Self::List(templates) => {
                templates.iter().try_for_each(|template| template.check_element(declared))?;
                Ok(Kind::List)
            }
            Self::Map(templates) => {
                templates.values().try_for_each(|template| template.check_text(declared))?;
                Ok(Kind::Map)
            }
        }
    }

    pub(super) fn value(&self, scope: &dyn Scope) -> Result<ParamValue, String> {
        match self {
            Self::Text(template) => template.value(scope),
            Self::List(templates) => {
                let mut items = Vec::new();
                for template in templates {
                    items.extend(template.elements(scope)?);
                }
                Ok(ParamValue::List(items))
            }
            Self::Map(templates) => templates
                .iter()
                .map(|(key, template)| Ok((key.clone(), template.text(scope)?)))
                .collect::<Result<_, String>>()
                .map(ParamValue::Map),
        }
    }
}

/// Takes a text apart. `other` says what a name is that Tekton does not know; `escape`, where it is
/// not empty, stands for itself without its first character.
fn parse(
    text: &str,
    other: &dyn Fn(&str) -> Option<Subject>,
    escape: &str,
) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((inner, after)) = parenthesised(rest) {
            let known = match tekton_variable(inner)? {
                Some(found) => Some(found),
                None => other(inner).map(|subject| (subject, Selector::Whole)),
            };
            if let Some((subject, selector)) = known {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                let written = format!("$({inner})");
                parts.push(Part::Variable(Variable { subject, selector, written }));
                rest = after;
                continue;
            }
        }
        // Tekton's variable behind a second dollar sign comes first, as it does there.
        let escaped = rest.strip_prefix(escape).filter(|_| !escape.is_empty());
        match escaped {
            Some(after) if !starts_with_tekton_variable(&rest[1..])? => {
                literal.push_str(&escape[1..]);
                rest = after;
            }
            _ => {
                literal.push('$');
                rest = &rest[1..];
            }
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(Template(parts))
}

fn starts_with_tekton_variable(text: &str) -> Result<bool, String> {
    match parenthesised(text) {
        Some((inner, _)) => Ok(tekton_variable(inner)?.is_some()),
        None => Ok(false),
    }
}

/// What stands between a leading `$(` and the next `)`, and what follows. No variable is longer than
/// a few names, so that only a bounded stretch is searched.
fn parenthesised(text: &str) -> Option<(&str, &str)> {
    const LONGEST: usize = 1024;
    let after = text.strip_prefix("$(")?;
    let end = after.bytes().take(LONGEST).position(|byte| byte == b')')?;
    Some((&after[..end], &after[end + 1..]))
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The first words of Tekton's variables that are not offered here.
const UNSUPPORTED_ROOTS: [&str; 8] =
    ["steps", "step", "inputs", "outputs", "resources", "credentials", "artifacts", "finally"];

/// What stands between `$(` and `)`, if it is a variable of Tekton's; an error when it is one that
/// is not known.
fn tekton_variable(inner: &str) -> Result<Option<(Subject, Selector)>, String> {
    let root_length = inner.find(['.', '[']).unwrap_or(inner.len());
    let root = &inner[..root_length];
    let known = ["params", "tasks", "workspaces", "results", "context"];
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-[]*'\"/".contains(c);
    if root_length == inner.len() || !inner.chars().all(allowed) {
        return Ok(None);
    }
    if UNSUPPORTED_ROOTS.contains(&root) {
        return Err(format!("$({inner}): variables of {root} are not supported here"));
    }
    if !known.contains(&root) {
        return Ok(None);
    }
    let path = segments(&inner[root_length..])
        .ok_or_else(|| format!("$({inner}): this variable cannot be read"))?;
    let unknown = || Err(format!("$({inner}): there is no such variable"));
    let found = match (root, path.as_slice()) {
        ("params", [Segment::Name(name), rest @ ..]) => match selector(rest) {
            Some(selector) => (Subject::Param(name.clone()), selector),
            None => return unknown(),
        },
        ("tasks", [Segment::Name(status)]) if status == "status" => {
            (Subject::AllTasksStatus, Selector::Whole)
        }
        ("tasks", [Segment::Name(task), Segment::Name(status)]) if status == "status" => {
            (Subject::TaskStatus(task.clone()), Selector::Whole)
        }
        (
            "tasks",
            [Segment::Name(task), Segment::Name(results), Segment::Name(result), rest @ ..],
        ) if results == "results" => {
            let subject = Subject::TaskResult { task: task.clone(), result: result.clone() };
            match selector(rest) {
                Some(selector) => (subject, selector),
                None => return unknown(),
            }
        }
        ("workspaces", [Segment::Name(name), Segment::Name(field)]) if field == "path" => {
            (Subject::WorkspacePath(name.clone()), Selector::Whole)
        }
        ("workspaces", [Segment::Name(name), Segment::Name(field)]) if field == "bound" => {
            (Subject::WorkspaceBound(name.clone()), Selector::Whole)
        }
        ("results", [Segment::Name(name), Segment::Name(field)]) if field == "path" => {
            (Subject::ResultPath(name.clone()), Selector::Whole)
        }
        ("context", [Segment::Name(kind), Segment::Name(field)]) => {
            (Subject::Context(format!("{kind}.{field}")), Selector::Whole)
        }
        _ => return unknown(),
    };
    Ok(Some(found))
}

enum Segment {
    Name(String),
    Index(usize),
    All,
}

fn selector(rest: &[Segment]) -> Option<Selector> {
    match rest {
        [] => Some(Selector::Whole),
        [Segment::All] => Some(Selector::All),
        [Segment::Index(index)] => Some(Selector::Index(*index)),
        [Segment::Name(key)] => Some(Selector::Key(key.clone())),
        _ => None,
    }
}

/// Splits `.a["b.c"][0]`.
fn segments(mut text: &str) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    while !text.is_empty() {
        if let Some(after) = text.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, rest) = after.split_at(end);
            if name.is_empty() || name.contains(['\'', '"', ']', '*', '/']) {
                return None;
            }
            segments.push(Segment::Name(name.to_owned()));
            text = rest;
            continue;
        }
        let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            inner.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote))
        });
        segments.push(match quoted {
            Some(name) if !name.is_empty() => Segment::Name(name.to_owned()),
            Some(_) => return None,
            None if inner == "*" => Segment::All,
            None => Segment::Index(inner.parse().ok()?),
        });
        text = rest;
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Params(BTreeMap<String, ParamValue>);

    impl Params {
        fn of(json: Value) -> Self {
            let entries = json.as_object().unwrap().iter();
            Self(entries.map(|(k, v)| (k.clone(), ParamValue::from_json(v).unwrap())).collect())
        }
    }

    impl Scope for Params {
        fn value(&self, subject: &Subject) -> Result<Option<ParamValue>, String> {
            match subject {
                Subject::Param(name) => {
                    self.0.get(name).cloned().map(Some).ok_or_else(|| "no such parameter".into())
                }
                Subject::Environment(name) if name == "HOST" => {
                    Ok(Some(ParamValue::Text("box".into())))
                }
                Subject::Environment(_) => Ok(None),
                other => Err(format!("unexpected {other:?}")),
            }
        }
    }

    impl Declared for Params {
        fn kind(&self, subject: &Subject) -> Result<Kind, String> {
            Ok(self.value(subject)?.map_or(Kind::Text, |value| value.kind()))
        }
    }

    fn params() -> Params {
        Params::of(json!({
            "x": "value", "a.b": "dotted", "list": ["one", "two"], "object": {"key": "inner"},
            "hostile": "$(params.x) $(rm -rf /)", "number": 7,
        }))
    }

    fn text(template: &str) -> String {
        Template::parse(template).unwrap().text(&params()).unwrap()
    }

    fn argument(template: &str) -> String {
        Template::parse_argument(template).unwrap().text(&params()).unwrap()
    }

    #[test]
    fn each_form_of_a_reference_is_replaced() {
        assert_eq!(text("a $(params.x) b"), "a value b");
        assert_eq!(text("$(params[\"x\"])$(params['a.b'])"), "valuedotted");
        assert_eq!(text("$(params.list[1])"), "two");
        assert_eq!(text("$(params.object.key)"), "inner");
        assert_eq!(text("$(params.number)"), "7");
    }

    #[test]
    fn what_is_not_tektons_is_left_to_the_shell() {
        for script in [
            "$(date +%s)",
            "$((1 + 2))",
            "${x}",
            "$",
            "$(",
            "$(params)",
            "$(echo params.x)",
            "$(params.x y)",
            "$$(date)",
        ] {
            assert_eq!(text(script), script);
        }
    }

    #[test]
    fn what_was_put_in_is_not_looked_at_again() {
        assert_eq!(text("$(params.hostile)"), "$(params.x) $(rm -rf /)");
        assert_eq!(argument("$(params.hostile)"), "$(params.x) $(rm -rf /)");
    }

    #[test]
    fn a_second_dollar_sign_does_not_protect_a_variable_of_tektons() {
        assert_eq!(text("$$(params.x)"), "$value");
        assert_eq!(argument("$$(params.x)"), "$value");
    }

    #[test]
    fn arguments_know_the_environment_and_kubernetes_escape() {
        assert_eq!(argument("on $(HOST)"), "on box");
        assert_eq!(argument("$$(HOST)"), "$(HOST)");
        assert_eq!(argument("$(NOBODY)"), "$(NOBODY)");
        assert_eq!(text("$(HOST)"), "$(HOST)");
    }

    #[test]
    fn a_whole_array_may_stand_alone_as_an_element() {
        let elements = |t: &str| Template::parse(t).unwrap().elements(&params());
        assert_eq!(elements("$(params.list[*])").unwrap(), ["one", "two"]);
        assert_eq!(elements("$(params.x)").unwrap(), ["value"]);
        assert!(elements("x$(params.list[*])").is_err());
    }

    #[test]
    fn a_whole_object_may_stand_alone_as_a_value() {
        let template = ValueTemplate::parse(&json!("$(params.object[*])")).unwrap();
        assert_eq!(template.check(&params()).unwrap(), Kind::Map);
        assert_eq!(template.value(&params()).unwrap().to_json(), json!({"key": "inner"}));
        let template = ValueTemplate::parse(&json!(["$(params.list[*])", "$(params.x)"])).unwrap();
        assert_eq!(template.value(&params()).unwrap().to_json(), json!(["one", "two", "value"]));
    }

    #[test]
    fn types_are_checked() {
        let check = |t: &str| Template::parse(t).unwrap().check_text(&params());
        assert!(check("$(params.list[0]) $(params.object.key)").is_ok());
        for wrong in [
            "$(params.list)",
            "$(params.object[*])",
            "$(params.x[0])",
            "$(params.x[*])",
            "$(params.list.key)",
            "$(params.nobody)",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_index_beyond_the_end_and_an_unknown_key_are_errors() {
        let text = |t: &str| Template::parse(t).unwrap().text(&params());
        assert!(text("$(params.list[2])").unwrap_err().contains("only 2 elements"));
        assert!(text("$(params.object.other)").unwrap_err().contains("no such key"));
    }

    #[test]
    fn unknown_and_unsupported_variables_are_refused() {
        for wrong in [
            "$(tasks.a)",
            "$(workspaces.w.claim)",
            "$(context.x)",
            "$(steps.a.results.b)",
            "$(params.x[)",
            "$(params..x)",
            "$(results.r)",
            "$(params.x.y.z)",
        ] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
