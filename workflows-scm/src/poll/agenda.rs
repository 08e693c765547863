//! Which repository is looked at when.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use workflows_core::{
    ConnectionName, Tenant,
    source::{Interests, RepoInterest},
};

use super::rounds::Looks;

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    tenant: Tenant,
    connection: ConnectionName,
    repo: Arc<str>,
}

impl Key {
    pub(super) fn of(interest: &RepoInterest) -> Self {
        Self {
            tenant: interest.tenant.clone(),
            connection: interest.connection.clone(),
            repo: Arc::clone(&interest.repo),
        }
    }

    /// A number from 0 to 255 that is this repository's own.
    pub(super) fn jitter(&self) -> u8 {
        let hash =
            workflows_core::hash_of(&[self.tenant.as_str(), self.connection.as_str(), &self.repo]);
        hash.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.tenant, self.connection, self.repo)
    }
}

/// Which repository is looked at when.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    pub(super) entries: HashMap<Key, Entry>,
    /// The looks to come, by when they are due.
    to_come: BTreeSet<Due>,
    /// Those of them that are due now, by how long they may still wait.
    ready: BTreeSet<(Timestamp, Key)>,
    held: HashMap<(Tenant, ConnectionName), Held>,
    /// When each connection has room for the next look, where looks are spaced.
    slots: HashMap<(Tenant, ConnectionName), Timestamp>,
    wanted: Arc<Interests>,
}

/// A look to come. Of those that are due the one is first that has the least time left. So where
/// something happens comes before where nothing does, also while there are more looks than a limit
/// allows, and no repository is passed over again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Timestamp,
    /// Until when it should have been, whatever holds it up.
    latest: Timestamp,
    key: Key,
}

/// A look may be held up for so many times as long as it is from one to the next. Much, since what is
/// behind its time goes before all that is not.
const PATIENCE: i32 = 8;
/// A first look may be held up for as long as others where nothing happens.
const FIRST_LOOK: SignedDuration = SignedDuration::from_mins(PATIENCE as i64 * 30);

/// Until when the looks through a connection wait.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Those at what was never looked at.
    first: Timestamp,
    /// The others that may wait for so long and longer.
    again: Timestamp,
    may_wait: SignedDuration,
}

#[derive(Debug)]
pub(super) struct Entry {
    interest: RepoInterest,
    /// When the next look is; `None` while one goes on.
    next: Option<Due>,
    /// Whether `next` is a slot of its connection.
    has_slot: bool,
    /// Whether the interest changed during the look.
    stale: bool,
    /// Whether a look got through.
    pub(super) looked: bool,
    /// For how long a look may be held up.
    may_wait: SignedDuration,
    pub(super) failures: u32,
    pub(super) changed: Timestamp,
}

impl Agenda {
    /// Takes up what is wanted now: what is new or wants something else is looked at next.
    pub(super) fn follow(&mut self, looks: &impl Looks, wanted: &Arc<Interests>, now: Timestamp) {
        if Arc::ptr_eq(&self.wanted, wanted) {
            return;
        }
        self.wanted = Arc::clone(wanted);
        let mut gone: BTreeSet<Key> = self.entries.keys().cloned().collect();
        for interest in wanted.repos.iter().filter(|interest| looks.wants(interest)) {
            let key = Key::of(interest);
            gone.remove(&key);
            match self.entries.get_mut(&key) {
                Some(entry) if looks.wants_the_same(&entry.interest, interest) => {}
                Some(entry) => {
                    entry.interest = interest.clone();
                    match &mut entry.next {
                        Some(next) => {
                            self.to_come.remove(next);
                            self.ready.remove(&(next.latest, key.clone()));
                            *next = Due { at: now, latest: super::later(now, entry.may_wait), key };
                            self.to_come.insert(next.clone());
                        }
                        None => entry.stale = true,
                    }
                }
                None => {
                    let interest = interest.clone();
                    let latest = super::later(now, FIRST_LOOK);
                    let next = Due { at: now, latest, key: key.clone() };
                    self.to_come.insert(next.clone());
                    let entry = Entry {
                        interest,
                        next: Some(next),
                        has_slot: false,
                        stale: false,
                        looked: false,
                        may_wait: FIRST_LOOK,
                        failures: 0,
                        changed: now,
                    };
                    self.entries.insert(key, entry);
                }
            }
        }
        for key in gone {
            if let Some(entry) = self.entries.remove(&key)
                && let Some(next) = entry.next
            {
                self.to_come.remove(&next);
                self.ready.remove(&(next.latest, key));
            }
        }
    }

