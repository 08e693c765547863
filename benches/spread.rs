//! How measured times are spread.

use std::time::Duration;

/// Times, in order.
#[derive(Debug, Clone)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Of these times.
    ///
    /// # Panics
    ///
    /// Without any.
    pub fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "something was measured");
        times.sort_unstable();
        Self(times)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time in milliseconds that this share of them does not exceed: 0.5 is the median, 1 the
    /// longest.
    pub fn milliseconds(&self, share: f64) -> f64 {
        let index = ((self.0.len() - 1) as f64 * share) as usize;
        self.0[index].as_secs_f64() * 1e3
    }
}
