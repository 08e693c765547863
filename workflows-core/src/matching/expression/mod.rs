//! Filter expressions: CEL over the event, within limits.
//!
//! This is the one module that touches the `cel` crate, which has no limit on cost and overflows
//! the stack on long or deep texts. So that a filter can neither end nor stall the process:
//!
//! - the text is at most [`Expression::MAX_SOURCE`] bytes, with few brackets within each other, and
//!   is parsed on a thread with a large stack;
//! - depth, number of parts and nesting of comprehensions are limited when it is compiled; what is
//!   deeper than filters usually are is evaluated on a thread with a large stack;
//! - comprehensions go through paths of the event or short lists of literals, and add only numbers;
//! - every element and byte of the event that an evaluation looks at is counted, weighed with what
//!   the comprehensions do for each, and beyond [`Expression::MAX_STEPS`] it fails;
//! - names that do not exist are refused when it is compiled, with the nearest that does;
//! - `matches` takes a literal pattern of limited size, compiled once.

mod check;
mod guard;
mod value;
mod view;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, IdedExpr,
    common::types::{CelBool, STRING_TYPE},
};
use regex::Regex;
use serde_json::Value;

pub use self::guard::Guard;
pub(crate) use self::guard::{GuardAnswer, value_at};
use self::{
    value::{Budget, MATCHER_TYPE, Matcher, Scope},
    view::About,
};

/// The stack of the thread that parses. Only what is used of it is ever backed by memory. For the
/// worst texts that are known and that [`check::text`] lets through, a debug build overflows 4 MiB
/// and not 16.
const PARSER_STACK: usize = 64 << 20;

/// A compiled filter expression.
///
/// It is CEL: the operators, `has`, `all`, `exists`, `exists_one`, `map`, `filter`, `?.` with
/// `orValue`, `size`, `contains`, `startsWith`, `endsWith`, `matches` with a literal pattern,
/// conversions, times and durations. The variables are `event` (see
/// [`Event::view`](crate::Event::view); what an event does not have is null, and `has(event.x)`
/// asks whether it is not), with `event.changed_files` (a list of paths) besides, `body` (the raw
/// payload) and `headers` (by lower-case name). In the filter of a notification
/// ([`over_runs`](Self::over_runs)) they are `event` and `run` (see
/// [`RunView::view`](crate::RunView::view)).
///
/// ```
/// use workflows_core::matching::{Expression, Variables};
///
/// let event = serde_json::json!({"action": "opened", "base": {"branch": "main"}});
/// let filter = Expression::compile("event.action in ['opened'] && event.base.branch == 'main'")?;
/// assert_eq!(filter.evaluate(&Variables::of_event(&event)), Ok(true));
///
/// let typo = Expression::compile("event.base.brnach == 'main'").unwrap_err();
/// assert_eq!(typo, "`event.base.brnach` does not exist; is `event.base.branch` meant?");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    guards: Arc<[Guard]>,
    needs: Needs,
    /// The paths that it names, for the record.
    paths: Arc<[Arc<str>]>,
    /// What the guards do not say; `None` when they say it all.
    program: Option<Arc<Program>>,
}

/// The deepest tree that is evaluated on its caller's stack. A debug build of the evaluator needs
/// about 90 KiB and 38 KiB for each level, measured; callers have as little as 2 MiB.
const DEPTH_IN_PLACE: usize = 12;
/// The stack of the thread that evaluates deeper ones: eight times what the deepest needs.
const EVALUATOR_STACK: usize = 16 << 20;

struct Program {
    tree: IdedExpr,
    depth: usize,
    regexes: Vec<Regex>,
    per_element: u64,
}

/// What an expression needs besides the event itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// It names `event.changed_files`.
    pub changed_files: bool,
    /// It names `body`.
    pub body: bool,
    /// It names `headers`.
    pub headers: bool,
    /// It names `event.comment.command`, `event.comment.arguments` or the whole comment.
    pub command: bool,
}

impl Needs {
    fn note_event(&mut self, path: &str) {
        self.changed_files |= path == "changed_files";
        self.command |= matches!(path, "comment" | "comment.command" | "comment.arguments");
    }
}

