//! What the controller is told at its start.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

/// Runs Workflows on Tekton, as the custom resources of the cluster say.
#[derive(Debug, Parser)]
pub(crate) struct Settings {
    /// The ledger in SQLite: a file on a volume that no other process uses.
    #[arg(
        long,
        env = "LEDGER_FILE",
        required_unless_present = "postgres_url",
        conflicts_with = "postgres_url"
    )]
    pub(crate) ledger_file: Option<PathBuf>,

    /// The ledger in Postgres, which several replicas share: postgres://USER:PASSWORD@HOST/DATABASE.
    #[arg(long, env = "POSTGRES_URL", hide_env_values = true)]
    pub(crate) postgres_url: Option<String>,

    /// A file of certificates that Postgres is trusted by, in PEM, besides the system's.
    #[arg(long, env = "POSTGRES_CA_FILE", requires = "postgres_url")]
    pub(crate) postgres_ca_file: Option<PathBuf>,

    /// The namespaces whose workflows run, with commas between; all when left out.
    #[arg(long, env = "NAMESPACES", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,

    /// The namespace whose Policies hold for all others, and which may grant them connections and
    /// notifiers. It is always looked at.
    #[arg(long, env = "PLATFORM_NAMESPACE")]
    pub(crate) platform_namespace: Option<String>,

    /// The address at which hosts reach the port for deliveries, such as <https://ci.example.com>.
    #[arg(long, env = "PUBLIC_URL")]
    pub(crate) public_url: Option<String>,

    /// The address of a Tekton Dashboard, for links.
    #[arg(long, env = "DASHBOARD_URL")]
    pub(crate) dashboard_url: Option<String>,

    /// Where deliveries of hosts are taken in.
    #[arg(long, env = "HOOKS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub(crate) hooks_address: SocketAddr,

    /// Where questions are answered, with metrics and probes.
    #[arg(long, env = "API_ADDRESS", default_value = "0.0.0.0:8081")]
    pub(crate) api_address: SocketAddr,

    /// How many seconds what is under way has to come to its end when the controller is told to stop. What
    /// is left then goes on with the next start.
    #[arg(long, env = "GRACE_SECONDS", default_value = "30")]
    pub(crate) grace_seconds: u64,

    /// The name of this replica, which no other one has.
    #[arg(long, env = "POD_NAME")]
    pub(crate) replica: String,

    /// The namespace of the replicas, which has their Lease.
    #[arg(long, env = "POD_NAMESPACE")]
    pub(crate) own_namespace: String,
}
