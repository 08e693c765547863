//! The event and its payload as CEL sees them: handed out piece by piece, and counted.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as CelIterator, Sizer},
        types::{
            CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, Kind, MAP_TYPE, Type,
        },
        value::{CowVal, StaticVal, Val},
    },
    context::VariableResolver,
};
use regex::Regex;
use serde_json::{Map, Value};

use super::{Needs, Variables};

/// What one evaluation may still look at.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    /// What an element of a list costs: as many nodes as a comprehension evaluates for it.
    per_element: u64,
    /// Whether two objects were compared, which cannot be said while it happens.
    compared_objects: AtomicBool,
}

/// A string costs one step for so many bytes.
const BYTES_PER_STEP: u64 = 16;

impl Budget {
    pub(super) fn new(steps: u64, per_element: u64) -> Self {
        Self { left: AtomicU64::new(steps), per_element, compared_objects: AtomicBool::new(false) }
    }

    /// Whether something was refused. What was evaluated after that means nothing.
    pub(super) fn is_exceeded(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Whether two objects were compared; the answer means nothing then.
    pub(super) fn has_compared_objects(&self) -> bool {
        self.compared_objects.load(Ordering::Relaxed)
    }

    /// Takes steps; when there are too few left, all are gone for good.
    pub(super) fn charge(&self, steps: u64) -> Result<(), ExecutionError> {
        // One evaluation is one thread's; the atomic is there because values must be `Sync`.
        let left = self.left.load(Ordering::Relaxed).saturating_sub(steps);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            return Err(ExecutionError::function_error("event", "looked at too much"));
        }
        Ok(())
    }

    fn charge_text(&self, text: &str, times: u64) -> Result<(), ExecutionError> {
        let steps = 1 + text.len() as u64 / BYTES_PER_STEP;
        self.charge(steps.saturating_mul(times))
    }
}

fn to_val<'a>(
    value: &'a Value,
    budget: &'a Budget,
    times: u64,
) -> Result<Box<dyn Val + 'a>, ExecutionError> {
    Ok(match value {
        Value::String(text) => {
            budget.charge_text(text, times)?;
            Box::new(CelString::from(text.as_str()))
        }
        Value::Array(elements) => {
            let times = times.saturating_mul(budget.per_element);
            let mut list: Vec<Box<dyn Val + 'a>> = Vec::new();
            for element in elements {
                list.push(to_val(element, budget, times)?);
            }
            Box::new(CelList::from(list))
        }
        other => {
            budget.charge(times)?;
            match other {
                Value::Bool(bool) => Box::new(CelBool::from(*bool)),
                Value::Number(number) => {
                    match (number.as_i64(), number.as_u64(), number.as_f64()) {
                        (Some(int), _, _) => Box::new(CelInt::from(int)),
                        (_, Some(uint), _) => Box::new(CelUInt::from(uint)),
                        (_, _, Some(double)) => Box::new(CelDouble::from(double)),
                        _ => Box::new(CelNull),
                    }
                }
                Value::Object(fields) => Box::new(Object { fields, budget, keys: OnceLock::new() }),
                _ => Box::new(CelNull),
            }
        }
    })
}

/// An object of a document. Its fields become values when they are asked for.
struct Object<'a> {
    fields: &'a Map<String, Value>,
    budget: &'a Budget,
    keys: OnceLock<Vec<CelString<'a>>>,
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object with {} fields", self.fields.len())
    }
}

impl<'a> Object<'a> {
    fn field(&self, key: &dyn Val) -> Result<Box<dyn Val + 'a>, ExecutionError> {
        self.budget.charge(1)?;
        let Some(key) = key.downcast_ref::<CelString<'_>>() else {
            return Err(ExecutionError::UnexpectedType {
                got: key.get_type().name().to_owned(),
                want: "string".to_owned(),
            });
        };
        match self.fields.get(key.inner()) {
            Some(value) => to_val(value, self.budget, 1),
            None => Err(ExecutionError::no_such_key(key.inner())),
        }
    }
}

impl Val for Object<'_> {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    /// Objects are not compared: another object's fields cannot be reached from here.
    fn equals(&self, other: &dyn Val) -> bool {
        if other.get_type().kind() == Kind::Map {
            self.budget.compared_objects.store(true, Ordering::Relaxed);
        }
        false
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self { fields: self.fields, budget: self.budget, keys: OnceLock::new() })
    }
}

impl Container for Object<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        self.budget.charge(1)?;
        Ok(key
            .downcast_ref::<CelString<'_>>()
            .is_some_and(|key| self.fields.contains_key(key.inner())))
    }
}

