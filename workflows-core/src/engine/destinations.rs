//! How the destinations of notifiers get on, so that one that is down, asks for patience or is slow
//! is not called by every run.
//!
//! It is known to this process alone: what another replica does not know costs it some calls.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use super::backoff;
use crate::{Error, ErrorKind, NotifierName, Tenant};

/// So many failures in a row close a destination.
const FAILURES: u32 = 5;
/// For how long it is closed at first, and at most; the time doubles with each failure after that.
const FIRST: SignedDuration = SignedDuration::from_secs(5);
const LONGEST: SignedDuration = SignedDuration::from_mins(5);
/// A destination that asks for more patience is asked again sooner.
const LONGEST_LIMIT: SignedDuration = SignedDuration::from_hours(1);
/// When a destination asks for patience and does not say for how long.
const UNTOLD_LIMIT: SignedDuration = SignedDuration::from_secs(1);
/// So many deliveries to one destination are under way together.
const TOGETHER: u32 = 4;
/// Deliveries that are put off come back with so much time between them.
const APART: SignedDuration = SignedDuration::from_millis(100);

/// How the destinations get on.
#[derive(Debug, Default)]
pub(crate) struct Destinations(Mutex<HashMap<(Tenant, NotifierName), Destination>>);

#[derive(Debug, Default)]
struct Destination {
    failures: u32,
    closed_until: Option<Timestamp>,
    last_error: Option<String>,
    under_way: u32,
    /// When the delivery that was put off last comes back.
    last_appointment: Option<Timestamp>,
}

/// Whether a delivery may be tried now.
#[derive(Debug)]
pub(crate) enum Admission<'a> {
    /// It may.
    Now(Pass<'a>),
    /// It comes back then.
    NotBefore(Timestamp),
}

/// That a delivery is under way.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    destinations: &'a Destinations,
    key: (Tenant, NotifierName),
}

impl Destinations {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Tenant, NotifierName), Destination>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a delivery through, or puts it off.
    pub(crate) fn admit(
        &self,
        tenant: &Tenant,
        notifier: &NotifierName,
        now: Timestamp,
    ) -> Admission<'_> {
        let key = (tenant.clone(), notifier.clone());
        let mut all = self.lock();
        let destination = all.entry(key.clone()).or_default();
        // After a failure one delivery finds out whether it is over.
        let together = if destination.failures >= FAILURES { 1 } else { TOGETHER };
        let closed = destination.closed_until.is_some_and(|until| until > now);
        if closed || destination.under_way >= together {
            return Admission::NotBefore(destination.appointment(now));
        }
        destination.under_way += 1;
        drop(all);
        Admission::Now(Pass { destinations: self, key })
    }

    /// Until when a destination is left alone, and why.
    pub(crate) fn closed(
        &self,
        tenant: &Tenant,
        notifier: &NotifierName,
        now: Timestamp,
    ) -> Option<(Timestamp, String)> {
        let all = self.lock();
        let destination = all.get(&(tenant.clone(), notifier.clone()))?;
        let until = destination.closed_until.filter(|until| *until > now)?;
        Some((until, destination.last_error.clone().unwrap_or_default()))
    }
}

impl Destination {
    fn appointment(&mut self, now: Timestamp) -> Timestamp {
        let soon = backoff::after(now, APART);
        let first = self.closed_until.filter(|until| *until > now).unwrap_or(soon);
        let after_last = self.last_appointment.map(|last| backoff::after(last, APART));
        let at = after_last.map_or(first, |at| at.max(first));
        self.last_appointment = Some(at);
        at
    }
}

