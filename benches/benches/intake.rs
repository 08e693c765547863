//! Intake: bytes in, verified, decoded, stored, answered; 64 senders.
//!
//! ```text
//! taskset -c 0 cargo bench -p workflows-benches --bench intake
//! ```
//!
//! Everything (senders, verification, the writer and SQLite's own thread) shares the cores that the
//! process may use; `taskset` makes that one.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use secrecy::SecretString;
use serde::Deserialize;
use workflows_core::{
    Observation, RepoRef, Store, SubjectClaim, SystemClock, Tenant, Verified,
    event::{Before, Payload, RefClaim, Seen},
    store::{SqliteOptions, SqliteStore},
};
use workflows_scm::webhook::{sign_sha256, verify_sha256};

const SENDERS: usize = 64;

struct Request {
    delivery: String,
    signature: String,
    body: Bytes,
}

/// What a push says, as far as intake needs it.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    repository: Repository,
    sender: Sender,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
    full_name: String,
}

#[derive(Deserialize)]
struct Sender {
    login: String,
}

fn main() {
    println!("cores: {}", std::thread::available_parallelism().map_or(0, usize::from));
    println!("fsyncs of 4 KiB: {:.0}/s", syncs_per_second());
    println!(
        "{:>8} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "bytes", "requests", "per second", "p50 ms", "p99 ms", "max ms"
    );
    for (bytes, each) in [(2 << 10, 1_000), (24 << 10, 200)] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (taken, mut times) = runtime.block_on(intake(bytes, each));
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() - 1) as f64 * share) as usize;
            times[index].as_secs_f64() * 1e3
        };
        println!(
            "{bytes:>8} {:>9} {:>10.0} {:>9.2} {:>9.2} {:>9.2}",
            times.len(),
            times.len() as f64 / taken.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }
}

async fn intake(bytes: usize, each: usize) -> (Duration, Vec<Duration>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let store = SqliteStore::open(path, SqliteOptions::default(), Arc::new(SystemClock))
        .await
        .expect("the ledger opens");
    let store = Arc::new(store);
    let secrets: Arc<[SecretString]> = Arc::new([SecretString::from("a secret of some length")]);
    let requests: Vec<Vec<Request>> = (0..SENDERS)
        .map(|sender| (0..each).map(|turn| request(sender, turn, bytes, &secrets[0])).collect())
        .collect();

    let started = Instant::now();
    let senders: Vec<_> = requests
        .into_iter()
        .map(|requests| {
            let (store, secrets) = (Arc::clone(&store), Arc::clone(&secrets));
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(requests.len());
                for request in requests {
                    let asked = Instant::now();
                    answer(&*store, &secrets, request).await;
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for sender in senders {
        times.extend(sender.await.expect("a sender ends"));
    }
    let taken = started.elapsed();
    store.close().await;
    (taken, times)
}

/// What a receiver does with a request, up to the answer.
async fn answer(store: &dyn Store, secrets: &[SecretString], request: Request) {
    let Request { delivery, signature, body } = request;
    let verified = verify_sha256(body, Some(&signature), secrets).expect("it is signed");
    let observation = decode(&delivery, &verified);
    let admitted = store.admit(vec![observation], None).await.expect("it is stored");
    assert!(admitted.iter().all(|one| one.event().is_some()), "every push is news");
}

fn decode(delivery: &str, verified: &Verified) -> Observation {
    let push: Push = serde_json::from_slice(verified.body()).expect("it is a push");
    let repo = RepoRef {
        connection: "github".into(),
        id: push.repository.id.to_string().into(),
        name: push.repository.full_name.into(),
    };
    let before = push.before.parse().ok().filter(|_| !push.before.starts_with("00000000"));
    let claim = RefClaim {
        name: push.reference.into(),
        after: Some(push.after.parse().expect("a commit")),
        before: Before::Was(before),
        forced: None,
    };
    let headers = [("x-github-event", "push"), ("x-github-delivery", delivery)];
    Observation::new(
        Tenant::default(),
        repo,
        "webhook".into(),
        delivery.into(),
        Seen::Told,
        SubjectClaim::Ref(claim),
    )
    .by(push.sender.login)
    .with_payload(Payload::new(headers, verified.body().clone()))
}

/// The turn's push of a sender to a branch of its own.
fn request(sender: usize, turn: usize, bytes: usize, secret: &SecretString) -> Request {
    let commit =
        |turn: usize| format!("{:040x}", if turn == 0 { 0 } else { (sender + 1) << 32 | turn });
    let mut push = serde_json::json!({
        "ref": format!("refs/heads/branch-{sender}"),
        "before": commit(turn),
        "after": commit(turn + 1),
        "repository": { "id": 7_000 + sender % 10, "full_name": format!("acme/api-{}", sender % 10) },
        "sender": { "login": "ada" },
        "commits": [],
    });
    let mut commits = Vec::new();
    while serde_json::to_string(&push).map_or(0, |text| text.len()) + commits.len() * 330 + 330
        < bytes
    {
        commits.push(serde_json::json!({
            "id": commit(turn + 1),
            "message": "Make the thing do what the thing should do, and say why in more than one line",
            "timestamp": "2026-01-02T03:04:05Z",
            "author": { "name": "Ada", "email": "ada@example.com", "username": "ada" },
            "added": ["src/one.rs"], "removed": [], "modified": ["src/two.rs", "src/three.rs"],
        }));
    }
    push["commits"] = commits.into();
    let short = bytes.saturating_sub(push.to_string().len() + 12);
    push["pad"] = "x".repeat(short).into();
    let body = Bytes::from(push.to_string());
    let signature = sign_sha256(secret, &body);
    Request { delivery: format!("{sender}-{turn}"), signature, body }
}

/// How often the disk that the ledgers are on makes a write of 4 KiB durable.
fn syncs_per_second() -> f64 {
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = File::create(directory.path().join("synced")).expect("a file");
    let page = [7_u8; 4096];
    let mut count: u64 = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        file.seek(SeekFrom::Start(count % 1_000 * 4096)).expect("it seeks");
        file.write_all(&page).expect("it writes");
        file.sync_data().expect("it syncs");
        count += 1;
    }
    count as f64 / started.elapsed().as_secs_f64()
}
