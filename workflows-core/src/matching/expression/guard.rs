//! Conditions that an index can answer: one path compared with literals.

use std::sync::Arc;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::{Variables, check::path_of};

/// A condition that a whole expression hangs on: the text at a path is one of some literals. When
/// it does not hold, the expression is false, whatever else it says.
///
/// `event.base.branch == "main"` and `event.action in ["opened", "updated"]` are such conditions
/// when they stand alone or are joined by `&&` at the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The path, such as `event.base.branch`.
    pub path: Arc<str>,
    /// The texts of which one must be there; ordered, each once.
    pub wanted: Box<[Arc<str>]>,
}

/// What a guard says to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardAnswer {
    Holds,
    Fails,
    /// There is no such path in the payload, which is an error of the expression.
    NoSuchPath,
}

impl Guard {
    pub(crate) fn answer(&self, variables: &Variables<'_>) -> GuardAnswer {
        match value_at(&self.path, variables) {
            Ok(Some(Value::String(text))) if self.holds_for(text) => GuardAnswer::Holds,
            Ok(_) => GuardAnswer::Fails,
            Err(()) => GuardAnswer::NoSuchPath,
        }
    }

    /// Whether a text is one of those that are wanted.
    pub fn holds_for(&self, text: &str) -> bool {
        self.wanted.binary_search_by(|wanted| (**wanted).cmp(text)).is_ok()
    }
}

/// What stands at a path; `None` where an event has nothing, and an error where a payload has no
/// such path.
pub(crate) fn value_at<'a>(path: &str, variables: &Variables<'a>) -> Result<Option<&'a Value>, ()> {
    if let Some(path) = path.strip_prefix("event.") {
        return Ok(variables.at(path));
    }
    if let Some(path) = path.strip_prefix("run.") {
        return Ok(variables.run.and_then(|run| run.get(path)));
    }
    let mut value = variables.body.ok_or(())?;
    for field in path.split('.').skip(1) {
        value = value.as_object().and_then(|object| object.get(field)).ok_or(())?;
    }
    Ok(Some(value))
}

/// The guards of an expression, and whether it says nothing else.
pub(super) fn guards(root: &IdedExpr) -> (Vec<Guard>, bool) {
    let mut guards = Vec::new();
    let mut complete = true;
    let mut conjuncts = vec![root];
    while let Some(expression) = conjuncts.pop() {
        let Expr::Call(call) = &expression.expr else {
            complete = false;
            continue;
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => conjuncts.extend([right, left]),
            (operators::EQUALS, [left, right]) => {
                let guard = compare(left, std::slice::from_ref(right))
                    .or_else(|| compare(right, std::slice::from_ref(left)));
                complete &= guard.is_some();
                guards.extend(guard);
            }
            (operators::IN, [path, list]) => {
                let guard = match &list.expr {
                    Expr::List(list) if list.optional_indices.is_empty() => {
                        compare(path, &list.elements)
                    }
                    _ => None,
                };
                complete &= guard.is_some();
                guards.extend(guard);
            }
            _ => complete = false,
        }
    }
    (guards, complete)
}

fn compare(path: &IdedExpr, literals: &[IdedExpr]) -> Option<Guard> {
    let (root, fields) = path_of(path)?;
    if fields.is_empty() || !matches!(root, "event" | "body") {
        return None;
    }
    // A field whose name holds a dot would be taken for two.
    if fields.iter().any(|field| field.contains('.')) || fields == ["changed_files"] {
        return None;
    }
    let mut wanted = literals
        .iter()
        .map(|literal| match &literal.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(Arc::from(text.inner())),
            _ => None,
        })
        .collect::<Option<Vec<Arc<str>>>>()?;
    wanted.sort();
    wanted.dedup();
    Some(Guard { path: format!("{root}.{}", fields.join(".")).into(), wanted: wanted.into() })
}
