//! The limits on how often somebody may call
//! (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>).

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::answer::Answer;

/// What one caller may use. The defaults are GitHub.com's.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Calls an hour with a credential.
    pub core: u32,
    /// Calls an hour without one.
    pub anonymous: u32,
    /// Points of GraphQL an hour.
    pub graphql: u32,
    /// Calls at the same time.
    pub concurrent: u32,
    /// Points a minute: one for each read, five for each write.
    pub points_a_minute: u32,
    /// Writes a minute that people are told of.
    pub content_a_minute: usize,
    /// Writes an hour that people are told of.
    pub content_an_hour: usize,
    /// What `retry-after` says with a secondary limit, in seconds.
    pub retry_after: u64,
    /// Whether answers tell the limits. An Enterprise Server does not by default.
    pub are_told: bool,
    /// A recursive tree with more entries is truncated.
    pub tree_entries: usize,
    /// So many files of a comparison are told.
    pub compared_files: usize,
    /// So many files of a pull request are told.
    pub pull_request_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            core: 5_000,
            anonymous: 60,
            graphql: 5_000,
            concurrent: 100,
            points_a_minute: 900,
            content_a_minute: 80,
            content_an_hour: 500,
            retry_after: 60,
            are_told: true,
            tree_entries: 100_000,
            compared_files: 300,
            pull_request_files: 3_000,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Accounts(HashMap<String, Account>);

#[derive(Debug, Default)]
struct Account {
    windows: HashMap<&'static str, Window>,
    points: VecDeque<(Timestamp, u32)>,
    content: VecDeque<Timestamp>,
    concurrent: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) limit: u32,
    pub(crate) used: u32,
    pub(crate) resets_at: Timestamp,
}

impl Window {
    pub(crate) fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// What a call counts as.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) resource: &'static str,
    /// Whether it needs something left of the hour.
    pub(crate) is_counted: bool,
    pub(crate) is_write: bool,
    pub(crate) is_content: bool,
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_secs(3_600);

impl Accounts {
    pub(crate) fn window(
        &mut self,
        limits: &Limits,
        principal: &str,
        resource: &'static str,
        now: Timestamp,
    ) -> &mut Window {
        let limit = match (resource, principal) {
            ("graphql", _) => limits.graphql,
            (_, "anonymous") => limits.anonymous,
            _ => limits.core,
        };
        let account = self.0.entry(principal.to_owned()).or_default();
        let fresh = Window { limit, used: 0, resets_at: now.saturating_add(HOUR).unwrap_or(now) };
        let window = account.windows.entry(resource).or_insert(fresh);
        if window.resets_at <= now {
            *window = fresh;
        }
        window.limit = limit;
        window
    }

    /// Uses up what is left of a window.
    pub(crate) fn exhaust(&mut self, limits: &Limits, principal: &str, now: Timestamp) {
        let window = self.window(limits, principal, "core", now);
        window.used = window.limit;
    }

    /// Counts a call, unless a limit is reached. The end of the call is told by [`Self::leave`].
    pub(crate) fn enter(
        &mut self,
        limits: &Limits,
        principal: &str,
        call: &Cost,
        now: Timestamp,
    ) -> Result<(), Answer> {
        let window = *self.window(limits, principal, call.resource, now);
        let Some(account) = self.0.get_mut(principal) else { return Ok(()) };
        account.concurrent += 1;
        if call.is_counted && window.used >= window.limit {
            let message = format!("API rate limit exceeded for {principal}.");
            // GraphQL has its errors in answers that are none.
            return Err(match call.resource {
                "graphql" => Answer::json(
                    200,
                    json!({ "errors": [{ "type": "RATE_LIMITED", "message": message }] }),
                ),
                _ => Answer::error(403, &message),
            });
        }
        let minute_ago = now.saturating_sub(MINUTE).unwrap_or(now);
        let hour_ago = now.saturating_sub(HOUR).unwrap_or(now);
        account.points.retain(|(at, _)| *at > minute_ago);
        account.content.retain(|at| *at > hour_ago);
        let cost = if call.is_write { 5 } else { 1 };
        let spent: u32 = account.points.iter().map(|(_, points)| points).sum();
        let of_minute = account.content.iter().filter(|at| **at > minute_ago).count();
        let too_much_content = call.is_content
            && (of_minute >= limits.content_a_minute
                || account.content.len() >= limits.content_an_hour);
        if account.concurrent > limits.concurrent
            || spent + cost > limits.points_a_minute
            || too_much_content
        {
            return Err(secondary(Some(limits.retry_after)));
        }
        account.points.push_back((now, cost));
        if call.is_content {
            account.content.push_back(now);
        }
        Ok(())
    }

    pub(crate) fn leave(&mut self, principal: &str) {
        if let Some(account) = self.0.get_mut(principal) {
            account.concurrent = account.concurrent.saturating_sub(1);
        }
    }
}

pub(crate) fn secondary(retry_after: Option<u64>) -> Answer {
    let answer = Answer::error(
        403,
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
    );
    match retry_after {
        Some(seconds) => answer.header("retry-after", seconds),
        None => answer,
    }
}