    /// Takes out a repository that is due.
    pub(super) fn begin(
        &mut self,
        spacing: Option<SignedDuration>,
        now: Timestamp,
    ) -> Option<(Key, RepoInterest)> {
        while self.to_come.first().is_some_and(|due| due.at <= now)
            && let Some(Due { latest, key, .. }) = self.to_come.pop_first()
        {
            self.ready.insert((latest, key));
        }
        loop {
            let (latest, key) = self.ready.pop_first()?;
            let connection = (key.tenant.clone(), key.connection.clone());
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let held = self.held.get(&connection);
            let held = held.map(|held| match entry.looked {
                false => held.first,
                true if entry.may_wait >= held.may_wait => held.again,
                true => Timestamp::MIN,
            });
            let held = held.filter(|until| *until > now);
            let later = match (held, spacing) {
                (Some(until), _) => {
                    entry.has_slot = false;
                    Some(until)
                }
                (None, Some(spacing)) if !entry.has_slot => {
                    let free = self.slots.entry(connection).or_insert(now);
                    let slot = now.max(*free);
                    *free = super::later(slot, spacing);
                    entry.has_slot = slot > now;
                    entry.has_slot.then_some(slot)
                }
                _ => None,
            };
            match later {
                Some(at) => {
                    let later = Due { at, latest, key };
                    entry.next = Some(later.clone());
                    self.to_come.insert(later);
                }
                None => {
                    entry.next = None;
                    entry.has_slot = false;
                    return Some((key, entry.interest.clone()));
                }
            }
        }
    }

