//! Taking in observations, in sets: what a whole batch needs to know is read at once, folded here,
//! and written at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Ask, Batch, Done, Ledger, Rows, instant, locks, nanos, query, rows::json};
use crate::{
    Error, Event, RepoId, Result, Tenant,
    event::{Fold, Folded, News, Observation, SubjectKey, SubjectState, claimed_state, fold},
    store::{Admitted, CursorMove, REPEATED_DELIVERY, Stage, WorkKey, limits::payload_bytes},
};

/// How an arrival came about, as the column has it.
pub(crate) const CHANGE: i64 = 0;
pub(crate) const BASELINE: i64 = 1;
const PASSED: i64 = 2;

/// 16 bytes of SHA-256: enough that nobody finds two deliveries with one hash.
pub(crate) type DeliveryHash = [u8; 16];

/// An observation with what is looked up for it.
#[derive(Debug)]
struct Candidate<'a> {
    observation: &'a Observation,
    subject: SubjectKey,
    state: String,
    hash: DeliveryHash,
    /// Its subject's place in [`Found::subjects`].
    slot: usize,
}

#[derive(Debug)]
struct Subject {
    /// `None` until the ledger has a row of it.
    id: Option<i64>,
    recorded: Option<SubjectState>,
    changed: bool,
}

/// What the ledger has recorded of the batch's subjects, kept up with what the batch does.
#[derive(Debug, Default)]
struct Found {
    subjects: Vec<Subject>,
    /// How often a subject came to a state, where it did or was said to have.
    times: HashMap<(usize, String), u32>,
    deliveries: HashSet<DeliveryHash>,
}

/// What is to be written.
#[derive(Debug)]
struct Written {
    deliveries: Rows,
    observations: Rows,
    arrivals: Rows,
    events: Rows,
    payloads: Rows,
    work: Rows,
    /// Subject and state.
    passed: Vec<(i64, String)>,
    bytes: BTreeMap<Tenant, u64>,
}

impl<C: Ledger> Batch<C> {
    /// Executes all admissions of the batch, and answers each in order.
    pub(crate) async fn admit(&mut self, asks: &[&Ask]) -> Done<Vec<Result<Vec<Admitted>>>> {
        let mut answers = Vec::new();
        let mut accepted: Vec<&[Observation]> = Vec::new();
        if !asks.iter().any(|ask| matches!(ask, Ask::Admit { .. })) {
            return Ok(answers);
        }
        self.db.begin_intake().await?;
        if C::SHARED {
            self.db.lock(cursors(asks)).await?;
        }
        for ask in asks {
            let Ask::Admit { observations, cursor } = ask else { continue };
            if let Some(cursor) = cursor {
                if let Err(error) = self.check_cursor(cursor).await? {
                    answers.push(Err(error));
                    continue;
                }
                self.move_cursor(cursor).await?;
            }
            answers.push(Ok(Vec::with_capacity(observations.len())));
            accepted.push(observations);
        }
        let mut outcomes = self.take_in(&accepted).await?.into_iter();
        let mut sizes = accepted.iter().map(|observations| observations.len());
        for answer in answers.iter_mut().flatten() {
            answer.extend(outcomes.by_ref().take(sizes.next().unwrap_or(0)));
        }
        Ok(answers)
    }

