//! When work that failed is due again.

use jiff::{SignedDuration, Timestamp};

use crate::{
    Error, ErrorKind, hash_of,
    store::{Claim, Release},
};

const FIRST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST: SignedDuration = SignedDuration::from_mins(5);
/// A host that says "come back in a year" is asked again sooner.
const LONGEST_RATE_LIMIT: SignedDuration = SignedDuration::from_hours(1);
/// So many conflicts in a row are taken for bad luck and tried again at once.
const CONFLICTS_AT_ONCE: u32 = 5;

/// How a claim whose stage failed is given back.
pub(crate) fn release(claim: &Claim, error: &Error, now: Timestamp) -> Release {
    let salt = claim.lease.id.to_string();
    let not_before = match error.kind() {
        ErrorKind::Conflict if claim.attempts <= CONFLICTS_AT_ONCE => None,
        // Somebody else got on meanwhile. Who waits for longer each time loses to those who do not.
        ErrorKind::Conflict => Some(next_try(error, 1, &format!("{salt} {}", claim.attempts), now)),
        ErrorKind::RateLimited { until: Some(_) } => Some(next_try(error, 1, &salt, now)),
        // Attempts that a crash broke off did not wait: what is due for a short time waits for one.
        _ => {
            let due_for = now.duration_since(claim.since);
            let longest = due_for.checked_mul(3).unwrap_or(LONGEST).max(FIRST);
            Some(next_try(error, claim.attempts, &salt, now).min(after(now, longest)))
        }
    };
    Release { not_before, error: Some(error.to_string()) }
}

/// When something that failed for the `attempts`-th time is tried again: when the other side said,
/// else after twice the time of the attempt before, from a second to five minutes. A quarter of the
/// time is jitter, which depends on `salt` and `attempts` alone.
pub(crate) fn next_try(error: &Error, attempts: u32, salt: &str, now: Timestamp) -> Timestamp {
    if let ErrorKind::RateLimited { until: Some(until) } = error.kind() {
        return until.clamp(now, after(now, LONGEST_RATE_LIMIT));
    }
    let doublings = attempts.saturating_sub(1).min(16);
    let whole = FIRST.checked_mul(1 << doublings).map_or(LONGEST, |delay| delay.min(LONGEST));
    let digest = hash_of(&[salt, &attempts.to_string()]);
    let part = digest.get(..4).and_then(|digits| i32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let jitter = whole / 4 * part / 0x1_0000;
    after(now, whole - jitter)
}

/// For how long work has been tried, without the time in which nobody was there to try: no longer
/// than the longest waits between its attempts are together. So what was stored and then left by a
/// process that was down for days is not given up at its first failure.
pub(crate) fn tried_for(claim: &Claim, kind: ErrorKind, now: Timestamp) -> SignedDuration {
    let longest = match kind {
        ErrorKind::RateLimited { .. } => LONGEST_RATE_LIMIT,
        _ => LONGEST,
    };
    let waits = i32::try_from(claim.attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let waited = longest.checked_mul(waits).unwrap_or(SignedDuration::MAX);
    now.duration_since(claim.since).min(waited)
}

/// An instant so long after another, or the last one there is.
pub(crate) fn after(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// An instant so long before another, or the first one there is.
pub(crate) fn before(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Tenant,
        store::{Lease, Stage, Work, WorkKey},
    };

    fn wait(error: &Error, attempts: u32) -> SignedDuration {
        let now = Timestamp::UNIX_EPOCH;
        next_try(error, attempts, "salt", now).duration_since(now)
    }

    #[test]
    fn the_wait_doubles_up_to_five_minutes_less_a_quarter() {
        let error = Error::transient("call", "down");
        for (attempts, most) in [(1, 1), (2, 2), (4, 8), (9, 256), (10, 300), (4_000_000, 300)] {
            let most = SignedDuration::from_secs(most);
            let waited = wait(&error, attempts);
            assert!(waited <= most && waited >= most / 4 * 3, "{attempts}: {waited}");
            assert_eq!(waited, wait(&error, attempts), "it is the same each time");
        }
    }

    fn claimed(attempts: u32) -> Claim {
        Claim {
            work: Work {
                tenant: Tenant::default(),
                stage: Stage::Schedule,
                key: WorkKey::run("a".to_owned().into()),
                detail: serde_json::Value::Null,
            },
            lease: Lease { id: 7, token: 1, until: Timestamp::UNIX_EPOCH },
            attempts,
            since: Timestamp::UNIX_EPOCH,
            last_error: None,
        }
    }

    #[test]
    fn attempts_that_crashes_broke_off_make_nothing_wait_longer_than_it_was_due() {
        let error = Error::transient("call", "down");
        let waits = |due_for: i64| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(due_for);
            release(&claimed(20), &error, now).not_before.unwrap().duration_since(now).as_secs()
        };
        assert_eq!((waits(-60), waits(0), waits(8)), (1, 1, 24));
        assert!((225..=300).contains(&waits(3_600)));
        // Those that each waited are not touched by it.
        let mut now = Timestamp::UNIX_EPOCH;
        for attempts in 1..=12 {
            let claim = claimed(attempts);
            let next = release(&claim, &error, now).not_before.unwrap();
            assert_eq!(next, next_try(&error, attempts, &claim.lease.id.to_string(), now));
            now = next;
        }
    }

    #[test]
    fn a_conflict_is_tried_again_at_once_and_then_within_a_second_however_often() {
        let error = Error::conflict("commit", "a group has changed");
        for attempts in [1, 5, 6, 12, 4_000] {
            let claim = claimed(attempts);
            let release = release(&claim, &error, Timestamp::UNIX_EPOCH);
            let waits = release.not_before.map(|at| at.duration_since(Timestamp::UNIX_EPOCH));
            match attempts {
                ..=5 => assert_eq!(waits, None),
                _ => assert!(waits.is_some_and(|waits| waits <= FIRST), "{attempts}: {waits:?}"),
            }
        }
    }

    #[test]
    fn a_host_that_says_when_is_believed_for_an_hour_at_most() {
        let at = |seconds| {
            Error::new(
                ErrorKind::RateLimited { until: Timestamp::from_second(seconds).ok() },
                "call",
                "slow down",
            )
        };
        assert_eq!(wait(&at(90), 7), SignedDuration::from_secs(90));
        assert_eq!(wait(&at(1_000_000), 1), SignedDuration::from_hours(1));
        assert_eq!(wait(&at(-5), 1), SignedDuration::ZERO);
    }
}
