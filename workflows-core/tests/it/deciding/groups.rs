//! Which run of a group is the newest, and who goes on when others leave.

use workflows_core::{CommitId, Run, RunState, Store, Tenant, engine::Command};

use super::world::{World, workflow};

#[tokio::test]
async fn what_is_chained_to_a_late_push_is_late_as_well() {
    let world = World::with(&workflow(
        "ci",
        "\n  triggers: [{ name: push, on: push, branches: [main] }]\n  concurrency: [{ group: main, \
         strategy: replace }]",
    ));
    world.hears(world.repo.push("alice", "main", &[("a", "0")])).await;
    let pushes = ["1", "2", "3", "4"].map(|text| world.repo.push("alice", "main", &[("a", text)]));
    let newest = world.repo.head("main");
    let position = world.store.position().await.unwrap();
    let read = world.repo.read_ref("refs/heads/main", position);
    world.store.admit(vec![read], None).await.unwrap();
    // The host tells late of two in the middle: of the first nobody knows where it belongs, and the
    // second is chained to it.
    let late = pushes[1..3].to_vec();
    let admitted = world.store.admit(late, None).await.unwrap();
    let unchained: Vec<bool> =
        admitted.iter().map(|one| one.event().expect("an event").unchained).collect();
    assert_eq!(unchained, [true, false]);
    world.settles().await;
    let runs = world.runs().await;
    let of = |commit: &CommitId| -> Option<&Run> {
        runs.iter().find(|run| run.commit.as_ref() == Some(commit))
    };
    assert_eq!(of(&newest).map(|run| run.state), Some(RunState::Running));
    let [first, chained] = [0, 1].map(|which| {
        let event = admitted[which].event().unwrap();
        of(&event.head.as_ref().unwrap().sha).map(|run| run.state)
    });
    assert_eq!(first, None, "the repository says that the branch has moved on");
    assert_eq!(chained, Some(RunState::Superseded));
    let subjects = world
        .store
        .subjects(&Tenant::default(), &world.repo.reference().id, "refs/heads/main")
        .await
        .unwrap();
    assert_eq!(subjects[0].1.state, newest.as_str(), "the ledger knows where the branch stands");
}

#[tokio::test]
async fn clearing_a_queue_wakes_who_waited_behind_its_members_in_another_one() {
    let queue = |name: &str, groups: &[&str]| {
        let groups: Vec<String> = groups
            .iter()
            .map(|group| format!("{{ group: {group}, shared: true, strategy: queue }}"))
            .collect();
        workflow(
            name,
            &format!(
                "\n  triggers: [{{ name: push, on: push, branches: ['{name}/*'] }}]\n  \
                 concurrency: [{}]",
                groups.join(", ")
            ),
        )
    };
    let documents = [
        queue("both", &["lock", "machine"]),
        queue("lock", &["lock"]),
        queue("machine", &["machine"]),
    ];
    let world = World::with(&documents.join("---\n"));
    for branch in ["lock/a", "both/b", "both/c", "machine/d"] {
        world.hears(world.repo.push("alice", branch, &[(branch, "1")])).await;
    }
    let states = async || -> Vec<RunState> { world.runs().await.iter().map(|r| r.state).collect() };
    let waiting = RunState::Queued;
    assert_eq!(states().await, [RunState::Running, waiting, waiting, waiting]);
    let lock = world.runs().await[0].groups[0].group.clone();
    let clear = Command::ClearQueue { group: lock };
    world.hears(clear.observed(Tenant::default(), Command::engine_repo(), "c", "ops")).await;
    assert_eq!(
        states().await,
        [RunState::Running, RunState::Expired, RunState::Expired, RunState::Running]
    );
}
