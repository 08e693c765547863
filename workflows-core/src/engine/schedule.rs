//! Schedules: the source of events for `on: schedule`.

mod slot;

pub(crate) use self::slot::Slot;
