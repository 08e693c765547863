//! The limits on how often somebody may call
//! (<https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/>), and on how much is told.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// What one caller may use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Calls a minute with a token; a self-managed GitLab has no limit, and tells none, unless it is set.
    pub calls_a_minute: Option<u32>,
    /// Things that can be read by the numbers of pages.
    pub offset: usize,
    /// Files of a comparison that are told.
    pub compared_files: usize,
    /// Refs of a push of which hooks are told at all.
    pub push_hooks: usize,
    /// Hooks of a project.
    pub hooks: usize,
    /// Notes of somebody in a minute.
    pub notes_a_minute: u32,
    /// Deliveries of a hook that are sent again in a minute.
    pub resends_a_minute: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_a_minute: None,
            offset: 50_000,
            compared_files: 1_000,
            push_hooks: 3,
            hooks: 100,
            notes_a_minute: 300,
            resends_a_minute: 5,
        }
    }
}

/// Calls of the present minute, by caller and kind of limit.
#[derive(Debug, Default)]
pub(crate) struct Spent(HashMap<(String, &'static str), (Timestamp, u32)>);

/// How a limit stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) limit: u32,
    pub(crate) observed: u32,
    pub(crate) resets_at: Timestamp,
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

impl Spent {
    /// Counts something. Whether it is within the limit is for who asks to see.
    pub(crate) fn count(
        &mut self,
        caller: &str,
        kind: &'static str,
        limit: u32,
        now: Timestamp,
    ) -> Window {
        let (since, observed) = self.0.entry((caller.to_owned(), kind)).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *observed) = (now, 0);
        }
        *observed += 1;
        let resets_at = since.saturating_add(MINUTE).unwrap_or(now);
        Window { limit, observed: *observed, resets_at }
    }
}
