//! What a credential may still ask of its host: the host's limits, told by headers, and ours, which keep
//! below those that no header tells.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use metrics::{counter, gauge};
use reqwest::{StatusCode, header::HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use workflows_core::{Error, ErrorKind, Result, SharedClock};

use super::host::Host;
use crate::retry_after::retry_after;

/// How much a call matters. What is left of a limit goes to the first before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Priority {
    /// What people wait for to be shown: checks, statuses, comments.
    Status,
    /// What an event needs before its runs can start.
    Fetch,
    /// What can wait a little: looking for what was missed, registrations.
    Background,
    /// Looking whether there is anything new.
    Poll,
}

impl Priority {
    fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Fetch => "fetch",
            Self::Background => "background",
            Self::Poll => "poll",
        }
    }
}

/// What a call costs by limits that no header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    /// A read: one point.
    Read,
    /// A read of what is known already, which takes nothing of the host's limit when it is unchanged.
    Reread,
    /// A write.
    Write,
    /// A write that makes something people are told of, of which there are few in an hour.
    Content,
}

impl Cost {
    fn points<H: Host>(self) -> u32 {
        match self {
            Self::Read | Self::Reread => 1,
            Self::Write | Self::Content => H::POINTS_OF_A_WRITE,
        }
    }
}

/// What a driver allows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetLimits {
    /// Calls at the same time.
    pub(crate) concurrency: usize,
    /// Points a minute.
    pub(crate) points: u32,
    /// Writes of content a minute.
    pub(crate) content_a_minute: usize,
    /// Writes of content an hour.
    pub(crate) content_an_hour: usize,
    /// The part of the host's limit, in per cent, that background work never touches.
    pub(crate) reserve: u8,
}

/// The longest that a header can make this process wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(2);
/// How long to stay away when a host refuses for a limit and does not say how long.
const UNTOLD_WAIT: SignedDuration = SignedDuration::from_secs(60);
const MINUTE: SignedDuration = SignedDuration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_secs(3_600);

/// Lets calls through, or says when they can be made.
#[derive(Debug)]
pub(crate) struct Governor<H: Host> {
    limits: BudgetLimits,
    clock: SharedClock,
    all: Arc<Semaphore>,
    /// All but a few, which are kept for what is shown to people.
    fetching: Arc<Semaphore>,
    /// Half.
    background: Arc<Semaphore>,
    accounts: Mutex<BTreeMap<H::Principal, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    /// The limits that the host told, by resource (`core`, `graphql`, ...).
    windows: HashMap<String, Window>,
    /// Nothing goes out before this.
    blocked_until: Option<Timestamp>,
    in_flight: u32,
    points: VecDeque<(Timestamp, u32)>,
    content: VecDeque<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    limit: u32,
    remaining: u32,
    resets_at: Timestamp,
}

impl Window {
    /// So many per cent of the limit.
    fn part(&self, per_cent: u8) -> u32 {
        let part = u64::from(self.limit) * u64::from(per_cent.min(100)) / 100;
        u32::try_from(part).unwrap_or(u32::MAX)
    }

    /// When polls may make the next call that counts; `None` for now. A tenth of what they may use
    /// they may use at once, and the rest as the window goes by, so that what can wait for long
    /// (first looks at thousands of repositories) leaves something for what was just changed.
    fn next(
        &self,
        left: u32,
        reserve: u32,
        length: SignedDuration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let most = i64::from(self.limit.saturating_sub(reserve)).max(1);
        let next = i64::from(self.limit.saturating_sub(left)) + 1;
        let whole = length.as_secs() * 1_000;
        let gone = SignedDuration::from_millis(whole * next / most - whole / 10);
        let at = later(earlier(self.resets_at, length), gone).min(self.resets_at);
        // Not one by one: who is held back asks again a hundred times in a window, not thousands.
        (at > now).then(|| at.max(later(now, length / 100)))
    }
}

impl Account {
    fn forget_until(&mut self, now: Timestamp) {
        let (minute_ago, hour_ago) = (earlier(now, MINUTE), earlier(now, HOUR));
        // A clock that was set back leaves entries of the future, which would never go.
        self.points.retain(|(at, _)| *at > minute_ago && *at <= now);
        self.content.retain(|at| *at > hour_ago && *at <= now);
        self.blocked_until = self.blocked_until.filter(|until| *until > now);
        self.windows.retain(|_, window| window.resets_at > now);
    }

    fn spent(&self) -> u32 {
        self.points.iter().map(|(_, points)| points).sum()
    }

    /// Shows how things stand.
    fn show<H: Host>(&self, principal: &H::Principal) {
        let credential = principal.to_string();
        let until = self.blocked_until.map_or(0, Timestamp::as_second);
        gauge!(H::METRICS.blocked_until, "credential" => credential.clone()).set(until as f64);
        gauge!(H::METRICS.points, "credential" => credential.clone()).set(f64::from(self.spent()));
        gauge!(H::METRICS.in_flight, "credential" => credential).set(f64::from(self.in_flight));
    }
}

