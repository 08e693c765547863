//! What can be said on the command line.

use std::path::PathBuf;

use clap::Parser;

/// Shows what Workflows does: commits become runs, statuses, notifications and a record.
///
/// Without options it makes a small repository of its own and shows what comes of a few pushes.
/// With --repo it watches yours until it is interrupted, and goes on where it stopped when it is
/// started again. Runs are processes of this machine: it executes code from the repository.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
pub(crate) struct Settings {
    /// A repository to watch: a path, a URL over https that anybody may read, or one over ssh, which
    /// is reached as `ssh` reaches it for you. It executes the code that the repository's workflows
    /// name, on this machine.
    #[arg(long, value_name = "URL-OR-PATH")]
    pub(crate) repo: Option<String>,

    /// The branches to watch, as a glob such as 'release/*'; all when left out.
    #[arg(long, value_name = "GLOB", requires = "repo")]
    pub(crate) branch: Option<String>,

    /// A file with workflows to use instead of those in the repository's .tekton directory.
    #[arg(long, value_name = "FILE", requires = "repo")]
    pub(crate) workflows: Option<PathBuf>,

    /// Where the ledger and the runs are kept. With --repo: a directory of its own for each
    /// repository below the user's state directory when left out.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) state: Option<PathBuf>,

    /// How many steps of runs may execute together.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) steps: usize,
}