impl Sizer for Object<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.fields.len()).unwrap_or(i64::MAX))
    }
}

impl Indexer for Object<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.field(key).map(CowVal::Owned)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.field(key).map(|value| value as Box<dyn Val + 'v>)
    }
}

impl Iterable for Object<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn CelIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let keys = self.keys.get_or_init(|| {
            let affordable =
                |key: &&String| self.budget.charge_text(key, self.budget.per_element).is_ok();
            self.fields.keys().take_while(affordable).map(|key| key.as_str().into()).collect()
        });
        Box::new(Keys(keys.iter()))
    }
}

struct Keys<'b, 'a>(std::slice::Iter<'b, CelString<'a>>);

impl<'b, 'v, 'a: 'v> CelIterator<'b, 'v> for Keys<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|key| key as &'b (dyn Val + 'v))
    }
}

/// The pattern of a `matches`, compiled when the expression was.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    regex: Regex,
    budget: Arc<Budget>,
}

/// The type of [`Matcher`], for overloads.
pub(super) const MATCHER_TYPE: Type = Type::simple_type(Kind::Opaque, "regex");

static MATCHER: Type = MATCHER_TYPE;

/// What matching costs for each byte, in steps: in the worst case every state of the automaton is
/// visited for it.
const STEPS_PER_MATCHED_BYTE: u64 = 4;

impl Matcher {
    /// Whether the text matches, as `@matches(text, @re<n>)` asks.
    pub(super) fn call<'b, 'v>(
        args: Vec<CowVal<'b, 'v>>,
    ) -> Result<CowVal<'b, 'v>, ExecutionError> {
        let [text, matcher] = args.as_slice() else {
            return Err(ExecutionError::invalid_argument_count(2, args.len()));
        };
        let (Some(text), Some(matcher)) =
            (text.downcast_ref::<CelString<'_>>(), matcher.downcast_ref::<Matcher>())
        else {
            return Err(ExecutionError::function_error("matches", "takes a string"));
        };
        let text = text.inner();
        matcher.budget.charge(1 + text.len() as u64 * STEPS_PER_MATCHED_BYTE)?;
        Ok(CowVal::owned(CelBool::from(matcher.regex.is_match(text))))
    }
}

impl Val for Matcher {
    fn get_type(&self) -> &Type {
        &MATCHER
    }

    fn cel_type() -> &'static Type {
        &MATCHER
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Matcher {}

/// Where an evaluation finds its variables.
pub(super) struct Scope<'a> {
    pub(super) variables: &'a Variables<'a>,
    pub(super) needs: Needs,
    pub(super) regexes: &'a [Regex],
    pub(super) budget: &'a Arc<Budget>,
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let document = |value: &'b Value| to_val(value, self.budget, 1).map(CowVal::Owned).ok();
        // A value that is refused for its cost is null; the budget is then exceeded, and the
        // result is not looked at.
        let or_null = |value: Option<CowVal<'b, 'b>>| Some(value.unwrap_or(CowVal::owned(CelNull)));
        if let Some(path) = name.strip_prefix("event.") {
            if path == "changed_files" {
                return or_null(self.changed_files());
            }
            return match self.variables.at(path) {
                Some(value) => or_null(document(value)),
                None => Some(CowVal::owned(CelNull)),
            };
        }
        if let Some(path) = name.strip_prefix("run.") {
            let value = self.variables.run.and_then(|run| run.get(path));
            return or_null(value.and_then(document));
        }
        match name {
            "event" => or_null(document(self.variables.event)),
            "run" => or_null(self.variables.run.and_then(document)),
            "body" if self.needs.body => or_null(self.variables.body.and_then(document)),
            "headers" => or_null(self.variables.headers.and_then(document)),
            _ => {
                let index: usize = name.strip_prefix("@re")?.parse().ok()?;
                let regex = self.regexes.get(index)?.clone();
                Some(CowVal::owned(Matcher { regex, budget: Arc::clone(self.budget) }))
            }
        }
    }
}

impl<'a> Scope<'a> {
    fn changed_files(&self) -> Option<CowVal<'_, '_>> {
        let mut list: Vec<Box<dyn Val + '_>> = Vec::new();
        for path in self.variables.changed_files? {
            self.budget.charge_text(path, self.budget.per_element).ok()?;
            list.push(Box::new(CelString::from(&**path)));
        }
        Some(CowVal::owned(CelList::from(list)))
    }
}
