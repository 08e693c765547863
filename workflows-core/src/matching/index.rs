//! From an event's repository and kind to the triggers that it may be for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::{Definition, Pattern, TriggerSet};
use crate::{
    ConnectionName, EventKind, RepoRef, Tenant, WorkflowId,
    source::{Interests, RepoInterest},
    workflow::AsOf,
};

/// The registered workflows, found by tenant, connection, repository and kind of event.
///
/// Repositories that are named are found by their name, patterns of repositories by what they begin
/// with; the set of triggers for a repository and a kind is made when an event first needs it, and
/// kept until one of its workflows changes. It can be shared and changed while it is read.
#[derive(Debug, Default)]
pub struct Index {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    definitions: HashMap<(Tenant, WorkflowId), Arc<Definition>>,
    scopes: HashMap<(Tenant, ConnectionName), Scope>,
}

/// What is registered for one connection of a tenant.
#[derive(Debug, Default)]
struct Scope {
    by_name: HashMap<Arc<str>, Vec<Arc<Definition>>>,
    /// By what they begin with, then by their text.
    patterns: HashMap<Arc<str>, HashMap<Arc<str>, PatternEntry>>,
    /// How many patterns begin with how many literal bytes.
    prefix_lengths: BTreeMap<usize, usize>,
    /// What was asked for, by repository.
    sets: Mutex<HashMap<Arc<str>, SetsByKind>>,
    /// What there is to look at in repositories that are named, as far as it was put together since
    /// they changed.
    interests: Mutex<HashMap<Arc<str>, RepoInterest>>,
}

#[derive(Debug)]
struct PatternEntry {
    pattern: Pattern,
    definitions: Vec<Arc<Definition>>,
}

type SetsByKind = BTreeMap<EventKind, Arc<TriggerSet>>;

/// For how many repositories of a connection sets are kept; over that all are made anew.
const KEPT_REPOS: usize = 10_000;

impl Index {
    /// An index of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a workflow, in place of the one with its identity if there is one.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern of its repositories; nothing changed then.
    pub fn upsert(&self, definition: Arc<Definition>) -> Result<(), String> {
        let pattern = Pattern::of_repository(definition.repo())?;
        let key = (definition.tenant().clone(), definition.id().clone());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = state.definitions.insert(key, Arc::clone(&definition)) {
            state.take_out(&old);
        }
        let scope_key = (definition.tenant().clone(), definition.connection().clone());
        state.scopes.entry(scope_key).or_default().put_in(definition, pattern);
        Ok(())
    }

    /// Takes a workflow out, and returns it.
    pub fn remove(&self, tenant: &Tenant, id: &WorkflowId) -> Option<Arc<Definition>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let old = state.definitions.remove(&(tenant.clone(), id.clone()))?;
        state.take_out(&old);
        Some(old)
    }

    /// The workflow with that identity.
    pub fn get(&self, tenant: &Tenant, id: &WorkflowId) -> Option<Arc<Definition>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.definitions.get(&(tenant.clone(), id.clone())).cloned()
    }

    /// All workflows, in no certain order.
    pub fn definitions(&self) -> Vec<Arc<Definition>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.definitions.values().cloned().collect()
    }

    /// How many workflows are registered.
    pub fn len(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).definitions.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The triggers that an event of that kind at that repository may be for; `None` when there are
    /// none.
    pub fn triggers(
        &self,
        tenant: &Tenant,
        repo: &RepoRef,
        kind: &EventKind,
    ) -> Option<Arc<TriggerSet>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let scope = state.scopes.get(&(tenant.clone(), repo.connection.clone()))?;
        let mut sets = scope.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(&repo.name).and_then(|of_repo| of_repo.get(kind)) {
            return (!set.is_empty()).then(|| Arc::clone(set));
        }
        let definitions = scope.definitions_for(&repo.name);
        if definitions.is_empty() {
            return None;
        }
        let set = Arc::new(TriggerSet::new(definitions, kind));
        if sets.len() >= KEPT_REPOS {
            sets.clear();
        }
        sets.entry(Arc::clone(&repo.name)).or_default().insert(kind.clone(), Arc::clone(&set));
        (!set.is_empty()).then_some(set)
    }

    /// What event sources have to look at for the registered workflows. Repositories that only a
    /// pattern is for are not among it.
    pub fn interests(&self) -> Interests {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut repos = Vec::new();
        for ((tenant, connection), scope) in &state.scopes {
            let mut known = scope.interests.lock().unwrap_or_else(PoisonError::into_inner);
            for repo in scope.by_name.keys() {
                let interest = known
                    .entry(Arc::clone(repo))
                    .or_insert_with(|| scope.interest_in(tenant, connection, repo));
                repos.push(interest.clone());
            }
        }
        Interests { repos: repos.into_iter().collect() }
    }
}

