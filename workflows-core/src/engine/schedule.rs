//! Schedules: the source of events for `on: schedule`.
//!
//! When a schedule fires is told by its calendar, which commit a slot is for by the ledger and the
//! repository; the source stores each slot with its commit as an event, and from there on it is one
//! like any other.

mod calendar;
mod commit;
mod request;
mod slot;
mod source;
#[cfg(all(test, feature = "conformance"))]
mod tests;

pub(crate) use self::{
    request::{outlook, run_now},
    slot::Slot,
    source::{ScheduleBook, ScheduleSource, Scheduled},
};
