//! Concurrency groups, as a document writes them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::CancelMode;

/// A concurrency group that each run of the workflow is in.
///
/// A reference in the key that has no value for an event (such as the number of the pull request of
/// a schedule) means that its run is not in the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ConcurrencyFields", into = "ConcurrencyFields")]
pub struct Concurrency {
    /// The group's key, with `$(...)` references. It is the workflow's own unless `shared`.
    pub group: String,
    /// Whether workflows of the tenant that render the same key share the group.
    pub shared: bool,
    /// What a run does when others of the group are under way.
    pub strategy: Strategy,
}

/// [`Concurrency`] as it is written: the fields of its strategy stand beside the strategy's name.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Concurrency")]
struct ConcurrencyFields {
    /// The group's key, with `$(...)` references. It is the workflow's own unless `shared`.
    group: String,
    /// Whether workflows of the tenant that render the same key share the group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
    /// What a run does when others of the group are under way.
    strategy: StrategyName,
    /// With `replace`: how the others end. `runFinally` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancel: Option<CancelMode>,
    /// With `queue`: how many may run together. One when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    max_running: Option<u32>,
    /// With `queue`: how many may wait; a further one ends as expired. None may with 0. No limit
    /// when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_queued: Option<u32>,
    /// With `queue`: how long one may wait, such as `30m`; then it ends as expired. No limit when
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_wait: Option<String>,
}

/// The name of a strategy.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
enum StrategyName {
    /// It takes their place: older ones are told to end, and it starts at once.
    Replace,
    /// It waits for them.
    Queue,
    /// It does not care.
    Allow,
}

impl TryFrom<ConcurrencyFields> for Concurrency {
    type Error = String;

    fn try_from(fields: ConcurrencyFields) -> Result<Self, String> {
        let ConcurrencyFields { group, shared, strategy, cancel, .. } = fields;
        let limits = [
            ("maxRunning", fields.max_running.is_some()),
            ("maxQueued", fields.max_queued.is_some()),
            ("maxWait", fields.max_wait.is_some()),
        ];
        let queue = matches!(strategy, StrategyName::Queue);
        if let Some((name, _)) = limits.iter().find(|(_, given)| *given && !queue) {
            return Err(format!("`{name}` has a meaning only with `strategy: queue`"));
        }
        if cancel.is_some() && !matches!(strategy, StrategyName::Replace) {
            return Err("`cancel` has a meaning only with `strategy: replace`".into());
        }
        let strategy = match strategy {
            StrategyName::Replace => {
                Strategy::Replace { cancel: cancel.unwrap_or_else(default_cancel) }
            }
            StrategyName::Queue => Strategy::Queue(QueueLimits {
                max_running: fields.max_running.unwrap_or_else(one),
                max_queued: fields.max_queued,
                max_wait: fields.max_wait,
            }),
            StrategyName::Allow => Strategy::Allow,
        };
        Ok(Self { group, shared, strategy })
    }
}

impl From<Concurrency> for ConcurrencyFields {
    fn from(concurrency: Concurrency) -> Self {
        let mut fields = Self {
            group: concurrency.group,
            shared: concurrency.shared,
            strategy: StrategyName::Allow,
            cancel: None,
            max_running: None,
            max_queued: None,
            max_wait: None,
        };
        match concurrency.strategy {
            Strategy::Replace { cancel } => {
                fields.strategy = StrategyName::Replace;
                fields.cancel = (!is_default_cancel(&cancel)).then_some(cancel);
            }
            Strategy::Queue(limits) => {
                fields.strategy = StrategyName::Queue;
                fields.max_running = (!is_one(&limits.max_running)).then_some(limits.max_running);
                fields.max_queued = limits.max_queued;
                fields.max_wait = limits.max_wait;
            }
            Strategy::Allow => {}
        }
        fields
    }
}

impl JsonSchema for Concurrency {
    fn schema_name() -> Cow<'static, str> {
        ConcurrencyFields::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ConcurrencyFields::json_schema(generator)
    }
}

/// What a run does when others of its group are under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "strategy")]
pub enum Strategy {
    /// It takes their place: older ones are told to end, and it starts at once.
    Replace {
        /// How they end. `runFinally` when left out.
        #[serde(default = "default_cancel", skip_serializing_if = "is_default_cancel")]
        cancel: CancelMode,
    },
    /// It waits for them.
    Queue(QueueLimits),
    /// It does not care.
    Allow,
}

fn default_cancel() -> CancelMode {
    CancelMode::RunFinally
}

fn is_default_cancel(mode: &CancelMode) -> bool {
    *mode == default_cancel()
}

/// The limits of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueLimits {
    /// How many may run together. One when left out.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub max_running: u32,
    /// How many may wait; a further one ends as expired. None may with 0. No limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued: Option<u32>,
    /// How long one may wait, such as `30m`; then it ends as expired. No limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<String>,
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}