impl State {
    fn take_out(&mut self, definition: &Arc<Definition>) {
        let key = (definition.tenant().clone(), definition.connection().clone());
        if let Some(scope) = self.scopes.get_mut(&key) {
            scope.take_out(definition);
            if scope.by_name.is_empty() && scope.patterns.is_empty() {
                self.scopes.remove(&key);
            }
        }
    }
}

impl Scope {
    /// What was put together for a repository is not so any more.
    fn repository_changed(&mut self, repo: &str) {
        self.sets.get_mut().unwrap_or_else(PoisonError::into_inner).remove(repo);
        self.interests.get_mut().unwrap_or_else(PoisonError::into_inner).remove(repo);
    }

    /// What was put together for any repository is not so any more.
    fn pattern_changed(&mut self) {
        self.sets.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        self.interests.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn put_in(&mut self, definition: Arc<Definition>, pattern: Pattern) {
        if pattern.as_literal().is_some() {
            self.repository_changed(definition.repo());
            self.by_name.entry(Arc::clone(definition.repo())).or_default().push(definition);
            return;
        }
        self.pattern_changed();
        let prefix = pattern.literal_prefix();
        *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
        self.patterns
            .entry(prefix.into())
            .or_default()
            .entry(Arc::clone(definition.repo()))
            .or_insert_with(|| PatternEntry { pattern, definitions: Vec::new() })
            .definitions
            .push(definition);
    }

    fn take_out(&mut self, definition: &Arc<Definition>) {
        let repo = definition.repo();
        if let Some(named) = self.by_name.get_mut(repo) {
            let before = named.len();
            named.retain(|other| !Arc::ptr_eq(other, definition));
            let found = named.len() < before;
            if named.is_empty() {
                self.by_name.remove(repo);
            }
            if found {
                self.repository_changed(repo);
                return;
            }
        }
        self.pattern_changed();
        // It was put in, so its pattern is one.
        let Ok(pattern) = Pattern::of_repository(repo) else { return };
        let prefix = pattern.literal_prefix();
        let Some(bucket) = self.patterns.get_mut(prefix) else { return };
        let Some(entry) = bucket.get_mut(repo) else { return };
        entry.definitions.retain(|other| !Arc::ptr_eq(other, definition));
        if entry.definitions.is_empty() {
            bucket.remove(repo);
        }
        if bucket.is_empty() {
            self.patterns.remove(prefix);
        }
        if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.prefix_lengths.remove(&prefix.len());
            }
        }
    }

    fn definitions_for(&self, repo: &str) -> Vec<Arc<Definition>> {
        let mut found = self.by_name.get(repo).cloned().unwrap_or_default();
        found.extend(self.of_patterns(repo));
        found
    }

    fn interest_in(
        &self,
        tenant: &Tenant,
        connection: &ConnectionName,
        repo: &Arc<str>,
    ) -> RepoInterest {
        let mut interest = RepoInterest {
            tenant: tenant.clone(),
            connection: connection.clone(),
            repo: Arc::clone(repo),
            kinds: BTreeSet::new(),
            ref_prefixes: BTreeSet::new(),
        };
        for definition in self.definitions_for(repo) {
            note_interests(&definition, &mut interest);
        }
        interest.ref_prefixes = narrowest(interest.ref_prefixes);
        interest
    }

    fn of_patterns(&self, repo: &str) -> Vec<Arc<Definition>> {
        self.prefix_lengths
            .range(..=repo.len())
            .filter_map(|(length, _)| self.patterns.get(repo.get(..*length)?))
            .flat_map(HashMap::values)
            .filter(|entry| entry.pattern.matches(repo))
            .flat_map(|entry| entry.definitions.iter().cloned())
            .collect()
    }
}

pub(crate) fn note_interests(definition: &Definition, interest: &mut RepoInterest) {
    for trigger in definition.triggers() {
        interest.kinds.insert(trigger.kind().clone());
        interest.ref_prefixes.extend(trigger.ref_prefixes());
    }
    // A schedule that asks where its ref stood needs the ref to be watched. Which one the default
    // branch is, and whether a short name is a branch or a tag, is not known here.
    let looking_back = definition
        .schedules()
        .iter()
        .filter(|(_, schedule)| matches!(schedule.as_of, Some(AsOf::Age(_))));
    for (_, schedule) in looking_back {
        let refs = match schedule.reference.as_deref() {
            None => vec!["refs/heads/".to_owned()],
            Some(full) if full.starts_with("refs/") => vec![full.to_owned()],
            Some(short) => vec![format!("refs/heads/{short}"), format!("refs/tags/{short}")],
        };
        interest.ref_prefixes.extend(refs.into_iter().map(Arc::from));
    }
}

/// Leaves out what begins with another of the prefixes.
pub(crate) fn narrowest(prefixes: BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
    let mut kept: Vec<Arc<str>> = Vec::new();
    // In order, whatever begins with a prefix stands right behind it.
    for prefix in prefixes {
        if !kept.last().is_some_and(|last| prefix.starts_with(&**last)) {
            kept.push(prefix);
        }
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests;
