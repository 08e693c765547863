//! Everything that the stand-in knows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use git2::Oid;
use jiff::Timestamp;
use workflows_core::SharedClock;
use workflows_standin_kit::git::{Git, Objects, Person};

use crate::{
    deliveries::{Delivery, Hook},
    limits::{Limits, Spent},
};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: SharedClock,
    /// `http://127.0.0.1:PORT`.
    pub(crate) root: String,
    pub(crate) directory: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) spent: Spent,
    pub(crate) users: BTreeMap<String, u64>,
    pub(crate) blocked: BTreeSet<String>,
    /// By path.
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) projects: BTreeMap<u64, Project>,
    /// By path in lower case; former paths too.
    pub(crate) paths: HashMap<String, u64>,
    pub(crate) tokens: HashMap<String, Token>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Deliveries that are to be sent.
    pub(crate) outbox: tokio::sync::mpsc::UnboundedSender<u64>,
    pub(crate) unsent: tokio::sync::watch::Sender<usize>,
    pub(crate) last_id: u64,
    /// Routes that were asked for and are not there.
    pub(crate) unknown: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) path: String,
    /// Levels of access.
    pub(crate) members: BTreeMap<String, u32>,
    pub(crate) hooks: BTreeMap<u64, Hook>,
}

#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) id: u64,
    pub(crate) path: String,
    pub(crate) is_public: bool,
    pub(crate) default_branch: String,
    pub(crate) fork_of: Option<u64>,
    pub(crate) git: Objects,
    pub(crate) members: BTreeMap<String, u32>,
    pub(crate) merge_requests: BTreeMap<u64, MergeRequest>,
    /// On commits.
    pub(crate) notes: BTreeMap<u64, Note>,
    pub(crate) pipelines: BTreeMap<u64, Pipeline>,
    pub(crate) hooks: BTreeMap<u64, Hook>,
}

#[derive(Debug, Clone)]
pub(crate) struct MergeRequest {
    pub(crate) id: u64,
    pub(crate) iid: u64,
    pub(crate) title: String,
    pub(crate) author: String,
    pub(crate) draft: bool,
    pub(crate) state: &'static str,
    pub(crate) source_project: u64,
    pub(crate) source_branch: String,
    pub(crate) target_branch: String,
    pub(crate) head: Oid,
    /// Where the target branch stood when the head was pushed.
    pub(crate) start: Oid,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) notes: BTreeMap<u64, Note>,
}

#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) id: u64,
    pub(crate) author: String,
    pub(crate) body: String,
    pub(crate) system: bool,
    /// `DiffNote` on a line.
    pub(crate) kind: Option<&'static str>,
    pub(crate) commit: Option<Oid>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Who reacted with what.
    pub(crate) emoji: Vec<(String, String)>,
}

/// A pipeline that an outside program made by its statuses.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    pub(crate) id: u64,
    pub(crate) sha: Oid,
    pub(crate) reference: String,
    /// All that were made, also those that another of their name has followed.
    pub(crate) statuses: Vec<Status>,
}

#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) description: Option<String>,
    pub(crate) target_url: Option<String>,
    pub(crate) author: String,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) id: u64,
    pub(crate) holder: String,
    pub(crate) scopes: Vec<String>,
    /// The beginning of a day.
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) is_revoked: bool,
}

impl World {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The number of a person, who is made when there is none of that name.
    pub(crate) fn ensure_user(&mut self, name: &str) -> u64 {
        if let Some(id) = self.users.get(name) {
            return *id;
        }
        let id = self.new_id();
        self.users.insert(name.to_owned(), id);
        id
    }

    /// Makes the groups of a path, unless it is a person's.
    pub(crate) fn ensure_group(&mut self, path: &str) {
        if path.is_empty() || self.users.contains_key(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.ensure_group(above);
        }
        if !self.groups.contains_key(path) {
            let group =
                Group { path: path.to_owned(), members: BTreeMap::new(), hooks: BTreeMap::new() };
            self.groups.insert(path.to_owned(), group);
        }
    }

    pub(crate) fn person(&self, name: &str) -> Person {
        Person { name: name.to_owned(), email: format!("{name}@example.com") }
    }

    pub(crate) fn add_project(&mut self, path: &str, is_public: bool) -> Git<u64> {
        if let Some((group, _)) = path.rsplit_once('/') {
            self.ensure_group(group);
        }
        let id = self.new_id();
        let git = Objects::create(&self.directory.join(format!("{id}.git")), "main")?;
        let project = Project {
            id,
            path: path.to_owned(),
            is_public,
            default_branch: "main".to_owned(),
            fork_of: None,
            git,
            members: BTreeMap::new(),
            merge_requests: BTreeMap::new(),
            notes: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            hooks: BTreeMap::new(),
        };
        self.paths.insert(path.to_lowercase(), id);
        self.projects.insert(id, project);
        Ok(id)
    }

    pub(crate) fn fork(&mut self, of: u64, owner: &str) -> Git<u64> {
        self.ensure_user(owner);
        let missing = || git2::Error::from_str("there is no such project");
        let source = self.projects.get(&of).ok_or_else(missing)?;
        let name = source.path.rsplit('/').next().unwrap_or_default();
        let path = format!("{owner}/{name}");
        if let Some(known) = self.paths.get(&path.to_lowercase()) {
            return Ok(*known);
        }
        let (is_public, place) = (source.is_public, source.git.path().to_owned());
        let id = self.add_project(&path, is_public)?;
        if let Some(fork) = self.projects.get_mut(&id) {
            fork.fork_of = Some(of);
            let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            fork.git.fetch(&place, &all.map(ToOwned::to_owned))?;
        }
        Ok(id)
    }
}
