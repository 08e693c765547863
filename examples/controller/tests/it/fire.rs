//! Killed at random points, again and again.

use std::time::Duration;

use crate::deployed::World;

/// How often it is killed, unless `WORKFLOWS_KILLS` says otherwise.
const KILLS: u64 = 20;

/// A sequence of numbers that is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_is_lost_or_made_twice_and_every_check_is_concluded() {
    let kills = std::env::var("WORKFLOWS_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: u64 = kills.unwrap_or(KILLS);
    let world = World::new().await;
    let ledger = world.directory.path().join("ledger.db");
    let ledger = ("LEDGER_FILE", ledger.to_str().unwrap());
    let mut dice = Dice(0x5eed_0001);
    // A ledger of its own knows from when on the host's log counts.
    let process = world.start("one", world.port, ledger);
    process.ready().await;
    assert_eq!(process.get("/livez").await.as_deref(), Some("200"));
    let mut process = Some(process);
    let mut commits = Vec::new();
    for round in 0..kills {
        for number in 0..=dice.up_to(2) {
            let branch = format!("b{round}-{number}");
            commits.push(world.repo.push(&branch, &[("a", &branch)]));
        }
        tokio::time::sleep(Duration::from_millis(dice.up_to(600))).await;
        for run in world.tekton.under_way() {
            if dice.up_to(1) == 0 {
                let name = run["metadata"]["name"].as_str().unwrap();
                world.tekton.finish(crate::deployed::TEAM, name, true);
            }
        }
        if let Some(process) = process.take() {
            process.kill();
        }
        process = Some(world.start("one", world.port, ledger));
    }
    let process = process.unwrap();
    process.ready().await;
    world.conclude(&commits).await;
    for commit in &commits {
        assert_eq!(world.runs_of(commit), 1, "{commit} has one run");
    }
    let metrics = process.answer("/metrics").await.unwrap();
    assert!(metrics.contains("workflows_stage_total"), "{metrics}");
    assert!(process.terminate(), "it ends well when it is told to\n{}", world.logs());
}
