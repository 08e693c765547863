//! Whatever is done to them in whatever order, the ledger in SQLite and the one in memory say the
//! same.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use workflows_core::{
    CommitId, Observation, RepoRef, RunKey, SubjectClaim, Tenant,
    event::{Before, RefClaim, Seen, SubjectKey},
    store::{
        Claim, ClaimRequest, CursorMove, Effects, NewWork, Release, SqliteOptions, SqliteStore,
        Stage, WorkKey,
    },
};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Admit { tenant: u8, told: Vec<Told>, cursor: Option<(u8, u8)> },
    Claim { stage: bool, limit: u32, seconds: i64 },
    Commit { claim: usize, work: Vec<(u8, u8, i64)>, again: Option<i64>, next: bool },
    Release { claim: usize, seconds: Option<i64> },
    Extend { claim: usize, seconds: i64 },
    Pass { seconds: i64 },
}

#[derive(Debug, Clone)]
struct Told {
    branch: u8,
    before: u8,
    after: u8,
    delivery: u8,
    seen: u8,
}

fn told() -> impl Strategy<Value = Told> {
    (0..3_u8, 0..4_u8, 0..4_u8, 0..40_u8, 0..6_u8).prop_map(
        |(branch, before, after, delivery, seen)| Told { branch, before, after, delivery, seen },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, prop::collection::vec(told(), 1..4), prop::option::of((0..3_u8, 0..3_u8)))
            .prop_map(|(tenant, told, cursor)| Step::Admit { tenant, told, cursor }),
        4 => (any::<bool>(), 0..5_u32, 1..30_i64)
            .prop_map(|(stage, limit, seconds)| Step::Claim { stage, limit, seconds }),
        3 => (
            any::<usize>(),
            prop::collection::vec((0..3_u8, 0..4_u8, -1..20_i64), 0..3),
            prop::option::of(-5..20_i64),
            any::<bool>(),
        )
            .prop_map(|(claim, work, again, next)| Step::Commit { claim, work, again, next }),
        2 => (any::<usize>(), prop::option::of(-5..20_i64))
            .prop_map(|(claim, seconds)| Step::Release { claim, seconds }),
        1 => (any::<usize>(), 1..30_i64)
            .prop_map(|(claim, seconds)| Step::Extend { claim, seconds }),
        2 => prop_oneof![0..25_i64, -50..0_i64].prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn tenant(number: u8) -> Tenant {
    Tenant::new(format!("tenant-{number}")).expect("a tenant's name")
}

fn commit(number: u8) -> Option<CommitId> {
    format!("{number:040x}").parse().ok().filter(|_| number > 0)
}

fn observation(of: u8, told: &Told, position: i64) -> Observation {
    let repo = RepoRef { connection: "host".into(), id: "1".into(), name: "acme/api".into() };
    let (seen, before) = match told.seen {
        0 => (Seen::Read { as_of: position }, Before::Unknown),
        1 => (Seen::Read { as_of: position / 2 }, Before::Unknown),
        2 => (Seen::Baseline { as_of: position }, Before::Unknown),
        _ => (Seen::Told, Before::Was(commit(told.before))),
    };
    let name = format!("refs/heads/{}", told.branch).into();
    let claim = RefClaim { name, after: commit(told.after), before, forced: None };
    let delivery = told.delivery.to_string();
    let claim = SubjectClaim::Ref(claim);
    Observation::new(tenant(of), repo, "webhook".into(), delivery.into(), seen, claim)
}

/// What is said of a claim, without the numbers that each ledger makes for itself.
fn shown(claims: &[Claim]) -> String {
    let all: Vec<_> = claims
        .iter()
        .map(|claim| {
            (&claim.work, claim.attempts, claim.since, claim.lease.until, &claim.last_error)
        })
        .collect();
    format!("{all:?}")
}

struct Side {
    store: Arc<dyn Store>,
    claims: Vec<Claim>,
}

impl Side {
    async fn take(&mut self, step: &Step, now: Timestamp) -> String {
        let in_seconds = |seconds| now + SignedDuration::from_secs(seconds);
        let lease = |claims: &[Claim], index: usize| {
            let index = index.checked_rem(claims.len())?;
            claims.get(index).map(|claim| claim.lease.clone())
        };
        match step {
            Step::Admit { tenant: of, told, cursor } => {
                let position = self.store.position().await.expect("a position");
                let cursor = cursor.map(|(from, to)| CursorMove {
                    tenant: tenant(*of),
                    name: "poll".into(),
                    from: (from > 0).then(|| from.to_string()),
                    to: to.to_string(),
                });
                let told = told.iter().map(|told| observation(*of, told, position)).collect();
                let result = self.store.admit(told, cursor).await;
                format!("{:?}", result.map_err(|error| error.kind()))
            }
            Step::Claim { stage, limit, seconds } => {
                let stage = if *stage { Stage::Match } else { Stage::Observe };
                let request =
                    ClaimRequest::of(stage, *limit).leased_for(SignedDuration::from_secs(*seconds));
                let claimed = self.store.claim(request).await.expect("claims");
                let said = format!("{} {:?}", shown(&claimed.claims), claimed.next_due);
                self.claims.extend(claimed.claims);
                said
            }
            Step::Commit { claim, work, again, next } => {
                let Some(lease) = lease(&self.claims, *claim) else { return String::new() };
                let work = work.iter().map(|(of, run, seconds)| {
                    let key = WorkKey::run(RunKey::from(run.to_string()));
                    let not_before = (*seconds > 0).then(|| in_seconds(*seconds));
                    let detail = serde_json::json!(seconds);
                    NewWork { not_before, ..NewWork::now(tenant(*of), Stage::Observe, key) }
                        .with_detail(detail)
                });
                let effects = Effects {
                    work: work.collect(),
                    again: again.map(in_seconds),
                    claim_next: next.then(|| SignedDuration::from_secs(9)),
                    ..Effects::default()
                };
                match self.store.commit(&lease, effects).await {
                    Ok(committed) => {
                        let said = shown(&committed.claims);
                        self.claims.extend(committed.claims);
                        said
                    }
                    Err(error) => format!("{:?}", error.kind()),
                }
            }
            Step::Release { claim, seconds } => {
                let Some(lease) = lease(&self.claims, *claim) else { return String::new() };
                let error = seconds.map(|seconds| format!("wait {seconds}"));
                let release = Release { not_before: seconds.map(in_seconds), error };
                let result = self.store.release(&lease, release).await;
                format!("{:?}", result.map_err(|error| error.kind()))
            }
            Step::Extend { claim, seconds } => {
                let Some(lease) = lease(&self.claims, *claim) else { return String::new() };
                let result = self.store.extend(&lease, SignedDuration::from_secs(*seconds)).await;
                format!("{:?}", result.map(|lease| lease.until).map_err(|error| error.kind()))
            }
            Step::Pass { .. } => String::new(),
        }
    }

    async fn state(&self) -> String {
        // Whoever asks for work looks at the clock, and ends leases of the future.
        let nothing = self.store.claim(ClaimRequest::of(Stage::Match, 0)).await;
        nothing.expect("no claims");
        let mut state = format!("{:?}", self.store.backlog().await.expect("a backlog"));
        for number in 0..3 {
            let subjects = self.store.subjects(&tenant(number), &"1".into(), "refs/").await;
            state += &format!("{:?}", subjects.expect("subjects"));
            for branch in 0..3 {
                let subject = SubjectKey::reference(&format!("refs/heads/{branch}"));
                let arrivals = self
                    .store
                    .arrivals(&tenant(number), &"1".into(), &subject, Timestamp::MAX, 100)
                    .await;
                state += &format!("{:?}", arrivals.expect("arrivals"));
            }
        }
        state
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_says_what_memory_says(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(400_000);
            let clock = ManualClock::at(start);
            let shared = || Arc::new(clock.clone());
            let options = SqliteOptions::default();
            let sqlite = SqliteStore::open_in_memory(options, shared()).await.expect("it opens");
            let mut memory =
                Side { store: Arc::new(MemoryStore::new(shared())), claims: Vec::new() };
            let mut sqlite = Side { store: Arc::new(sqlite), claims: Vec::new() };
            for step in &steps {
                if let Step::Pass { seconds } = step {
                    clock.advance(SignedDuration::from_secs(*seconds));
                }
                let now = workflows_core::Clock::now(&clock);
                prop_assert_eq!(
                    memory.take(step, now).await,
                    sqlite.take(step, now).await,
                    "{:?}", step
                );
            }
            prop_assert_eq!(memory.state().await, sqlite.state().await);
            Ok(())
        })?;
    }
}
