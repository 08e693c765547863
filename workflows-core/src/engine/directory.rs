//! A directory of a repository, read at a commit and compiled once for its content.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::{
    CommitId, Error, ErrorKind, EventKind, RepoConnection, RepoRef, Result, Tenant, WorkflowId,
    hash_of,
    matching::{Definition, TriggerSet},
    repo::{EntryKind, ListOptions, ReadLimit},
    workflow::{LoadContext, LoadedWorkflow, Problem, TektonObject, further_problems, load},
};

/// A workflow that a directory defines.
#[derive(Debug, Clone)]
pub(crate) struct Defined {
    pub(crate) definition: Arc<Definition>,
    pub(crate) loaded: Arc<LoadedWorkflow>,
}

/// What a directory holds, compiled.
pub(crate) struct LoadedDirectory {
    /// A name for its content.
    pub(crate) digest: Arc<str>,
    /// Its workflows, by name.
    pub(crate) workflows: BTreeMap<Arc<str>, Defined>,
    /// Its Pipelines.
    pub(crate) pipelines: Vec<TektonObject>,
    /// Its Tasks.
    pub(crate) tasks: Vec<TektonObject>,
    /// Everything that is wrong with its files, one line each.
    pub(crate) problems: Vec<String>,
    sets: Mutex<HashMap<EventKind, Arc<TriggerSet>>>,
}

impl fmt::Debug for LoadedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedDirectory")
            .field("digest", &self.digest)
            .field("workflows", &self.workflows.keys())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl LoadedDirectory {
    /// The triggers of its workflows for a kind of event, without those of certain workflows.
    pub(crate) fn triggers(
        &self,
        kind: &EventKind,
        without: &BTreeSet<Arc<str>>,
    ) -> Arc<TriggerSet> {
        let make = || {
            let used = self.workflows.iter().filter(|(name, _)| !without.contains(*name));
            TriggerSet::new(used.map(|(_, one)| Arc::clone(&one.definition)), kind)
        };
        if !without.is_empty() {
            return Arc::new(make());
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        // Events bring kinds of their own, so the names of kinds are not trusted to be few.
        const KINDS: usize = 64;
        if let Some(set) = sets.get(kind) {
            return Arc::clone(set);
        }
        let set = Arc::new(make());
        if sets.len() < KINDS {
            sets.insert(kind.clone(), Arc::clone(&set));
        }
        set
    }
}

/// Which directory of which repository.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) tenant: Tenant,
    pub(crate) repo: RepoRef,
    /// The path of the directory; empty for the root.
    pub(crate) path: Arc<str>,
    /// Whether what is below it counts too.
    pub(crate) recursive: bool,
}

/// The files of a directory that may hold documents: their full paths and the digest of it all.
#[derive(Debug)]
pub(crate) struct Listing {
    /// A name for the content, when the host has one.
    pub(crate) digest: Option<Arc<str>>,
    paths: Vec<Arc<str>>,
}

/// The most problems of a directory that are told.
const MOST_PROBLEMS: usize = 100;

/// The most files of a directory that are read.
const MAX_FILES: usize = 200;
/// The most entries that a directory may have.
const MAX_ENTRIES: usize = 2_000;
/// The most bytes of all files together.
const MAX_BYTES: usize = 8 << 20;
/// How many files are read together.
const READS: usize = 8;

/// Lists a directory.
pub(crate) async fn list(
    repository: &dyn RepoConnection,
    commit: &CommitId,
    place: &Place,
) -> Result<Listing> {
    let options = ListOptions { recursive: place.recursive, max_entries: MAX_ENTRIES };
    let directory = repository.list_directory(commit, &place.path, options).await?;
    let is_yaml = |path: &str| path.ends_with(".yaml") || path.ends_with(".yml");
    let paths = directory
        .entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::File && is_yaml(&entry.path))
        .map(|entry| match &*place.path {
            "" => Arc::clone(&entry.path),
            directory => format!("{directory}/{}", entry.path).into(),
        })
        .collect();
    Ok(Listing { digest: directory.digest, paths })
}

/// The text of a file, or why it cannot be used.
type Text = (Arc<str>, Result<String, String>);