/// A call that was let through; it counts as under way until this is dropped.
#[derive(Debug)]
pub(super) struct Pass<H: Host> {
    governor: Arc<Governor<H>>,
    principal: H::Principal,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl<H: Host> Drop for Pass<H> {
    fn drop(&mut self) {
        self.governor.with(&self.principal, |account| {
            account.in_flight = account.in_flight.saturating_sub(1);
            account.show::<H>(&self.principal);
        });
    }
}

impl<H: Host> Governor<H> {
    pub(crate) fn new(limits: BudgetLimits, clock: SharedClock) -> Arc<Self> {
        let all = limits.concurrency.clamp(1, 100);
        let kept = (all / 8).min(all - 1);
        Arc::new(Self {
            limits,
            clock,
            all: Arc::new(Semaphore::new(all)),
            fetching: Arc::new(Semaphore::new(all - kept)),
            background: Arc::new(Semaphore::new((all / 2).max(1))),
            accounts: Mutex::default(),
        })
    }

    fn with<T>(&self, principal: &H::Principal, change: impl FnOnce(&mut Account) -> T) -> T {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        change(accounts.entry(principal.clone()).or_default())
    }

    /// Lets a call through. Waits for others to end when too many are under way, and for nothing
    /// else.
    ///
    /// # Errors
    ///
    /// `RateLimited`, with the first instant at which the call may be made.
    pub(super) async fn admit(
        self: &Arc<Self>,
        principal: &H::Principal,
        priority: Priority,
        resource: &str,
        cost: Cost,
    ) -> Result<Pass<H>> {
        let mut queues = vec![&self.all];
        if priority >= Priority::Fetch {
            queues.insert(0, &self.fetching);
        }
        if priority >= Priority::Background {
            queues.insert(0, &self.background);
        }
        let mut permits = Vec::with_capacity(queues.len());
        for queue in queues {
            let permit = Arc::clone(queue).acquire_owned().await;
            permits.push(permit.map_err(|error| {
                Error::transient("call the host", "the driver is shutting down").caused_by(error)
            })?);
        }
        let now = self.clock.now();
        let refused = self.with(principal, |account| {
            account.forget_until(now);
            let refused = self.refusal(account, priority, resource, cost, now);
            if refused.is_none() {
                account.in_flight += 1;
                account.points.push_back((now, cost.points::<H>()));
                if cost == Cost::Content {
                    account.content.push_back(now);
                }
            }
            account.show::<H>(principal);
            refused
        });
        if let Some((reason, until)) = refused {
            counter!(H::METRICS.held_back,
                "priority" => priority.as_str(), "reason" => reason)
            .increment(1);
            return Err(Error::new(
                ErrorKind::RateLimited { until: Some(until) },
                "call the host",
                format!("the call is held back so that the limits of {} are kept", H::NAME),
            )
            .with("limit", reason)
            .with("credential", principal));
        }
        Ok(Pass { governor: Arc::clone(self), principal: principal.clone(), _permits: permits })
    }

    /// Why a call may not be made now, and when it may.
    fn refusal(
        &self,
        account: &Account,
        priority: Priority,
        resource: &str,
        cost: Cost,
        now: Timestamp,
    ) -> Option<(&'static str, Timestamp)> {
        if let Some(until) = account.blocked_until {
            return Some(("told to wait", until));
        }
        if let Some(window) = account.windows.get(resource) {
            let left = window.remaining.saturating_sub(account.in_flight);
            let reserve = window.part(self.limits.reserve);
            // As much again is left by what always counts.
            let twice = window.part(self.limits.reserve.saturating_mul(2));
            let told =
                |reserve| (left <= reserve).then_some(("told by the host", window.resets_at));
            let refused = match (priority, cost) {
                (Priority::Status, _) => told(0),
                // One in fifty stays for what is shown.
                (Priority::Fetch, _) => told(window.part(2)),
                (Priority::Background, _) => told(twice),
                (Priority::Poll, Cost::Reread) => told(reserve),
                (Priority::Poll, _) => told(twice)
                    .or_else(|| window.next(left, twice, H::WINDOW, now).map(|at| ("pace", at))),
            };
            if refused.is_some() {
                return refused;
            }
        }
        let points = match priority {
            Priority::Status => self.limits.points,
            Priority::Fetch => self.limits.points / 20 * 19,
            Priority::Background | Priority::Poll => self.limits.points / 20 * 17,
        };
        if account.spent() + cost.points::<H>() > points {
            let until = free_at(account, points, cost.points::<H>(), now);
            return Some(("points a minute", until));
        }
        if cost == Cost::Content {
            let minute_ago = earlier(now, MINUTE);
            let of_minute: Vec<&Timestamp> =
                account.content.iter().filter(|at| **at > minute_ago).collect();
            let over = |count: usize, most: usize| (count >= most).then(|| count - most);
            if let Some(index) = over(of_minute.len(), self.limits.content_a_minute) {
                let until = of_minute.get(index).map_or(now, |at| later(**at, MINUTE));
                return Some(("content a minute", until));
            }
            if let Some(index) = over(account.content.len(), self.limits.content_an_hour) {
                let until = account.content.get(index).map_or(now, |at| later(*at, HOUR));
                return Some(("content an hour", until));
            }
        }
        None
    }