impl Pass<'_> {
    /// Tells that the delivery got through.
    pub(crate) fn delivered(self) {
        self.settle(|destination| {
            (destination.failures, destination.closed_until) = (0, None);
            (destination.last_error, destination.last_appointment) = (None, None);
        });
    }

    /// Tells what the delivery failed with. What is wrong with one notification alone says nothing
    /// about its destination.
    pub(crate) fn failed(self, error: &Error, now: Timestamp) {
        let closed_until = |destination: &mut Destination| match error.kind() {
            _ if error.is_of_this_alone() => None,
            ErrorKind::RateLimited { until } => {
                let until = until.unwrap_or_else(|| backoff::after(now, UNTOLD_LIMIT));
                Some(until.min(backoff::after(now, LONGEST_LIMIT)))
            }
            ErrorKind::Transient | ErrorKind::Denied => {
                destination.failures = destination.failures.saturating_add(1);
                let beyond = destination.failures.checked_sub(FAILURES)?;
                let closed = FIRST.checked_mul(1 << beyond.min(10)).unwrap_or(LONGEST);
                Some(backoff::after(now, closed.min(LONGEST)))
            }
            _ => None,
        };
        self.settle(|destination| {
            if let Some(until) = closed_until(destination) {
                let later = destination.closed_until.map_or(until, |known| known.max(until));
                destination.closed_until = Some(later);
                destination.last_error = Some(error.to_string());
            }
        });
    }

    fn settle(&self, change: impl FnOnce(&mut Destination)) {
        if let Some(destination) = self.destinations.lock().get_mut(&self.key) {
            change(destination);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.settle(|destination| {
            destination.under_way = destination.under_way.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn admit(destinations: &Destinations, now: Timestamp) -> Admission<'_> {
        destinations.admit(&Tenant::default(), &"chat".into(), now)
    }

    fn fail(destinations: &Destinations, error: &Error, now: Timestamp) {
        match admit(destinations, now) {
            Admission::Now(pass) => pass.failed(error, now),
            Admission::NotBefore(at) => panic!("put off until {at}"),
        }
    }

    fn put_off(destinations: &Destinations, now: Timestamp) -> Timestamp {
        match admit(destinations, now) {
            Admission::NotBefore(at) => at,
            Admission::Now(_) => panic!("let through"),
        }
    }

    #[test]
    fn a_destination_that_fails_is_closed_for_longer_each_time_and_asked_by_one() {
        let destinations = Destinations::default();
        let error = Error::transient("send", "down");
        for _ in 0..FAILURES {
            fail(&destinations, &error, NOW);
        }
        assert_eq!(put_off(&destinations, NOW), at(5));
        assert_eq!(put_off(&destinations, NOW).duration_since(at(5)), APART);
        let probe = admit(&destinations, at(5));
        assert!(matches!(probe, Admission::Now(_)));
        assert!(put_off(&destinations, at(5)) > at(5), "one finds out, the others wait");
        if let Admission::Now(pass) = probe {
            pass.failed(&error, at(5));
        }
        assert!(put_off(&destinations, at(14)) >= at(15));
        match admit(&destinations, at(15)) {
            Admission::Now(pass) => pass.delivered(),
            Admission::NotBefore(at) => panic!("put off until {at}"),
        }
        let together: Vec<_> = (0..TOGETHER).map(|_| admit(&destinations, at(15))).collect();
        assert!(together.iter().all(|one| matches!(one, Admission::Now(_))));
        assert_eq!(put_off(&destinations, at(15)).duration_since(at(15)), APART);
        drop(together);
        assert!(matches!(admit(&destinations, at(15)), Admission::Now(_)));
    }

    #[test]
    fn a_limit_closes_at_once_and_for_an_hour_at_most() {
        let destinations = Destinations::default();
        let limited = |until| Error::new(ErrorKind::RateLimited { until }, "send", "slow down");
        fail(&destinations, &limited(Some(at(90))), NOW);
        assert_eq!(put_off(&destinations, at(89)), at(90));
        fail(&destinations, &limited(Some(at(1_000_000))), at(90));
        assert!(put_off(&destinations, at(91)) <= at(90 + 3_600));
        let (until, why) = destinations.closed(&Tenant::default(), &"chat".into(), at(91)).unwrap();
        assert_eq!((until, why.as_str()), (at(3_690), "send: slow down"));
    }

    #[test]
    fn what_is_wrong_with_one_notification_closes_nothing() {
        let destinations = Destinations::default();
        for _ in 0..2 * FAILURES {
            fail(&destinations, &Error::invalid("send", "too long"), NOW);
            let until = Some(at(60));
            let limited = Error::new(ErrorKind::RateLimited { until }, "look for it", "slow down");
            fail(&destinations, &limited.of_this_alone(), NOW);
        }
        assert!(matches!(admit(&destinations, NOW), Admission::Now(_)));
    }
}