/// Reads and compiles the files of a listing. `context` says what documents may name.
pub(crate) async fn read(
    repository: &dyn RepoConnection,
    commit: &CommitId,
    place: &Place,
    listing: Listing,
    context: &Arc<LoadContext>,
) -> Result<LoadedDirectory> {
    let mut problems = Vec::new();
    let mut paths = listing.paths;
    if paths.len() > MAX_FILES {
        problems.push(format!(
            "{}: only the first {MAX_FILES} of {} files are read; move what is no workflow \
             elsewhere",
            place.path,
            paths.len()
        ));
        paths.truncate(MAX_FILES);
    }
    let texts: Vec<Text> = futures::stream::iter(paths)
        .map(|path| read_text(repository, commit, path).boxed())
        .buffered(READS)
        .try_collect()
        .await?;
    let digest = listing.digest.unwrap_or_else(|| digest_of(&texts));
    let (place, context) = (place.clone(), Arc::clone(context));
    let compiled =
        tokio::task::spawn_blocking(move || compile(digest, &place, texts, &context, problems));
    compiled.await.map_err(|error| {
        Error::transient("compile workflows", "the compilation was broken off").caused_by(error)
    })
}

async fn read_text(
    repository: &dyn RepoConnection,
    commit: &CommitId,
    path: Arc<str>,
) -> Result<Text> {
    let text = match repository.read_file(commit, &path, ReadLimit::default()).await {
        Ok(bytes) => String::from_utf8(bytes.into())
            .map_err(|error| format!("{path}: it is not UTF-8: {}", error.utf8_error())),
        Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported) => {
            Err(format!("{path}: {}", error.message()))
        }
        Err(error) => return Err(error),
    };
    Ok((path, text))
}

fn digest_of(texts: &[Text]) -> Arc<str> {
    let mut parts: Vec<&str> = Vec::new();
    for (path, text) in texts {
        parts.push(path);
        parts.push(text.as_deref().unwrap_or_else(|error| error));
    }
    hash_of(&parts).into()
}

fn compile(
    digest: Arc<str>,
    place: &Place,
    texts: Vec<Text>,
    context: &LoadContext,
    mut problems: Vec<String>,
) -> LoadedDirectory {
    let mut workflows: BTreeMap<Arc<str>, Defined> = BTreeMap::new();
    let (mut pipelines, mut tasks) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for (path, text) in texts {
        let text = match text {
            Ok(text) => text,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        bytes += text.len();
        if bytes > MAX_BYTES {
            problems.push(format!(
                "{path}: the files of the directory are larger than {MAX_BYTES} bytes together; \
                 this one and those after it are not read"
            ));
            break;
        }
        let loaded = load(&path, &text, context);
        problems.extend(loaded.problems.iter().map(Problem::one_line));
        pipelines.extend(loaded.pipelines);
        tasks.extend(loaded.tasks);
        for workflow in loaded.workflows {
            let name = Arc::clone(workflow.name());
            if let Some(other) = workflows.get(&name) {
                problems.push(format!(
                    "{path}:{}: a workflow named {name} is in {} already; rename one of them",
                    workflow.line(),
                    other.loaded.source()
                ));
                continue;
            }
            let id = WorkflowId::in_repository(place.repo.id.clone(), Arc::clone(&name));
            let definition = Definition::new(
                place.tenant.clone(),
                id,
                place.repo.connection.clone(),
                Arc::clone(&place.repo.name),
                workflow.workflow(),
            );
            match definition {
                Ok(definition) => {
                    let definition = Arc::new(definition);
                    workflows.insert(name, Defined { definition, loaded: Arc::new(workflow) });
                }
                Err(found) => problems.extend(found.iter().map(|one| {
                    format!("{path}:{}: spec.{}: {}", workflow.line(), one.field, one.message)
                })),
            }
        }
    }
    let further = problems.len().saturating_sub(MOST_PROBLEMS);
    if further > 0 {
        problems.truncate(MOST_PROBLEMS);
        problems.push(further_problems(further));
    }
    LoadedDirectory { digest, workflows, pipelines, tasks, problems, sets: Mutex::default() }
}
