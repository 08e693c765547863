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
    due: BTreeSet<(Timestamp, Key)>,
    held: HashMap<(Tenant, ConnectionName), Timestamp>,
    /// When each connection has room for the next look, where looks are spaced.
    slots: HashMap<(Tenant, ConnectionName), Timestamp>,
    wanted: Arc<Interests>,
}

#[derive(Debug)]
pub(super) struct Entry {
    interest: RepoInterest,
    /// When the next look is; `None` while one goes on.
    next: Option<Timestamp>,
    /// Whether `next` is a slot of its connection.
    has_slot: bool,
    /// Whether the interest changed during the look.
    stale: bool,
    /// Whether a look got through.
    pub(super) looked: bool,
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
                    match entry.next.replace(now) {
                        Some(next) => {
                            self.due.remove(&(next, key.clone()));
                            self.due.insert((now, key));
                        }
                        None => {
                            entry.next = None;
                            entry.stale = true;
                        }
                    }
                }
                None => {
                    let interest = interest.clone();
                    let next = Some(now);
                    let entry = Entry {
                        interest,
                        next,
                        has_slot: false,
                        stale: false,
                        looked: false,
                        failures: 0,
                        changed: now,
                    };
                    self.entries.insert(key.clone(), entry);
                    self.due.insert((now, key));
                }
            }
        }
        for key in gone {
            if let Some(entry) = self.entries.remove(&key)
                && let Some(next) = entry.next
            {
                self.due.remove(&(next, key));
            }
        }
    }

    /// Takes out a repository that is due.
    pub(super) fn begin(
        &mut self,
        spacing: Option<SignedDuration>,
        now: Timestamp,
    ) -> Option<(Key, RepoInterest)> {
        loop {
            let (at, _) = self.due.first()?;
            if *at > now {
                return None;
            }
            let (_, key) = self.due.pop_first()?;
            let connection = (key.tenant.clone(), key.connection.clone());
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let held = self.held.get(&connection).copied().filter(|until| *until > now);
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
            entry.next = later;
            match later {
                Some(later) => {
                    self.due.insert((later, key));
                }
                None => {
                    entry.has_slot = false;
                    return Some((key, entry.interest.clone()));
                }
            }
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Lets all repositories of a connection wait.
    pub(super) fn hold(&mut self, key: &Key, until: Timestamp) {
        let held = self.held.entry((key.tenant.clone(), key.connection.clone())).or_insert(until);
        *held = until.max(*held);
    }

    /// Puts a repository back after a look.
    pub(super) fn end(&mut self, key: &Key, next: Timestamp, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            let next = if std::mem::take(&mut entry.stale) { now } else { next };
            if entry.next.replace(next).is_none() {
                self.due.insert((next, key.clone()));
            }
        }
    }
}