/// The values of the variables for one evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// `event`, in the shape of [`Event::view`](crate::Event::view).
    pub event: &'a Value,
    /// `event.changed_files`.
    pub changed_files: Option<&'a [Arc<str>]>,
    /// `body`.
    pub body: Option<&'a Value>,
    /// `headers`.
    pub headers: Option<&'a Value>,
    /// `run`, in the shape of [`RunView::view`](crate::RunView::view).
    pub run: Option<&'a Value>,
}

impl<'a> Variables<'a> {
    /// An event of which neither changed files nor payload are known.
    pub fn of_event(event: &'a Value) -> Self {
        Self { event, changed_files: None, body: None, headers: None, run: None }
    }

    /// A run and its event.
    pub fn of_run(event: &'a Value, run: &'a Value) -> Self {
        Self { run: Some(run), ..Self::of_event(event) }
    }

    /// What stands at a path of the event.
    fn at(&self, path: &str) -> Option<&'a Value> {
        let mut value = self.event;
        for field in path.split('.') {
            value = value.as_object()?.get(field)?;
        }
        Some(value)
    }
}

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    // The name cannot be written in an expression, so nothing can be there already.
    let added = environment.add_overload(
        "@matches",
        "matches_compiled",
        vec![STRING_TYPE, MATCHER_TYPE],
        Matcher::call,
    );
    debug_assert!(added.is_ok());
    Arc::new(environment)
});

impl Expression {
    /// The longest expression, in bytes.
    pub const MAX_SOURCE: usize = 2048;
    /// How much one evaluation may do: about one step for each part that is evaluated for an
    /// element of the event, and for every 16 bytes of text.
    pub const MAX_STEPS: u64 = 1_000_000;

    /// Compiles the filter of a trigger. Blocks for as long as parsing takes: tens of microseconds, a few
    /// milliseconds for the worst.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for its author.
    pub fn compile(source: &str) -> Result<Self, String> {
        Self::compile_about(source, About::Event)
    }

    /// Compiles the filter of a notification, over a run and its event; otherwise as
    /// [`compile`](Self::compile).
    ///
    /// # Errors
    ///
    /// As [`compile`](Self::compile).
    pub fn over_runs(source: &str) -> Result<Self, String> {
        Self::compile_about(source, About::Run)
    }

    fn compile_about(source: &str, about: About) -> Result<Self, String> {
        if source.len() > Self::MAX_SOURCE {
            return Err(format!(
                "it has {} bytes, and a filter has at most {}",
                source.len(),
                Self::MAX_SOURCE
            ));
        }
        if source.trim().is_empty() {
            return Err("it is empty; leave the filter out".to_owned());
        }
        check::text(source)?;
        // Whatever is refused must also be dropped on the large stack, so the whole work is done
        // there.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("compile-filter".to_owned())
                .stack_size(PARSER_STACK)
                .spawn_scoped(scope, || Self::compile_here(source, about))
                .map_err(|error| format!("no thread could be had to compile it: {error}"))?
                .join()
                .unwrap_or_else(|_| Err("the parser gave up on it".to_owned()))
        })
    }

    fn compile_here(source: &str, about: About) -> Result<Self, String> {
        let parser = ENVIRONMENT.parser().max_recursion_depth(48).error_recovery_limit(4);
        let mut tree = parser.parse(source).map_err(|errors| syntax_error(&errors))?;
        let findings = check::tree(&mut tree, about)?;
        let (guards, complete) = guard::guards(&tree);
        let program = (!complete).then(|| {
            Arc::new(Program {
                tree,
                depth: findings.depth,
                regexes: findings.regexes,
                per_element: findings.per_element,
            })
        });
        Ok(Self {
            source: source.into(),
            guards: guards.into(),
            needs: findings.needs,
            paths: findings.paths.into_iter().collect(),
            program,
        })
    }

    /// The text.
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// What it needs besides the event itself.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The paths of the event and of the payload that it names, as they are written.
    pub(crate) fn paths(&self) -> &[Arc<str>] {
        &self.paths
    }

    /// Conditions on single paths that all must hold for it to be true.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Whether the event passes. Blocks for at most some tenths of a second, and usually for a
    /// microsecond.
    ///
    /// # Errors
    ///
    /// Why it gives neither true nor false. This is never a match.
    pub fn evaluate(&self, variables: &Variables<'_>) -> Result<bool, String> {
        if self.needs.changed_files && variables.changed_files.is_none() {
            return Err("the changed files are not known".to_owned());
        }
        if self.needs.body && variables.body.is_none() {
            return Err("there is no payload, so `body` has no value".to_owned());
        }
        if self.needs.headers && variables.headers.is_none() {
            return Err("there is no payload, so `headers` has no value".to_owned());
        }
        match &self.program {
            None => self.evaluate_guards(variables),
            Some(program) => program.evaluate(variables, self.needs),
        }
    }

    fn evaluate_guards(&self, variables: &Variables<'_>) -> Result<bool, String> {
        let mut missing = None;
        for guard in &*self.guards {
            match guard.answer(variables) {
                GuardAnswer::Holds => {}
                GuardAnswer::Fails => return Ok(false),
                GuardAnswer::NoSuchPath => missing = missing.or(Some(&guard.path)),
            }
        }
        missing.map_or(Ok(true), |path| Err(format!("the payload has no `{path}`")))
    }

    /// The values at the paths that the expression names, for the record. Long texts are cut off,
    /// and lists and objects told by their size.
    pub fn saw(&self, variables: &Variables<'_>) -> Value {
        const MOST: usize = 16;
        let values = self.paths.iter().take(MOST).map(|path| {
            let value = match (&**path, variables.changed_files) {
                ("event.changed_files", Some(files)) => {
                    Value::String(format!("{} files", files.len()))
                }
                _ => match value_at(path, variables) {
                    Ok(Some(value)) => abridged(value),
                    _ => Value::Null,
                },
            };
            (path.to_string(), value)
        });
        Value::Object(values.collect())
    }
}

