//! Told to stop while somebody listens.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use workflows_kube_standin::{Fault, Subject};

use crate::deployed::{TEAM, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_somebody_follows_does_not_keep_it_from_ending() {
    let world = World::new().await;
    let looks = json!({
        "apiGroups": ["workflows.tekton.dev"], "resources": ["runs/log"], "verbs": ["get"],
    });
    world.cluster.token("alices-token", "alice", &[]);
    world.cluster.bind(Subject::User("alice".to_owned()), Some(TEAM), &[looks]);
    let ledger = world.directory.path().join("ledger.db");
    let settings = [("LEDGER_FILE", ledger.to_str().unwrap()), ("GRACE_SECONDS", "1")];
    let process = world.start_with("one", world.port, &settings);
    process.ready().await;
    let commit = world.repo.push("main", &[("a", "1")]);
    let run = world.cluster.until("a run", |_| world.tekton.under_way().pop()).await;
    assert_eq!(world.runs_of(&commit), 1);
    let name = run["metadata"]["name"].as_str().unwrap();
    let key = run["metadata"]["annotations"]["workflows.tekton.dev/run-key"].as_str().unwrap();
    world.tekton.start(TEAM, name);
    let pod = format!("{name}-a-pod");
    world.cluster.log(TEAM, &pod, "step-s", "it has begun\n");

    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", process.api)).await.unwrap();
    let request = format!(
        "GET /v1/namespaces/{TEAM}/runs/{key}/log?task=a&step=s&follow=true HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer alices-token\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = String::new();
    while !heard.contains("it has begun") {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
        let read = read.expect("the log is told").unwrap();
        assert!(read > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let told = Instant::now();
    let ended = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    assert!(ended, "it ends well\n{}", world.logs());
    assert!(told.elapsed() < Duration::from_secs(20), "it took {:?}", told.elapsed());
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_done_and_the_probes_say_that_no_more_is_taken() {
    let world = World::new().await;
    let ledger = world.directory.path().join("ledger.db");
    let process = world.start("one", world.port, ("LEDGER_FILE", ledger.to_str().unwrap()));
    process.ready().await;
    let creates = || {
        let requests = world.cluster.requests();
        let is_one =
            |(method, path): &&(String, String)| method == "POST" && path.contains("/pipelineruns");
        requests.iter().filter(is_one).count()
    };
    world.cluster.fail("POST /apis/tekton.dev", 1, Fault::Slow(Duration::from_secs(3)));
    let commit = world.repo.push("main", &[("a", "1")]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while creates() == 0 {
        assert!(Instant::now() < deadline, "no run is created\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.signal(rustix::process::Signal::TERM);
    while process.get("/readyz").await.as_deref() != Some("503") {
        assert!(Instant::now() < deadline, "it does not say that it stops\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = process.answer("/readyz").await;
    assert!(answer.is_some_and(|answer| answer.contains("it was told to stop")));
    let ended = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    assert!(ended, "it ends well\n{}", world.logs());
    assert_eq!(world.runs_of(&commit), 1, "the run was created");
}
