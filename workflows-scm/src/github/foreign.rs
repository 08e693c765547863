//! Repositories that a driver was told of and does not serve.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// The numbers of repositories whose names no pattern allows, and when that was last heard. A log of
/// deliveries tells the number alone, and to ask for the name costs as much as what is saved.
#[derive(Debug, Default)]
pub(super) struct ForeignRepos(Mutex<HashMap<u64, Timestamp>>);

/// For so long a repository is taken not to have come by an allowed name.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
const MOST: usize = 100_000;

impl ForeignRepos {
    pub(super) fn note(&self, number: u64, is_allowed: bool, now: Timestamp) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_allowed {
            heard.remove(&number);
        } else if heard.len() < MOST || heard.contains_key(&number) {
            heard.insert(number, now);
        } else {
            heard.retain(|_, at| is_recent(*at, now));
        }
    }

    pub(super) fn has(&self, number: u64, now: Timestamp) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&number).is_some_and(|at| is_recent(*at, now))
    }
}

fn is_recent(heard: Timestamp, now: Timestamp) -> bool {
    now.duration_since(heard) < KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_for_an_hour_or_until_it_has_another_name() {
        let foreign = ForeignRepos::default();
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        foreign.note(7, false, at(0));
        foreign.note(8, true, at(0));
        assert!(foreign.has(7, at(59)) && !foreign.has(7, at(60)) && !foreign.has(8, at(0)));
        foreign.note(7, true, at(1));
        assert!(!foreign.has(7, at(1)));
    }
}
