//! Processes that a step leaves behind end with it.

use std::{fs, io::Write, path::Path};

use serde_json::json;
use workflows_core::RunPhase;

use super::bench::{Bench, assert_phase, pipeline, processes_below, read_pipe, task, write_pipe};

#[tokio::test]
async fn without_control_groups_what_sheds_two_of_the_three_signs_is_killed() {
    let bench = Bench::with(|builder| builder.without_control_groups()).await;
    let leave = |how: &str| format!("{how} > /dev/null 2>&1 &\n");
    let mark = bench.directory.path().display().to_string();
    // In the group; out of it; out of it without its environment; out of it without the lock.
    let script = [
        leave(&format!("sh -c 'sleep 1000; : {mark}'")),
        leave(&format!("setsid sh -c 'sleep 1001; : {mark}'")),
        leave(&format!("setsid env -i sh -c 'sleep 1002; : {mark}'")),
        leave(&format!("setsid sh -c 'exec 0<&- 9<&-; sleep 1003; : {mark}'")),
    ]
    .concat();
    assert_phase(&bench.run(pipeline(json!([task("a", &script)]))).await, RunPhase::Succeeded);
    assert_eq!(processes_below(bench.directory.path()), [] as [&str; 0]);
}

/// Starts a daemon that sheds all that a step's processes inherit: the process group and the session,
/// the environment, the descriptors, the directory, the parent. It tells its number and stays.
fn daemon(bench: &Bench, told: &Path) -> String {
    let file = bench.path("daemon");
    let told = told.display();
    let text = format!(
        "cd /\nexec 0</dev/null 1>/dev/null 2>/dev/null 9<&-\n\
         (exec /bin/sh -c 'echo $$ > {told}; exec sleep 1004') &\n"
    );
    fs::write(&file, text).unwrap();
    format!("setsid env -i /bin/sh {} &\n", file.display())
}

/// Whether a process lives; one that has ended and that nobody has waited for does not.
fn lives(number: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// Whether what follows can be tested; where it must be, a machine that cannot is a failure.
fn there_are_control_groups(bench: &Bench) -> bool {
    let there_are = bench.sink.has_control_groups();
    if !there_are {
        let message = "this process may not make control groups (cgroup v2)";
        let may_skip = std::env::var("WORKFLOWS_TESTS_MAY_SKIP").as_deref() != Ok("0");
        assert!(may_skip, "{message}");
        // Around what captures the output of tests that pass.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {message}");
    }
    there_are
}

#[tokio::test]
async fn a_daemon_that_sheds_everything_ends_with_its_step() {
    let bench = Bench::new().await;
    if !there_are_control_groups(&bench) {
        return;
    }
    let (told, go) = (bench.pipe("told"), bench.pipe("go"));
    let script = format!("{}read x < {}", daemon(&bench, &told), go.display());
    let run = bench.ensure("k", pipeline(json!([task("a", &script)]))).await;
    let number = read_pipe(&told).await;
    assert!(lives(&number), "{number}");
    write_pipe(&go, "go\n").await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    assert!(!lives(&number), "{number}");
}

#[tokio::test]
async fn a_daemon_of_a_step_that_was_taken_up_ends_with_it() {
    let bench = Bench::new().await;
    if !there_are_control_groups(&bench) {
        return;
    }
    let (told, go) = (bench.pipe("told"), bench.pipe("go"));
    let script = format!("{}read x < {}", daemon(&bench, &told), go.display());
    let run = bench.ensure("k", pipeline(json!([task("a", &script)]))).await;
    let number = read_pipe(&told).await;
    let bench = bench.reopen().await;
    assert!(lives(&number), "{number}");
    write_pipe(&go, "go\n").await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    assert!(!lives(&number), "{number}");
}
