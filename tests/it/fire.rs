//! What the tests share that kill engines while commits keep coming.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use git2::{Oid, Repository, Signature};
use workflows_core::{
    Run, Store, Tenant,
    store::{EventQuery, PageRequest, RunQuery},
};

/// How long something may take to come, or nothing may happen while more is still to come.
const PATIENCE: Duration = Duration::from_secs(240);

/// A sequence of numbers that is the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }
}

/// A repository, and what was pushed to it.
pub(crate) struct Pushes {
    repository: Repository,
    branches: BTreeMap<String, Vec<String>>,
    main: Vec<String>,
}

impl Pushes {
    /// A repository whose main branch holds these workflows.
    pub(crate) fn begin(path: &Path, workflows: &str) -> Self {
        let repository = Repository::init_bare(path).unwrap();
        repository.set_head("refs/heads/main").unwrap();
        {
            let blob = repository.blob(workflows.as_bytes()).unwrap();
            let mut directory = repository.treebuilder(None).unwrap();
            directory.insert("ci.yaml", blob, 0o100_644).unwrap();
            let directory = directory.write().unwrap();
            let mut root = repository.treebuilder(None).unwrap();
            root.insert(".tekton", directory, 0o040_000).unwrap();
            commit(&repository, "main", root.write().unwrap(), &[]);
        }
        let mut pushes = Self { repository, branches: BTreeMap::new(), main: Vec::new() };
        pushes.main.push(pushes.head());
        pushes
    }

    /// Puts a commit on the main branch.
    pub(crate) fn next_on_main(&mut self) {
        self.commit("main");
        self.main.push(self.head());
    }

    /// Pushes a new branch below a prefix.
    pub(crate) fn next_branch(&mut self, prefix: &str) {
        let branch = format!("{prefix}/{}", self.branches(prefix).len());
        self.commit(&branch);
        self.branches.entry(prefix.to_owned()).or_default().push(branch);
    }

    /// The branches that were pushed below a prefix.
    pub(crate) fn branches(&self, prefix: &str) -> &[String] {
        self.branches.get(prefix).map_or(&[], Vec::as_slice)
    }

    /// The commits of the main branch, oldest first.
    pub(crate) fn main(&self) -> &[String] {
        &self.main
    }

    fn head(&self) -> String {
        self.repository.refname_to_id("refs/heads/main").unwrap().to_string()
    }

    /// Puts a commit on a branch, which begins at `main`.
    fn commit(&self, branch: &str) {
        let main = self.repository.find_reference("refs/heads/main").unwrap();
        let main = main.peel_to_commit().unwrap();
        commit(&self.repository, branch, main.tree_id(), &[&main]);
    }
}

fn commit(repository: &Repository, branch: &str, tree: Oid, parents: &[&git2::Commit<'_>]) {
    let who = Signature::now("Ada", "ada@example.com").unwrap();
    let tree = repository.find_tree(tree).unwrap();
    let made = repository.commit(None, &who, &who, branch, &tree, parents).unwrap();
    repository.reference(&format!("refs/heads/{branch}"), made, true, "push").unwrap();
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for something that another process does.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until another process has done so much, for as long as it gets on with it.
pub(crate) fn wait_while_it_gets_on(what: &str, enough: usize, mut done: impl FnMut() -> usize) {
    let (mut since, mut before) = (Instant::now(), 0);
    loop {
        let now = done();
        if now >= enough {
            return;
        }
        if now > before {
            (since, before) = (Instant::now(), now);
        }
        assert!(since.elapsed() < PATIENCE, "{what}: {now} of {enough}, and then nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every run in a ledger.
pub(crate) async fn all_runs(store: &dyn Store) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut page = PageRequest { limit: 1000, after: None };
    loop {
        let found = store.runs(RunQuery::of(Tenant::default()).page(page)).await.unwrap();
        runs.extend(found.items);
        let Some(next) = found.next else { return runs };
        page.after = Some(next);
    }
}

/// How many events there were of each branch but the main one.
pub(crate) async fn events_of_branches(store: &dyn Store) -> BTreeMap<String, usize> {
    let mut events: BTreeMap<String, usize> = BTreeMap::new();
    let mut page = PageRequest { limit: 1000, after: None };
    loop {
        let found = store.events(EventQuery::of(Tenant::default()).page(page)).await.unwrap();
        for branch in found.items.iter().filter_map(|event| event.branch()) {
            if branch != "main" {
                *events.entry(branch.to_owned()).or_default() += 1;
            }
        }
        let Some(next) = found.next else { return events };
        page.after = Some(next);
    }
}

/// The notifications that a journal holds: each came once, or again with the key of the first. The
/// keys by run and transition.
pub(crate) fn told(journal: &Path) -> BTreeMap<(String, String), String> {
    let mut told = BTreeMap::new();
    for line in lines(journal) {
        let [run, transition, key] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("a torn line in the journal: {line:?}");
        };
        let first = told.entry((run.to_owned(), transition.to_owned())).or_insert(key.to_owned());
        assert_eq!(first, key, "a repeated notification changed its key");
    }
    told
}