    async fn take_in(&mut self, accepted: &[&[Observation]]) -> Done<Vec<Admitted>> {
        let mut slots = HashMap::new();
        let mut candidates = Vec::new();
        for observation in accepted.iter().copied().flatten() {
            let subject = observation.claim.subject();
            let identity: (&Tenant, &RepoId, SubjectKey) =
                (&observation.tenant, &observation.repo.id, subject.clone());
            let next = slots.len();
            candidates.push(Candidate {
                observation,
                state: claimed_state(&observation.claim),
                hash: delivery_hash(observation, &subject),
                slot: *slots.entry(identity).or_insert(next),
                subject,
            });
        }
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        self.db.reserve(candidates.len() * 4).await?;
        let mut found = self.look_up(&candidates, slots.len()).await?;
        let mut written = Written {
            deliveries: Rows::new(3),
            observations: Rows::new(12),
            arrivals: Rows::new(6),
            events: Rows::new(10),
            payloads: Rows::new(6),
            work: Rows::new(9),
            passed: Vec::new(),
            bytes: BTreeMap::new(),
        };
        let mut admitted = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            let outcome = self.fold_in(candidate, &mut found, &mut written).await?;
            self.record(candidate, &outcome, &mut written).await?;
            admitted.push(outcome);
        }
        self.write(&candidates, &found, written).await?;
        Ok(admitted)
    }

    async fn look_up(&mut self, candidates: &[Candidate<'_>], subjects: usize) -> Done<Found> {
        let mut wanted = Rows::new(6);
        for (index, candidate) in candidates.iter().enumerate() {
            wanted.put(index as i64);
            wanted.put(candidate.observation.tenant.as_str());
            wanted.put(candidate.observation.repo.id.as_str());
            wanted.put(candidate.subject.as_str());
            wanted.put(candidate.state.as_str());
            wanted.put(&candidate.hash[..]);
        }
        let mut found = Found::default();
        found.subjects.resize_with(subjects, || Subject {
            id: None,
            recorded: None,
            changed: false,
        });
        let statements = C::statements(
            wanted,
            "SELECT w.column1, s.id, s.state, s.changed, s.updated_at, \
             (SELECT a.times FROM arrivals a WHERE a.subject = s.id AND a.state = w.column5 \
              ORDER BY a.sequence DESC LIMIT 1), \
             EXISTS (SELECT 1 FROM deliveries d WHERE d.hash = w.column6) \
             FROM",
            "LEFT JOIN subjects s \
             ON s.tenant = w.column2 AND s.repo = w.column3 AND s.subject = w.column4 \
             WHERE w.column1 IS NOT NULL",
        );
        for statement in statements {
            for row in statement.fetch_all(&mut self.db).await? {
                let index: i64 = row.try_get(0)?;
                let Some(candidate) = candidates.get(index as usize) else { continue };
                if row.try_get::<bool>(6)? {
                    found.deliveries.insert(candidate.hash);
                }
                let Some(id) = row.try_get::<Option<i64>>(1)? else { continue };
                if let Some(subject) = found.subjects.get_mut(candidate.slot) {
                    subject.id = Some(id);
                    subject.recorded = Some(SubjectState {
                        state: row.try_get(2)?,
                        changed: row.try_get(3)?,
                        updated_at: row.try_get::<Option<i64>>(4)?.map(instant),
                    });
                }
                if let Some(times) = row.try_get::<Option<u32>>(5)? {
                    found.times.insert((candidate.slot, candidate.state.clone()), times);
                }
            }
        }
        Ok(found)
    }

    async fn fold_in(
        &mut self,
        candidate: &Candidate<'_>,
        found: &mut Found,
        written: &mut Written,
    ) -> Done<Admitted> {
        if !found.deliveries.insert(candidate.hash) {
            return Ok(Admitted::Duplicate { reason: REPEATED_DELIVERY.to_owned() });
        }
        let id = self.db.next_serial().await?;
        written.deliveries.put(id);
        written.deliveries.put(&candidate.hash[..]);
        written.deliveries.put(nanos(self.now));

        let observation = candidate.observation;
        let stored = Fold {
            recorded: found.subjects.get(candidate.slot).and_then(|one| one.recorded.as_ref()),
            seen_before: found.times.contains_key(&(candidate.slot, candidate.state.clone())),
        };
        match fold(observation, stored) {
            Folded::Duplicate { reason, refresh } => {
                if let (Some(at), Some(subject)) = (refresh, found.subjects.get_mut(candidate.slot))
                    && let Some(recorded) = &mut subject.recorded
                {
                    recorded.updated_at = Some(at);
                    subject.changed = true;
                }
                Ok(Admitted::Duplicate { reason: reason.into_owned() })
            }
            Folded::Baseline { state, updated_at } => {
                self.arrive(candidate.slot, state, updated_at, BASELINE, found, written).await?;
                Ok(Admitted::Baseline)
            }
            Folded::News(news) => {
                let state = news.state.clone();
                let (subject, k) = self
                    .arrive(candidate.slot, state, news.updated_at, CHANGE, found, written)
                    .await?;
                if let Some(passed) = &news.passed {
                    found.times.entry((candidate.slot, passed.clone())).or_insert(0);
                    written.passed.push((subject, passed.clone()));
                }
                let event = self.make_event(observation, *news, k, written).await?;
                Ok(Admitted::Event(Box::new(event)))
            }
        }
    }

    /// Records that a subject came to a state; returns the subject's id, and how often it has.
    async fn arrive(
        &mut self,
        slot: usize,
        state: String,
        updated_at: Option<Timestamp>,
        kind: i64,
        found: &mut Found,
        written: &mut Written,
    ) -> Done<(i64, u32)> {
        let sequence = self.db.next_sequence();
        let times = found.times.entry((slot, state.clone())).or_insert(0);
        *times = times.saturating_add(1);
        let times = *times;
        let id = match found.subjects.get(slot).and_then(|subject| subject.id) {
            Some(id) => id,
            None => self.db.next_serial().await?,
        };
        written.arrivals.put(id);
        written.arrivals.put(state.as_str());
        written.arrivals.put(sequence);
        written.arrivals.put(times);
        written.arrivals.put(nanos(self.now));
        written.arrivals.put(kind);
        if let Some(subject) = found.subjects.get_mut(slot) {
            subject.id = Some(id);
            subject.recorded = Some(SubjectState { state, changed: sequence, updated_at });
            subject.changed = true;
        }
        Ok((id, times))
    }

    async fn make_event(
        &mut self,
        observation: &Observation,
        news: News,
        k: u32,
        written: &mut Written,
    ) -> Done<Event> {
        let sequence = self.db.sequence();
        let kept = observation.payload.as_ref();
        let event = news.into_event(observation, sequence, k, self.now, kept.map(|_| sequence));
        if let Some(payload) = kept {
            let size = payload_bytes(payload);
            *written.bytes.entry(event.tenant.clone()).or_default() += size as u64;
            written.payloads.put(sequence);
            written.payloads.put(event.tenant.as_str());
            written.payloads.put(size as i64);
            written.payloads.put(nanos(self.now));
            written.payloads.put(json(payload.headers())?);
            written.payloads.put(&payload.body()[..]);
        }
        let number = event.pull_request.as_ref().map(|pull_request| pull_request.number);
        written.events.put(sequence);
        written.events.put(event.key.as_str());
        written.events.put(event.tenant.as_str());
        written.events.put(event.repo.id.as_str());
        written.events.put(event.kind.as_str());
        written.events.put(event.subject.as_str());
        written.events.put(event.head.as_ref().map(|head| head.sha.as_str()));
        written.events.put(number.map(|number| number.cast_signed()));
        written.events.put(nanos(self.now));
        written.events.put(json(&event)?);

        let id = self.db.next_serial().await?;
        written.work.put(id);
        written.work.put(Stage::Match as i64);
        written.work.put(event.tenant.as_str());
        written.work.put(json(&WorkKey::event(event.key.clone()))?);
        written.work.put("null");
        written.work.put(None::<i64>);
        written.work.put(nanos(self.now));
        written.work.put(0_i64);
        written.work.put(0_i64);
        self.stages.insert(Stage::Match);
        Ok(event)
    }

    async fn record(
        &mut self,
        candidate: &Candidate<'_>,
        admitted: &Admitted,
        written: &mut Written,
    ) -> Done<()> {
        let observation = candidate.observation;
        let duplicate = match admitted {
            Admitted::Duplicate { reason } => Some(reason.as_str()),
            _ => None,
        };
        let id = self.db.next_serial().await?;
        let row = &mut written.observations;
        row.put(id);
        row.put(observation.tenant.as_str());
        row.put(observation.repo.connection.as_str());
        row.put(observation.repo.id.as_str());
        row.put(&*observation.repo.name);
        row.put(observation.source.as_str());
        row.put(observation.delivery.as_str());
        row.put(candidate.subject.as_str());
        row.put(candidate.state.as_str());
        row.put(admitted.event().map(|event| event.key.as_str()));
        row.put(duplicate);
        row.put(nanos(self.now));
        Ok(())
    }

    async fn write(
        &mut self,
        candidates: &[Candidate<'_>],
        found: &Found,
        written: Written,
    ) -> Done<()> {
        let mut subjects = Rows::new(7);
        let mut done = vec![false; found.subjects.len()];
        for candidate in candidates {
            let (Some(subject), Some(done)) =
                (found.subjects.get(candidate.slot), done.get_mut(candidate.slot))
            else {
                continue;
            };
            if let Subject { id: Some(id), recorded: Some(recorded), changed: true } = subject
                && !std::mem::replace(done, true)
            {
                subjects.put(*id);
                subjects.put(candidate.observation.tenant.as_str());
                subjects.put(candidate.observation.repo.id.as_str());
                subjects.put(candidate.subject.as_str());
                subjects.put(recorded.state.as_str());
                subjects.put(recorded.changed);
                subjects.put(recorded.updated_at.map(nanos));
            }
        }
        let db = &mut self.db;
        let all = "WHERE w.column1 IS NOT NULL";
        written
            .deliveries
            .insert(db, "INSERT INTO deliveries (id, hash, at) SELECT * FROM", all)
            .await?;
        written
            .observations
            .insert(
                db,
                "INSERT INTO observations (id, tenant, connection, repo, repo_name, source, \
                 delivery, subject, state, event, duplicate, received_at) SELECT * FROM",
                all,
            )
            .await?;
        subjects
            .insert(
                db,
                "INSERT INTO subjects (id, tenant, repo, subject, state, changed, updated_at) \
                 SELECT * FROM",
                "WHERE w.column1 IS NOT NULL ON CONFLICT (id) DO UPDATE SET \
                 state = excluded.state, changed = excluded.changed, \
                 updated_at = excluded.updated_at",
            )
            .await?;
        written
            .arrivals
            .insert(
                db,
                "INSERT INTO arrivals (subject, state, sequence, times, at, kind) SELECT * FROM",
                all,
            )
            .await?;
        written
            .events
            .insert(
                db,
                "INSERT INTO events (sequence, key, tenant, repo, kind, subject, head, \
                 pull_request, received_at, body) SELECT * FROM",
                all,
            )
            .await?;
        written
            .payloads
            .insert(
                db,
                "INSERT INTO payloads (id, tenant, size, received_at, headers, body) SELECT * FROM",
                all,
            )
            .await?;
        written
            .work
            .insert(
                db,
                "INSERT INTO work (id, stage, tenant, key, detail, due, since, attempts, token) \
                 SELECT * FROM",
                all,
            )
            .await?;
        for (subject, state) in written.passed {
            query(
                "INSERT INTO arrivals (subject, state, sequence, times, at, kind) \
                 SELECT $1, $2, $3, 0, $4, $5 WHERE NOT EXISTS \
                 (SELECT 1 FROM arrivals WHERE subject = $1 AND state = $2)",
            )
            .bind(subject)
            .bind(state)
            .bind(self.db.sequence())
            .bind(nanos(self.now))
            .bind(PASSED)
            .execute(&mut self.db)
            .await?;
        }
        for (tenant, bytes) in written.bytes {
            let stored = self.db.stored_bytes(&tenant).await? + bytes;
            let stored = self.drop_payloads_over(&tenant, stored).await?;
            self.db.set_stored_bytes(&tenant, stored).await?;
        }
        Ok(())
    }

    /// Drops a tenant's oldest payloads until its sum is within the limit; returns the sum.
    async fn drop_payloads_over(&mut self, tenant: &Tenant, mut stored: u64) -> Done<u64> {
        while stored > self.limits.max_stored_payload_bytes {
            let oldest =
                query("SELECT id, size FROM payloads WHERE tenant = $1 ORDER BY id LIMIT 1")
                    .bind(tenant.as_str())
                    .fetch_optional(&mut self.db)
                    .await?;
            let Some(oldest) = oldest else { break };
            query("DELETE FROM payloads WHERE id = $1")
                .bind(oldest.try_get::<i64>(0)?)
                .execute(&mut self.db)
                .await?;
            stored = stored.saturating_sub(oldest.try_get::<i64>(1)?.unsigned_abs());
        }
        Ok(stored)
    }

    pub(crate) async fn check_cursor(&mut self, one: &CursorMove) -> Done<Result<()>> {
        let present: Option<String> =
            query("SELECT value FROM cursors WHERE tenant = $1 AND name = $2")
                .bind(one.tenant.as_str())
                .bind(&one.name)
                .value(&mut self.db)
                .await?;
        if present != one.from {
            return Ok(Err(cursor_conflict(one)));
        }
        Ok(Ok(()))
    }

    pub(crate) async fn move_cursor(&mut self, one: &CursorMove) -> Done<()> {
        query(
            "INSERT INTO cursors (tenant, name, value) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value",
        )
        .bind(one.tenant.as_str())
        .bind(&one.name)
        .bind(&one.to)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }
}

/// The names of the cursors that admissions move.
fn cursors(asks: &[&Ask]) -> BTreeSet<String> {
    let moves = asks.iter().filter_map(|ask| match ask {
        Ask::Admit { cursor, .. } => cursor.as_ref(),
        _ => None,
    });
    moves.map(locks::cursor).collect()
}

fn cursor_conflict(one: &CursorMove) -> Error {
    Error::conflict("move a cursor", "it is not where the move begins; read it again")
        .with("tenant", &one.tenant)
        .with("cursor", &one.name)
}

pub(crate) fn delivery_hash(observation: &Observation, subject: &SubjectKey) -> DeliveryHash {
    let parts = [
        observation.tenant.as_str(),
        observation.source.as_str(),
        observation.repo.id.as_str(),
        observation.delivery.as_str(),
        subject.as_str(),
    ];
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut hash = DeliveryHash::default();
    for (to, from) in hash.iter_mut().zip(hasher.finalize()) {
        *to = from;
    }
    hash
}
