//! The time, injected: logic never asks the system for it.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// Where the engine, the sources and the stores get the time from, and how they wait.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Returns at `instant` or later; at once when it has passed.
    async fn sleep_until(&self, instant: Timestamp);
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine. Its sleeps wake at least once a minute to look at the wall clock, so
/// that a clock that jumps forward does not leave a sleeper behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, instant: Timestamp) {
        const LONGEST_NAP: SignedDuration = SignedDuration::from_secs(60);
        loop {
            let left = instant.duration_since(Timestamp::now());
            if left <= SignedDuration::ZERO {
                return;
            }
            tokio::time::sleep(left.min(LONGEST_NAP).unsigned_abs()).await;
        }
    }
}

/// A clock that stands still until it is told to move, for tests and simulations.
///
/// ```
/// use workflows_core::{Clock, ManualClock};
/// use jiff::{SignedDuration, Timestamp};
///
/// let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
/// clock.advance(SignedDuration::from_hours(3));
/// assert_eq!(clock.now(), Timestamp::from_second(3 * 3600).unwrap());
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    now: Arc<Mutex<Timestamp>>,
    moved: Arc<tokio::sync::Notify>,
}

impl ManualClock {
    /// A clock that shows `instant`.
    pub fn at(instant: Timestamp) -> Self {
        Self { now: Arc::new(Mutex::new(instant)), moved: Arc::default() }
    }

    /// Moves the clock, forward or (with a negative duration) back, and wakes who waits for it.
    pub fn advance(&self, by: SignedDuration) {
        let mut now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.checked_add(by).unwrap_or(*now);
        drop(now);
        self.moved.notify_waiters();
    }

    /// Sets the clock to `instant`, and wakes who waits for it.
    pub fn set(&self, instant: Timestamp) {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = instant;
        self.moved.notify_waiters();
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn sleep_until(&self, instant: Timestamp) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.now() >= instant {
                return;
            }
            moved.await;
        }
    }
}