/// A value as it is put into a record.
pub(crate) fn abridged(value: &Value) -> Value {
    const MOST: usize = 200;
    match value {
        Value::String(text) if text.len() > MOST => {
            let short: String = text.chars().take(MOST).collect();
            Value::String(short + "…")
        }
        Value::Array(elements) if elements.len() > MOST / 10 => {
            Value::String(format!("a list of {}", elements.len()))
        }
        Value::Array(elements) => Value::Array(elements.iter().map(abridged).collect()),
        Value::Object(fields) => Value::String(format!("an object with {} fields", fields.len())),
        other => other.clone(),
    }
}

impl Program {
    fn evaluate(&self, variables: &Variables<'_>, needs: Needs) -> Result<bool, String> {
        let budget = Arc::new(Budget::new(Expression::MAX_STEPS, self.per_element));
        let scope = Scope { variables, needs, regexes: &self.regexes, budget: &budget };
        let answer = if self.depth <= DEPTH_IN_PLACE {
            catch_unwind(AssertUnwindSafe(|| self.evaluate_here(&scope)))
        } else {
            std::thread::scope(|threads| {
                std::thread::Builder::new()
                    .name("evaluate-filter".to_owned())
                    .stack_size(EVALUATOR_STACK)
                    .spawn_scoped(threads, || self.evaluate_here(&scope))
                    .map_err(|error| format!("no thread could be had to evaluate it: {error}"))
                    .map(std::thread::ScopedJoinHandle::join)
            })?
        };
        if budget.is_exceeded() {
            return Err(format!(
                "it looked at too much of the event: more than {} steps",
                Expression::MAX_STEPS
            ));
        }
        if budget.has_compared_objects() {
            return Err("it compares whole objects; compare their fields".to_owned());
        }
        answer.unwrap_or_else(|_| Err("the evaluator gave up on it".to_owned()))
    }

    fn evaluate_here(&self, scope: &Scope<'_>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(scope);
        match cel::Value::resolve_val(&self.tree, &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(answer) => Ok(*answer.inner()),
                None => {
                    Err(format!("it gave a {}, and not true or false", value.get_type().name()))
                }
            },
            Err(error) => Err(super::shortened(&error.to_string(), 300)),
        }
    }
}

fn syntax_error(errors: &cel::ParseErrors) -> String {
    match errors.errors.first() {
        Some(first) => format!(
            "it is not CEL at line {}, column {}: {}",
            first.pos.0,
            first.pos.1,
            super::shortened(&first.msg, 200)
        ),
        None => "it is not CEL".to_owned(),
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

#[cfg(test)]
mod tests;
