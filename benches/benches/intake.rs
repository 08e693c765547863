//! Intake: bytes in, verified, decoded, stored, answered; 64 senders. One replica on SQLite, and one,
//! two and four on Postgres.
//!
//! ```text
//! taskset -c 0 cargo bench -p workflows-benches --bench intake
//! ```
//!
//! Everything (senders, verification, the writer and SQLite's own thread) shares the cores that the
//! process may use; `taskset` makes that one. A server of Postgres is started by the process and has
//! the same. Replicas are stores with connections of their own in one process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use workflows_benches::{
    cpu,
    disk::syncs_per_second,
    ledger::{Ledger, Place},
    push::{Push, Request, decode},
    spread::Spread,
};
use workflows_core::Store;
use workflows_scm::webhook::verify_sha256;

const SENDERS: usize = 64;

fn main() {
    println!("cores: {}", std::thread::available_parallelism().map_or(0, usize::from));
    println!("fsyncs of 4 KiB: {:.0}/s", syncs_per_second());
    println!(
        "{:>8} {:>8} {:>8} {:>9} {:>10} {:>9} {:>9} {:>9} {:>12}",
        "ledger",
        "replicas",
        "bytes",
        "requests",
        "per second",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU us each"
    );
    for place in Place::all() {
        let replicas: &[usize] = match place {
            Place::Sqlite(_) => &[1],
            Place::Postgres(_) => &[1, 2, 4],
        };
        for &replicas in replicas {
            for (bytes, each) in [(2 << 10, 1_000), (24 << 10, 200)] {
                measure(&place, replicas, bytes, each);
            }
        }
    }
}

fn measure(place: &Place, replicas: usize, bytes: usize, each: usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (taken, processor, times) = runtime.block_on(intake(place, replicas, bytes, each));
    println!(
        "{place:>8} {replicas:>8} {bytes:>8} {:>9} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>12.1}",
        times.count(),
        times.count() as f64 / taken.as_secs_f64(),
        times.milliseconds(0.5),
        times.milliseconds(0.99),
        times.milliseconds(1.0),
        processor.as_secs_f64() * 1e6 / times.count() as f64,
    );
}

async fn intake(
    place: &Place,
    replicas: usize,
    bytes: usize,
    each: usize,
) -> (Duration, Duration, Spread) {
    let name = format!("intake_{replicas}_{bytes}");
    let mut ledgers: Vec<Ledger> = Vec::new();
    for _ in 0..replicas {
        ledgers.push(place.open(&name).await);
    }
    let secrets: Arc<[SecretString]> = Arc::new([SecretString::from("a secret of some length")]);
    let requests: Vec<Vec<Request>> = (0..SENDERS)
        .map(|sender| (0..each).map(|turn| request(sender, turn, bytes, &secrets[0])).collect())
        .collect();

    let (started, spent_before) = (Instant::now(), cpu::spent());
    let senders: Vec<_> = requests
        .into_iter()
        .enumerate()
        .map(|(sender, requests)| {
            let (store, secrets) = (ledgers[sender % replicas].store(), Arc::clone(&secrets));
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
    for ledger in ledgers {
        ledger.close().await;
    }
    (taken, processor, Spread::of(times))
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
