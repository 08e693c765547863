//! The program that is measured: a controller with its ledger in a file, as the example deploys it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use workflows_benches::{cpu, memory};
use workflows_core::{
    Engine, SystemClock,
    store::{SqliteOptions, SqliteStore},
};
use workflows_k8s::{KubernetesSecrets, Namespaces, TektonSink, controller::Controller};

/// The argument by which it is started.
pub(crate) const ROLE: &str = "controller";

/// Runs it at this API server until it is killed. It says where it takes deliveries in once it has
/// read all objects.
pub(crate) async fn run(api: &str, ledger: &str) {
    let mut config = Config::new(api.parse().expect("an address"));
    config.default_retry = false;
    let client = Client::try_from(config).expect("a client without TLS");
    let secrets = Arc::new(KubernetesSecrets::new(client.clone(), Namespaces::same_name()));
    let controller = Controller::builder(client.clone(), secrets.clone()).build();
    let controller = controller.expect("a controller");
    let store = SqliteStore::open(ledger, SqliteOptions::default(), Arc::new(SystemClock)).await;
    let engine = Engine::builder()
        .store(Arc::new(store.expect("the ledger opens")))
        .secrets(secrets)
        .policy(controller.policy())
        .source(controller.source())
        .sink("tekton", Arc::new(TektonSink::new(client, Namespaces::same_name())))
        .build()
        .expect("an engine");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = controller.webhooks();
    tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
    let mut synced = controller.synced();
    tokio::spawn(async move {
        synced.wait_for(|synced| *synced).await.expect("all objects are read");
        println!("http://{address}");
    });
    controller.run(&engine, CancellationToken::new()).await;
}

/// Its process, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    /// Where it takes deliveries in.
    pub(crate) address: String,
}

impl Program {
    /// Starts it, and waits until it has read all objects.
    pub(crate) fn start(api: &str, ledger: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args([ROLE, api, ledger])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let mut address = String::new();
        let said = child.stdout.take().expect("what it says");
        BufReader::new(said).read_line(&mut address).expect("its address");
        Self { child, address: address.trim().to_owned() }
    }

    /// Its resident memory now.
    pub(crate) fn memory(&self) -> u64 {
        memory::resident_of(self.child.id())
    }

    /// The most that it ever was.
    pub(crate) fn most_memory(&self) -> u64 {
        memory::most_resident_of(self.child.id())
    }

    /// The processor time that it has had.
    pub(crate) fn processor_time(&self) -> Duration {
        cpu::spent_by(self.child.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
