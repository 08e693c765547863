//! A small real repository, and pushes to it with real git.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The workflow that the repository defines: one file, edited like any other.
const WORKFLOW: &str = include_str!("repository/.tekton/ci.yaml");
/// The pipeline that it runs.
const PIPELINE: &str = include_str!("repository/.tekton/pipeline.yaml");
/// What its test task executes.
const TEST: &str = include_str!("repository/test.sh");

/// A bare repository that stands for the server's, and a clone of it to push from.
pub(crate) struct Repository {
    origin: PathBuf,
    clone: PathBuf,
}

impl Repository {
    /// Makes both, with a first commit that holds the workflow.
    pub(crate) fn create(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let repository =
            Self { origin: directory.join("origin.git"), clone: directory.join("clone") };
        let origin = repository.origin.display().to_string();
        run_git(directory, &["init", "--quiet", "--bare", "--initial-branch=main", &origin])?;
        run_git(directory, &["clone", "--quiet", &origin, "clone"])?;
        run_git(&repository.clone, &["checkout", "--quiet", "-B", "main"])?;
        repository.write(".tekton/ci.yaml", WORKFLOW)?;
        repository.write(".tekton/pipeline.yaml", PIPELINE)?;
        repository.write("test.sh", TEST)?;
        repository.write("README.md", "# A small project\n")?;
        repository.push("Begin")?;
        Ok(repository)
    }

    /// Where it can be cloned from.
    pub(crate) fn url(&self) -> String {
        self.origin.display().to_string()
    }

    /// Writes a file into the clone.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<(), Box<dyn Error>> {
        let path = self.clone.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(fs::write(path, content)?)
    }

    /// Commits what changed and pushes it. Returns the commit's id.
    pub(crate) fn push(&self, message: &str) -> Result<String, Box<dyn Error>> {
        run_git(&self.clone, &["add", "--all"])?;
        run_git(&self.clone, &["commit", "--quiet", "--message", message])?;
        run_git(&self.clone, &["push", "--quiet", "origin", "main"])?;
        Ok(run_git(&self.clone, &["rev-parse", "HEAD"])?.trim().to_owned())
    }
}

/// Runs git without the user's own configuration, so that the demonstration is the same everywhere.
fn run_git(directory: &Path, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("git could not be started: {error}. Is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("git {} failed: {}", arguments.join(" "), said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
