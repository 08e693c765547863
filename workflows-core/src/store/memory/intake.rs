//! Taking in observations.

use std::collections::{HashMap, hash_map::Entry};

use jiff::Timestamp;

use super::{Ledger, StoredPayload, Subject};
use crate::{
    Error, RepoId, Result, Tenant,
    event::{Fold, Folded, Observation, SubjectKey, SubjectState, claimed_state, fold},
    store::{
        Admitted, Arrival, CursorMove, NewWork, REPEATED_DELIVERY, RecordedObservation, Stage,
        StoreLimits, WorkKey, limits::payload_bytes,
    },
};

impl Ledger {
    pub(super) fn admit(
        &mut self,
        observations: Vec<Observation>,
        cursor: Option<CursorMove>,
        limits: &StoreLimits,
        now: Timestamp,
    ) -> Result<Vec<Admitted>> {
        for observation in &observations {
            limits.check(observation)?;
        }
        if let Some(cursor) = &cursor {
            self.check_cursors(std::slice::from_ref(cursor))?;
        }
        if let Some(cursor) = cursor {
            self.move_cursor(cursor);
        }
        let admitted = observations.into_iter().map(|one| self.take_in(one, now)).collect();
        self.drop_payloads_over(limits.max_stored_payload_bytes);
        Ok(admitted)
    }

    fn take_in(&mut self, observation: Observation, now: Timestamp) -> Admitted {
        let subject = observation.claim.subject();
        let state = claimed_state(&observation.claim);
        let delivery = (
            observation.tenant.clone(),
            observation.source.clone(),
            observation.repo.id.clone(),
            observation.delivery.clone(),
            subject.clone(),
        );
        let admitted = match self.deliveries.entry(delivery) {
            Entry::Occupied(_) => Admitted::Duplicate { reason: REPEATED_DELIVERY.to_owned() },
            Entry::Vacant(place) => {
                place.insert(now);
                self.fold_in(&observation, &state, now)
            }
        };
        let id = self.next_serial();
        let record = RecordedObservation {
            id,
            tenant: observation.tenant,
            repo: observation.repo,
            source: observation.source,
            delivery: observation.delivery,
            subject,
            state,
            event: admitted.event().map(|event| event.key.clone()),
            duplicate: match &admitted {
                Admitted::Duplicate { reason } => Some(reason.clone()),
                _ => None,
            },
            received_at: now,
        };
        self.observations.insert(id, record);
        admitted
    }

    fn fold_in(&mut self, observation: &Observation, state: &str, now: Timestamp) -> Admitted {
        let tenant = &observation.tenant;
        let key = (tenant.clone(), observation.repo.id.clone(), observation.claim.subject());
        let known = self.subjects.get(&key);
        let stored = Fold {
            recorded: known.map(|subject| &subject.state),
            seen_before: known.is_some_and(|subject| subject.states.contains_key(state)),
        };
        match fold(observation, stored) {
            Folded::Duplicate { reason, refresh } => {
                if let (Some(at), Some(subject)) = (refresh, self.subjects.get_mut(&key)) {
                    subject.state.updated_at = Some(at);
                }
                Admitted::Duplicate { reason: reason.into_owned() }
            }
            Folded::Baseline { state, updated_at } => {
                self.arrive(key, state, updated_at, now, true);
                Admitted::Baseline
            }
            Folded::News(news) => {
                let k = self.arrive(key.clone(), news.state.clone(), news.updated_at, now, false);
                if let (Some(passed), Some(subject)) = (&news.passed, self.subjects.get_mut(&key)) {
                    subject.states.entry(passed.clone()).or_insert(0);
                }
                let sequence = self.sequence;
                let payload = observation.payload.as_ref().map(|payload| {
                    let stored = StoredPayload {
                        tenant: tenant.clone(),
                        payload: payload.clone(),
                        received_at: now,
                    };
                    let bytes = payload_bytes(payload) as u64;
                    *self.payload_bytes.entry(tenant.clone()).or_default() += bytes;
                    self.payloads.insert(sequence, stored);
                    sequence
                });
                let event = news.into_event(observation, sequence, k, now, payload);
                self.event_ids.insert((tenant.clone(), event.key.clone()), sequence);
                self.events.insert(sequence, event.clone());
                let key = WorkKey::event(event.key.clone());
                self.queue.put(NewWork::now(tenant.clone(), Stage::Match, key), now);
                Admitted::Event(Box::new(event))
            }
        }
    }

    /// Records that a subject came to a state, and returns how often it has.
    fn arrive(
        &mut self,
        key: (Tenant, RepoId, SubjectKey),
        state: String,
        updated_at: Option<Timestamp>,
        now: Timestamp,
        baseline: bool,
    ) -> u32 {
        self.sequence += 1;
        let recorded = SubjectState { state: state.clone(), changed: self.sequence, updated_at };
        let subject = self.subjects.entry(key).or_insert_with(|| Subject {
            state: recorded.clone(),
            states: HashMap::new(),
            arrivals: Vec::new(),
        });
        subject.state = recorded;
        subject.arrivals.push(Arrival { state: state.clone(), at: now, baseline });
        let times = subject.states.entry(state).or_insert(0);
        *times = times.saturating_add(1);
        *times
    }

    fn drop_payloads_over(&mut self, limit: u64) {
        for (tenant, bytes) in &mut self.payload_bytes {
            while *bytes > limit {
                let oldest = self.payloads.iter().find(|(_, stored)| stored.tenant == *tenant);
                let Some((&id, stored)) = oldest else { break };
                *bytes = bytes.saturating_sub(payload_bytes(&stored.payload) as u64);
                self.payloads.remove(&id);
            }
        }
    }

    /// Refuses moves that do not begin where the cursor is, or where the move before left it.
    pub(super) fn check_cursors(&self, moves: &[CursorMove]) -> Result<()> {
        let mut moved: HashMap<(&Tenant, &str), &str> = HashMap::new();
        for one in moves {
            let stored = || {
                let key = (one.tenant.clone(), one.name.clone());
                self.cursors.get(&key).map(String::as_str)
            };
            let present = moved.get(&(&one.tenant, one.name.as_str())).copied().or_else(stored);
            if present != one.from.as_deref() {
                return Err(cursor_conflict(one));
            }
            moved.insert((&one.tenant, &one.name), &one.to);
        }
        Ok(())
    }

    pub(super) fn move_cursor(&mut self, one: CursorMove) {
        self.cursors.insert((one.tenant, one.name), one.to);
    }

    pub(super) fn subjects_by_prefix(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        prefix: &str,
    ) -> Vec<(SubjectKey, SubjectState)> {
        let first = (tenant.clone(), repo.clone(), SubjectKey::reference(prefix));
        self.subjects
            .range(first..)
            .take_while(|((of, at, key), _)| {
                of == tenant && at == repo && key.as_str().starts_with(prefix)
            })
            .map(|((_, _, key), subject)| (key.clone(), subject.state.clone()))
            .collect()
    }
}

fn cursor_conflict(one: &CursorMove) -> Error {
    Error::conflict("move a cursor", "it is not where the move begins; read it again")
        .with("tenant", &one.tenant)
        .with("cursor", &one.name)
}
