//! What an event of a schedule carries.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Event, EventKind, Result, WorkflowId,
    event::{Occurrence, Revision},
    store::Rejected,
};

/// The slot of a schedule that came, or that somebody asked for: the `data` of an event of kind
/// [`EventKind::SCHEDULE`]. The event's head is the commit that was found for it.
///
/// Such an event is a candidate for its own trigger and no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Slot {
    /// The workflow.
    pub(crate) workflow: WorkflowId,
    /// The trigger in it.
    pub(crate) trigger: Arc<str>,
    /// The instant of the slot; of a run that was asked for, the instant of the request.
    pub(crate) slot: Timestamp,
    /// Whether somebody asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) run_now: bool,
    /// Slots from this one on were missed before this one, and are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) skipped_since: Option<Timestamp>,
    /// Whether the commit was found by committer date, because the ledger does not reach back far
    /// enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) approximate: bool,
    /// Why there shall be no run: what the matcher records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rejected: Option<Rejected>,
}

impl Slot {
    /// Reads the slot that an event carries.
    ///
    /// # Errors
    ///
    /// `Invalid` when it carries none.
    pub(crate) fn of_event(event: &Event) -> Result<Self> {
        let data: serde_json::Map<String, Value> = event.data.clone().into_iter().collect();
        serde_json::from_value(Value::Object(data)).map_err(|error| {
            Error::invalid("read a schedule's slot", error.to_string()).with("event", &event.key)
        })
    }

    /// Remarks for the run.
    pub(crate) fn remarks(&self) -> BTreeMap<String, String> {
        let mut remarks = BTreeMap::new();
        if self.approximate {
            remarks.insert(
                "approximate".to_owned(),
                "the commit was found by committer date: the ledger does not reach back to that \
                 time"
                    .to_owned(),
            );
        }
        remarks
    }

    /// The slot as an occurrence. Its id is `<workflow>/<trigger>/<UTC instant>`, so that it is the
    /// same from every replica; a run that was asked for has the caller's key in the instant's
    /// place.
    pub(crate) fn occurrence(&self, key: Option<&str>, head: Option<Revision>) -> Occurrence {
        let instance = match key {
            Some(key) => format!("run-now/{key}"),
            None => self.slot.to_string(),
        };
        let id = format!("{}/{}/{instance}", self.workflow, self.trigger);
        let mut occurrence = Occurrence::new(EventKind::SCHEDULE, id);
        occurrence.head = head;
        occurrence.occurred_at = Some(self.slot);
        // A slot is plain text, numbers and JSON, which always have a JSON form.
        if let Ok(Value::Object(data)) = serde_json::to_value(self) {
            occurrence.data = data.into_iter().collect();
        }
        occurrence
    }
}
