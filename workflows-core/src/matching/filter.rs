//! Filters in plain Rust, for what the declarative ones cannot say.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use super::MatchInput;
use crate::{Event, Result, WorkflowId};

/// A filter that the platform wrote in Rust; a trigger names it in `customFilter`.
///
/// It is asked last, when everything else in the trigger holds.
///
/// ```
/// use workflows_core::{
///     Result,
///     matching::{Filter, FilterAnswer, FilterInput},
/// };
///
/// #[derive(Debug)]
/// struct WorkingHours;
///
/// #[async_trait::async_trait]
/// impl Filter for WorkingHours {
///     fn name(&self) -> &str {
///         "working-hours"
///     }
///
///     async fn accepts(&self, input: &FilterInput<'_>) -> Result<FilterAnswer> {
///         let hour = input.event.occurred_at.to_zoned(jiff::tz::TimeZone::UTC).hour();
///         Ok(match hour {
///             8..18 => FilterAnswer::Yes,
///             _ => FilterAnswer::no("8 to 18 h UTC", hour),
///         })
///     }
/// }
/// ```
#[async_trait]
pub trait Filter: Debug + Send + Sync + 'static {
    /// The name by which triggers know it, unique in the engine.
    fn name(&self) -> &str;

    /// Whether the trigger is for the event.
    ///
    /// # Errors
    ///
    /// A retryable kind makes the engine match the event again later; any other is recorded as the
    /// trigger's failure.
    async fn accepts(&self, input: &FilterInput<'_>) -> Result<FilterAnswer>;
}

/// What a filter sees.
#[derive(Debug)]
#[non_exhaustive]
pub struct FilterInput<'a> {
    /// The event.
    pub event: &'a Event,
    /// The workflow.
    pub workflow: &'a WorkflowId,
    /// The trigger's name.
    pub trigger: &'a str,
    /// What else can be had: changed files and payload, fetched when they are asked for.
    pub more: &'a MatchInput,
}

impl<'a> FilterInput<'a> {
    /// An input; the engine makes them, and tests of filters.
    pub fn new(
        event: &'a Event,
        workflow: &'a WorkflowId,
        trigger: &'a str,
        more: &'a MatchInput,
    ) -> Self {
        Self { event, workflow, trigger, more }
    }
}

/// What a filter says.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterAnswer {
    /// The trigger is for the event.
    Yes,
    /// It is not.
    No {
        /// What the filter wants, for the record.
        wanted: String,
        /// What it saw, for the record.
        saw: Value,
    },
}

impl FilterAnswer {
    /// No: what was wanted, and what was seen.
    pub fn no(wanted: impl Into<String>, saw: impl Into<Value>) -> Self {
        Self::No { wanted: wanted.into(), saw: saw.into() }
    }
}

/// Filters by name.
#[derive(Debug, Clone, Default)]
pub struct Filters(BTreeMap<Arc<str>, Arc<dyn Filter>>);

impl Filters {
    /// These filters.
    ///
    /// # Errors
    ///
    /// The name that two of them have.
    pub fn new(filters: impl IntoIterator<Item = Arc<dyn Filter>>) -> Result<Self, Arc<str>> {
        let mut by_name = BTreeMap::new();
        for filter in filters {
            let name: Arc<str> = filter.name().into();
            if by_name.insert(Arc::clone(&name), filter).is_some() {
                return Err(name);
            }
        }
        Ok(Self(by_name))
    }

    /// The filter of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Filter>> {
        self.0.get(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}