    /// When the next look is due, when none is due now.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.to_come.first().map(|due| due.at)
    }

    /// Lets the repositories of a connection wait. What is held back at a first look, which costs more
    /// than others, says nothing of the others; nor does what is held back where nothing happens say
    /// something of where much does, for a look that was made shortly before may cost nothing.
    pub(super) fn hold(&mut self, key: &Key, until: Timestamp, now: Timestamp) {
        let Some(entry) = self.entries.get(key) else { return };
        let none =
            Held { first: Timestamp::MIN, again: Timestamp::MIN, may_wait: SignedDuration::MAX };
        let held = self.held.entry((key.tenant.clone(), key.connection.clone())).or_insert(none);
        held.first = until.max(held.first);
        if entry.looked {
            let is_over = held.again <= now;
            held.again = until.max(held.again);
            held.may_wait =
                if is_over { entry.may_wait } else { entry.may_wait.min(held.may_wait) };
        }
    }

    /// Says how long it is from one look at a repository to the next.
    pub(super) fn is_looked_at_every(&mut self, key: &Key, interval: SignedDuration) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.may_wait = interval.checked_mul(PATIENCE).unwrap_or(SignedDuration::MAX);
        }
    }

    /// Puts a repository back after a look.
    pub(super) fn end(&mut self, key: &Key, next: Timestamp, now: Timestamp) {
        self.put_back(key, next, next, now);
    }

    /// Puts a repository back that is due, and has to wait.
    pub(super) fn put_off(&mut self, key: &Key, until: Timestamp, now: Timestamp) {
        self.put_back(key, until, now, now);
    }

    fn put_back(&mut self, key: &Key, at: Timestamp, due: Timestamp, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            let stale = std::mem::take(&mut entry.stale);
            let (at, due) = if stale { (now, now) } else { (at, due) };
            let latest = super::later(due, entry.may_wait);
            let next = Due { at, latest, key: key.clone() };
            if entry.next.replace(next.clone()).is_none() {
                self.to_come.insert(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use workflows_core::EventKind;

    use super::*;
    use crate::poll::PullRequests;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn agenda() -> Agenda {
        let mut wanted = Interests::default();
        wanted.repos = ["org/a", "org/b", "org/c"]
            .map(|repo| RepoInterest {
                tenant: Tenant::default(),
                connection: "scm".into(),
                repo: repo.into(),
                kinds: [EventKind::PULL_REQUEST].into(),
                ref_prefixes: Default::default(),
            })
            .into();
        let mut agenda = Agenda::default();
        agenda.follow(&PullRequests::default(), &Arc::new(wanted), at(0));
        agenda
    }

    fn next(agenda: &mut Agenda, second: i64) -> Option<String> {
        agenda.begin(None, at(second)).map(|(key, _)| key.repo.to_string())
    }

    #[test]
    fn after_a_hold_the_one_that_has_waited_longest_is_first() {
        let mut agenda = agenda();
        let (first, _) = agenda.begin(None, at(0)).unwrap();
        assert_eq!(&*first.repo, "org/a");
        agenda.hold(&first, at(100), at(1));
        agenda.put_off(&first, at(100), at(1));
        assert_eq!(next(&mut agenda, 50), None, "all of the connection wait");
        assert_eq!(next(&mut agenda, 100).as_deref(), Some("org/b"));
        assert_eq!(next(&mut agenda, 100).as_deref(), Some("org/c"));
        assert_eq!(next(&mut agenda, 100).as_deref(), Some("org/a"), "it was asked for last");
    }

    #[test]
    fn where_something_happens_comes_before_where_nothing_does() {
        let order = |active_due: i64, is_held: bool| {
            let mut agenda = agenda();
            let keys = [0; 3].map(|_| agenda.begin(None, at(0)).unwrap().0);
            for (key, interval) in keys.iter().zip([1_800, 1_800, 60]) {
                agenda.entries.get_mut(key).unwrap().looked = true;
                agenda.is_looked_at_every(key, SignedDuration::from_secs(interval));
                let due = if interval == 60 { active_due } else { interval };
                agenda.end(key, at(due), at(0));
            }
            if is_held {
                agenda.hold(&keys[2], at(15_800), at(0));
                assert_eq!(next(&mut agenda, 15_750), None);
            }
            [0; 3].map(|_| next(&mut agenda, 15_800).unwrap())
        };
        for is_held in [false, true] {
            assert_eq!(order(15_700, is_held), ["org/c", "org/a", "org/b"]);
            // The others are behind their time from 1,800 and eight times as long on.
            assert_eq!(order(15_730, is_held), ["org/a", "org/b", "org/c"]);
        }
    }

    #[test]
    fn a_hold_where_nothing_happens_does_not_hold_up_where_something_does() {
        let mut agenda = agenda();
        let keys = [0; 3].map(|_| agenda.begin(None, at(0)).unwrap().0);
        for (key, interval) in keys.iter().zip([1_800, 1_900, 60]) {
            agenda.entries.get_mut(key).unwrap().looked = true;
            agenda.is_looked_at_every(key, SignedDuration::from_secs(interval));
            agenda.end(key, at(10), at(0));
        }
        agenda.hold(&keys[0], at(100), at(5));
        assert_eq!(next(&mut agenda, 50).as_deref(), Some("org/c"));
        assert_eq!(next(&mut agenda, 50), None);
        agenda.hold(&keys[2], at(150), at(50));
        agenda.put_off(&keys[2], at(150), at(50));
        assert_eq!(next(&mut agenda, 149), None, "what holds that one up holds up all");
        let all = [0; 3].map(|_| next(&mut agenda, 150).unwrap());
        assert_eq!(all, ["org/c", "org/a", "org/b"]);
    }

    #[test]
    fn a_first_look_that_is_held_back_holds_up_first_looks_alone() {
        let mut agenda = agenda();
        let (looked, _) = agenda.begin(None, at(0)).unwrap();
        agenda.entries.get_mut(&looked).unwrap().looked = true;
        agenda.end(&looked, at(45), at(0));
        let (new, _) = agenda.begin(None, at(0)).unwrap();
        assert_eq!(&*new.repo, "org/b");
        agenda.hold(&new, at(100), at(1));
        agenda.put_off(&new, at(100), at(1));
        assert_eq!(next(&mut agenda, 50).as_deref(), Some("org/a"));
        assert_eq!(next(&mut agenda, 50), None);
        agenda.hold(&looked, at(200), at(50));
        agenda.put_off(&looked, at(200), at(50));
        assert_eq!(next(&mut agenda, 199), None, "what is told of the others is told of all");
        assert_eq!(next(&mut agenda, 200).as_deref(), Some("org/c"));
    }
}
