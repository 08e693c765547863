//! Intake: bytes in, verified, decoded, stored, answered; 64 senders.
//!
//! ```text
//! taskset -c 0 cargo bench -p workflows-benches --bench intake
//! ```
//!
//! Everything (senders, verification, the writer and SQLite's own thread) shares the cores that the
//! process may use; `taskset` makes that one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use workflows_benches::{
    cpu,
    disk::syncs_per_second,
    push::{Push, Request, decode},
};
use workflows_core::{
    Store, SystemClock,
    store::{SqliteOptions, SqliteStore},
};
use workflows_scm::webhook::verify_sha256;

const SENDERS: usize = 64;

fn main() {
    println!("cores: {}", std::thread::available_parallelism().map_or(0, usize::from));
    println!("fsyncs of 4 KiB: {:.0}/s", syncs_per_second());
    println!(
        "{:>8} {:>9} {:>10} {:>9} {:>9} {:>9} {:>12}",
        "bytes", "requests", "per second", "p50 ms", "p99 ms", "max ms", "CPU us each"
    );
    for (bytes, each) in [(2 << 10, 1_000), (24 << 10, 200)] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (taken, processor, mut times) = runtime.block_on(intake(bytes, each));
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() - 1) as f64 * share) as usize;
            times[index].as_secs_f64() * 1e3
        };
        println!(
            "{bytes:>8} {:>9} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>12.1}",
            times.len(),
            times.len() as f64 / taken.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0),
            processor.as_secs_f64() * 1e6 / times.len() as f64,
        );
    }
}

async fn intake(bytes: usize, each: usize) -> (Duration, Duration, Vec<Duration>) {
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

    let (started, spent_before) = (Instant::now(), cpu::spent());
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
    let (taken, processor) = (started.elapsed(), cpu::spent() - spent_before);
    store.close().await;
    (taken, processor, times)
}

/// What a receiver does with a request, up to the answer.
async fn answer(store: &dyn Store, secrets: &[SecretString], request: Request) {
    let Request { delivery, signature, body } = request;
    let verified = verify_sha256(body, Some(&signature), secrets).expect("it is signed");
    let observation = decode("github".into(), &delivery, &verified);
    let admitted = store.admit(vec![observation], None).await.expect("it is stored");
    assert!(admitted.iter().all(|one| one.event().is_some()), "every push is news");
}

/// The turn's push of a sender to a branch of its own.
fn request(sender: usize, turn: usize, bytes: usize, secret: &SecretString) -> Request {
    let commit =
        |turn: usize| format!("{:040x}", if turn == 0 { 0 } else { (sender + 1) << 32 | turn });
    let push = Push {
        id: &format!("{}", 7_000 + sender % 10),
        repo: &format!("acme/api-{}", sender % 10),
        reference: &format!("refs/heads/branch-{sender}"),
        before: commit(turn),
        after: commit(turn + 1),
    };
    push.request(format!("{sender}-{turn}"), bytes, secret)
}
