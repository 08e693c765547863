//! What is kept of logs.

use std::os::unix::fs::MetadataExt;

use futures::StreamExt;
use serde_json::json;
use workflows_core::{LogRef, RunPhase, RunSink};

use super::bench::{Bench, assert_phase, pipeline, task};

/// A step that writes so many numbered lines of 64 bytes, the number first.
fn writer(lines: usize) -> String {
    format!("i=0; while [ $i -lt {lines} ]; do printf '%063d\\n' $i; i=$((i+1)); done")
}

/// The mark that says how much is missing, and what stands around it.
fn taken_apart(log: &str) -> (&str, usize, &str) {
    let (head, rest) = log.split_once("\n[").expect("there is a mark");
    let (number, tail) = rest.split_once(" bytes of this log were left out]\n").unwrap();
    (head, number.parse().unwrap(), tail)
}

#[tokio::test]
async fn a_long_log_keeps_its_beginning_and_its_end_and_says_what_is_missing() {
    const LINES: usize = 20_000;
    let bench = Bench::with(|builder| builder.max_step_log(256 << 10)).await;
    let run = bench.ensure("k", pipeline(json!([task("a", &writer(LINES))]))).await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);

    let log = bench.log(&run, "a", "main").await;
    let (head, missing, tail) = taken_apart(&log);
    assert!(head.starts_with(&format!("{:063}\n{:063}\n", 0, 1)));
    assert!(tail.ends_with(&format!("{:063}\n{:063}\n", LINES - 2, LINES - 1)));
    assert_eq!(head.len() + missing + tail.len(), LINES * 64);
    assert!(head.len() + tail.len() <= 256 << 10);
    assert!(!log.contains('\0'));

    let file = bench.sink.run_directory(&run.key).join("tasks/a/0/steps/main/log");
    let on_disk = std::fs::metadata(&file).unwrap().blocks() * 512;
    assert!(on_disk <= 256 << 10, "{on_disk} bytes on the disk");

    let step = LogRef { task: "a".into(), step: "main".into() };
    let logs = bench.sink.logs().unwrap();
    let short = logs.tail(&run, &step, 128).await.unwrap();
    assert_eq!(short, format!("{:063}\n{:063}\n", LINES - 2, LINES - 1));
    let long = logs.tail(&run, &step, 200 << 10).await.unwrap();
    let long = String::from_utf8(long.to_vec()).unwrap();
    assert_eq!(taken_apart(&long).1, missing);
    assert!(log.ends_with(&long));
}

#[tokio::test]
async fn who_follows_a_log_gets_each_line_or_is_told_how_many_bytes_it_missed() {
    const LINES: usize = 20_000;
    let bench = Bench::with(|builder| builder.max_step_log(64 << 10)).await;
    let run = bench.ensure("k", pipeline(json!([task("a", &writer(LINES))]))).await;
    let step = LogRef { task: "a".into(), step: "main".into() };
    let mut stream = bench.sink.logs().unwrap().stream(&run, &step, true);
    let mut log = Vec::new();
    while let Some(piece) = stream.next().await {
        log.extend_from_slice(&piece.unwrap());
    }
    let mut log = &*String::from_utf8(log).unwrap();
    let mut all = 0;
    while log.contains("bytes of this log were left out") {
        let (head, missing, tail) = taken_apart(log);
        all += head.len() + missing;
        log = tail;
    }
    assert_eq!(all + log.len(), LINES * 64);
}

#[tokio::test]
async fn the_logs_of_a_run_have_a_limit_together() {
    let bench = Bench::with(|builder| builder.max_step_log(1 << 20).max_run_logs(256 << 10)).await;
    let spec = pipeline(json!([
        task("a", &writer(6_000)),
        {"name": "b", "runAfter": ["a"], "taskSpec": {"steps": [
            {"name": "main", "script": writer(6_000)},
        ]}},
    ]));
    let run = bench.ensure("k", spec).await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    let lengths = [bench.log(&run, "a", "main").await, bench.log(&run, "b", "main").await]
        .map(|log| log.len());
    // A step that is looked at when they are over it keeps its beginning and its end.
    assert!(lengths.iter().sum::<usize>() <= (256 + 64) << 10, "{lengths:?}");
}