    /// Takes in what an answer says about the limits. Returns until when the host refuses, when this
    /// answer is a refusal for a limit.
    pub(super) fn observe(
        &self,
        principal: &H::Principal,
        status: StatusCode,
        headers: &HeaderMap,
        message: &str,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let longest = later(now, LONGEST_WAIT);
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
        let reset = number(H::LIMITS.reset)
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(|at| at.min(longest));
        let remaining = number(H::LIMITS.remaining).map(|n| u32::try_from(n).unwrap_or(0));
        let limit = number(H::LIMITS.limit).map(|n| u32::try_from(n).unwrap_or(0));
        let resource = H::LIMITS
            .resource
            .and_then(|name| headers.get(name)?.to_str().ok())
            .filter(|name| name.len() <= 40)
            .unwrap_or("core");
        if let (Some(limit), Some(remaining), Some(resets_at)) = (limit, remaining, reset)
            && resets_at > now
        {
            self.with(principal, |account| {
                // Answers overtake each other: of one window the lowest number is the newest, and
                // an older window says nothing any more.
                let known = account.windows.get(resource).copied();
                let (remaining, resets_at) = match known {
                    Some(known) if known.resets_at.duration_since(resets_at) > MINUTE => return,
                    // A host's machines differ by a second or so about when a window ends.
                    Some(known) if resets_at.duration_since(known.resets_at) <= MINUTE => {
                        (known.remaining.min(remaining), known.resets_at.max(resets_at))
                    }
                    _ => (remaining, resets_at),
                };
                if account.windows.len() < 32 || known.is_some() {
                    account
                        .windows
                        .insert(resource.to_owned(), Window { limit, remaining, resets_at });
                }
                gauge!(H::METRICS.remaining,
                    "credential" => principal.to_string(), "resource" => resource.to_owned())
                .set(f64::from(remaining));
            });
        }
        if !matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
            return None;
        }
        let told = retry_after(headers, now, LONGEST_WAIT);
        let lower = message.to_ascii_lowercase();
        let secondary = H::is_untold_limit(&lower);
        let primary = remaining == Some(0);
        if told.is_none() && !secondary && !primary && status == StatusCode::FORBIDDEN {
            return None;
        }
        let until = match (told, reset) {
            (Some(told), _) => told,
            (None, Some(reset)) if primary && reset > now => reset,
            _ => later(now, UNTOLD_WAIT),
        }
        .min(longest);
        // A primary limit is of one resource, and its window says so; a secondary one is of all.
        if !primary || told.is_some() || limit.is_none() {
            self.with(principal, |account| {
                account.blocked_until =
                    Some(account.blocked_until.map_or(until, |known| known.max(until)));
                account.show::<H>(principal);
            });
        }
        Some(until)
    }

    /// How things stand.
    pub(crate) fn snapshot(&self) -> Vec<CallBudget> {
        let now = self.clock.now();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(principal, account): (&H::Principal, &mut Account)| {
            account.forget_until(now);
            let mut resources: Vec<LimitBudget> = account
                .windows
                .iter()
                .map(|(resource, window)| LimitBudget {
                    resource: resource.clone(),
                    limit: window.limit,
                    remaining: window.remaining,
                    resets_at: window.resets_at,
                })
                .collect();
            resources.sort_by(|a, b| a.resource.cmp(&b.resource));
            CallBudget {
                credential: principal.to_string(),
                resources,
                blocked_until: account.blocked_until,
                points_in_the_last_minute: account.spent(),
                in_flight: account.in_flight,
            }
        };
        accounts.iter_mut().map(of).collect()
    }
}

/// When enough of the points have left the minute for a call to fit in.
fn free_at(account: &Account, most: u32, cost: u32, now: Timestamp) -> Timestamp {
    let mut left = account.spent();
    for (at, points) in &account.points {
        left -= points;
        if left + cost <= most {
            return later(*at, MINUTE);
        }
    }
    later(now, MINUTE)
}

fn earlier(than: Timestamp, by: SignedDuration) -> Timestamp {
    than.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}

/// How the limits of one credential stand; of a GitHub App, those of each installation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallBudget {
    /// `token` or `anonymous`; of a GitHub App `app` and `installation <id>`.
    pub credential: String,
    /// The limits that the host told; none before the first call, and on a server that has none.
    pub resources: Vec<LimitBudget>,
    /// The host said to stay away until then.
    pub blocked_until: Option<Timestamp>,
    /// One for each read of the last 60 seconds, and for each write as many as the host counts.
    pub points_in_the_last_minute: u32,
    /// Calls under way.
    pub in_flight: u32,
}

/// A limit that a host told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitBudget {
    /// Which: `core`, `graphql`.
    pub resource: String,
    /// Calls allowed in a window.
    pub limit: u32,
    /// Calls left.
    pub remaining: u32,
    /// When the next window begins.
    pub resets_at: Timestamp,
}

#[cfg(test)]
mod tests;
