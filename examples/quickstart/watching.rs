//! The quickstart with a repository of one's own: the program as it is started from a shell.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

mod repository;

use repository::Repository;

/// How long to wait for anything before saying that it does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file for `--workflows`.
const OF_A_FILE: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: of-the-file }
spec:
  triggers: [{ name: push, on: push }]
  pipelineSpec:
    tasks:
    - name: say
      taskSpec: { steps: [{ name: say, image: none, script: 'echo released' }] }
";

/// The example, which cargo has built beside this test when it tests the whole package.
fn program() -> Command {
    let this = std::env::current_exe().unwrap();
    let built = this.parent().unwrap().parent().unwrap().join("examples/quickstart");
    assert!(built.is_file(), "there is no {}: build the example first", built.display());
    let mut program = Command::new(built);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

/// The program while it watches.
struct Watching {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Watching {
    fn start(repo: &str, state: &Path, more: &[&str]) -> Self {
        let mut program = program();
        program.arg("--repo").arg(repo).arg("--state").arg(state).args(more);
        let mut child = program.stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line with all of this.
    fn says(&mut self, parts: &[&str], patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { return false };
            let found = parts.iter().all(|part| line.contains(part));
            self.said.push(line);
            if found {
                return true;
            }
        }
    }

    /// Ends it as Ctrl-C does. Returns all that it said.
    fn interrupt(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.said.extend(self.lines.iter());
        assert!(self.child.wait().unwrap().success());
        self.said.join("\n")
    }
}

/// Pushes until a push is seen: what is there at the first look runs nothing.
fn pushed_and_run(repository: &Repository, watching: &mut Watching) -> String {
    for number in 0..20 {
        repository.write("main.c", &format!("int main(void) {{ return {number}; }}\n")).unwrap();
        let commit = repository.push("Change the program").unwrap();
        if watching.says(&[&commit[..7], "succeeded"], Duration::from_secs(6)) {
            return commit;
        }
    }
    panic!("no push ran anything:\n{}", watching.said.join("\n"));
}

#[test]
fn a_repository_is_watched_until_ctrl_c_and_gone_on_with_where_that_was() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::create(directory.path()).unwrap();
    let state = directory.path().join("state");
    let mut watching = Watching::start(&repository.url(), &state, &[]);
    let first = pushed_and_run(&repository, &mut watching);
    let said = watching.interrupt();
    assert!(said.contains("executed on this machine"), "{said}");
    assert!(said.contains("The archive of the repository:"), "{said}");
    assert!(!said.contains('\u{1b}'), "nobody looks, so there are no colours: {said:?}");

    repository.write("main.c", "int main(void) { return 99; }\n").unwrap();
    let meanwhile = repository.push("Change it while nobody watches").unwrap();
    let mut watching = Watching::start(&repository.url(), &state, &[]);
    assert!(watching.says(&[&meanwhile[..7], "succeeded"], PATIENCE), "{:#?}", watching.said);
    let said = watching.interrupt();
    let archive = said.split("The archive of the repository:").nth(1).unwrap();
    for commit in [first, meanwhile] {
        assert_eq!(archive.matches(&commit[..7]).count(), 1, "{commit}\n{archive}");
    }
}

#[test]
fn workflows_of_a_file_run_for_the_branches_that_are_watched() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::create(directory.path()).unwrap();
    let file = directory.path().join("release.yaml");
    std::fs::write(&file, OF_A_FILE).unwrap();
    let options = ["--branch", "release/*", "--workflows", file.to_str().unwrap()];
    let mut watching =
        Watching::start(&repository.url(), &directory.path().join("state"), &options);
    let released = (0..20).any(|number| {
        repository.write("main.c", &format!("int main(void) {{ return {number}; }}\n")).unwrap();
        let commit = repository.push("Change the program").unwrap();
        push_to(directory.path(), &format!("release/{number}"));
        watching.says(&["of-the-file", &commit[..7], "succeeded"], Duration::from_secs(6))
    });
    assert!(released, "{:#?}", watching.said);
    let said = watching.interrupt();
    let archive = said.split("The archive of the repository:").nth(1).unwrap();
    assert!(archive.contains("release/") && !archive.contains("main"), "{archive}");
}

fn push_to(directory: &Path, branch: &str) {
    let pushed = Command::new("git")
        .args(["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")])
        .current_dir(directory.join("clone"))
        .status();
    assert!(pushed.unwrap().success());
}

#[test]
fn what_is_wrong_is_told_at_once_and_ends_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |more: &[&str]| {
        let mut program = program();
        program.arg("--state").arg(directory.path().join("state")).args(more);
        let ended = program.output().unwrap();
        assert!(!ended.status.success(), "{more:?}");
        String::from_utf8(ended.stderr).unwrap()
    };
    let nowhere: PathBuf = directory.path().join("nowhere");
    let said = refused(&["--repo", nowhere.to_str().unwrap()]);
    assert!(said.starts_with("error: ") && said.contains("nowhere"), "{said}");

    let repository = Repository::create(directory.path()).unwrap();
    let file = directory.path().join("wrong.yaml");
    std::fs::write(&file, OF_A_FILE.replace("on: push", "on: pussh")).unwrap();
    let said = refused(&["--repo", &repository.url(), "--workflows", file.to_str().unwrap()]);
    assert!(said.contains("wrong.yaml does not load"), "{said}");
    assert!(said.contains("did you mean `push`?"), "{said}");
}
