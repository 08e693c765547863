//! Everything that the stand-in knows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use git2::Oid;
use jiff::Timestamp;
use serde_json::Value;
use workflows_core::SharedClock;

use crate::{
    access::Level,
    deliveries::{Delivery, Hook},
    git::{Objects, Person},
    limits::{Accounts, Limits},
    openapi::Description,
    script::Role,
};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: SharedClock,
    /// `http://127.0.0.1:PORT`.
    pub(crate) root: String,
    pub(crate) directory: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) spent: Accounts,
    /// By login in lower case.
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) repos: BTreeMap<u64, Repo>,
    /// By full name in lower case; former names too.
    pub(crate) names: HashMap<String, u64>,
    pub(crate) apps: BTreeMap<u64, App>,
    pub(crate) installations: BTreeMap<u64, Installation>,
    pub(crate) tokens: HashMap<String, Token>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Deliveries that are to be sent.
    pub(crate) outbox: tokio::sync::mpsc::UnboundedSender<u64>,
    pub(crate) unsent: tokio::sync::watch::Sender<usize>,
    pub(crate) last_id: u64,
    /// What requests, answers and events are checked against.
    pub(crate) description: Option<&'static Description>,
    /// What was found.
    pub(crate) problems: Vec<crate::Problem>,
}

#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) login: String,
    pub(crate) kind: AccountKind,
    pub(crate) created_at: Timestamp,
    /// Of an organisation.
    pub(crate) members: BTreeMap<String, bool>,
    pub(crate) teams: BTreeMap<String, Team>,
    pub(crate) hooks: BTreeMap<u64, Hook>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountKind {
    User,
    Organization,
    Bot,
}

#[derive(Debug, Clone)]
pub(crate) struct Team {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// Whether the membership is active, or waits for the person to accept.
    pub(crate) members: BTreeMap<String, bool>,
    pub(crate) repos: BTreeMap<u64, Role>,
}

#[derive(Debug)]
pub(crate) struct Repo {
    pub(crate) id: u64,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) private: bool,
    pub(crate) default_branch: String,
    pub(crate) fork_of: Option<u64>,
    pub(crate) created_at: Timestamp,
    pub(crate) pushed_at: Timestamp,
    pub(crate) git: Objects,
    pub(crate) collaborators: BTreeMap<String, Collaborator>,
    pub(crate) last_number: u64,
    pub(crate) issues: BTreeMap<u64, Issue>,
    pub(crate) comments: BTreeMap<u64, Comment>,
    pub(crate) reviews: BTreeMap<u64, Review>,
    pub(crate) suites: BTreeMap<u64, Suite>,
    pub(crate) checks: BTreeMap<u64, Check>,
    pub(crate) statuses: BTreeMap<u64, Status>,
    pub(crate) hooks: BTreeMap<u64, Hook>,
}

impl Repo {
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Collaborator {
    pub(crate) role: Role,
    /// The name of a role that the organisation made itself.
    pub(crate) custom: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Issue {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) body: Option<String>,
    pub(crate) author: String,
    pub(crate) open: bool,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) closed_at: Option<Timestamp>,
    pub(crate) pull: Option<Pull>,
}

#[derive(Debug, Clone)]
pub(crate) struct Pull {
    /// `None` once the repository is gone.
    pub(crate) head_repo: Option<u64>,
    pub(crate) head_owner: String,
    pub(crate) head_ref: String,
    pub(crate) head: Oid,
    pub(crate) base_ref: String,
    pub(crate) base: Oid,
    pub(crate) draft: bool,
    pub(crate) merged: Option<(Timestamp, String)>,
    pub(crate) merge_commit: Option<Oid>,
}

/// What a comment is on.
#[derive(Debug, Clone)]
pub(crate) enum On {
    Issue(u64),
    Line { number: u64, path: String, line: u64, commit: Oid, review: Option<u64> },
    Commit { commit: Oid, path: Option<String>, line: Option<u64> },
}

#[derive(Debug, Clone)]
pub(crate) struct Comment {
    pub(crate) id: u64,
    pub(crate) on: On,
    pub(crate) author: String,
    pub(crate) app: Option<u64>,
    pub(crate) body: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) reactions: Vec<Reaction>,
}

#[derive(Debug, Clone)]
pub(crate) struct Reaction {
    pub(crate) id: u64,
    pub(crate) by: String,
    pub(crate) content: String,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Review {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) author: String,
    pub(crate) body: String,
    pub(crate) state: String,
    pub(crate) commit: Oid,
    pub(crate) submitted_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Suite {
    pub(crate) id: u64,
    pub(crate) app: u64,
    pub(crate) head: Oid,
    pub(crate) head_branch: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) id: u64,
    pub(crate) suite: u64,
    pub(crate) app: u64,
    pub(crate) name: String,
    pub(crate) head: Oid,
    pub(crate) details_url: Option<String>,
    pub(crate) external_id: String,
    pub(crate) status: String,
    pub(crate) conclusion: Option<String>,
    pub(crate) started_at: Timestamp,
    pub(crate) completed_at: Option<Timestamp>,
    pub(crate) title: Option<String>,
    pub(crate) summary: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) annotations: Vec<Value>,
    pub(crate) actions: Vec<Value>,
}

#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) id: u64,
    pub(crate) sha: Oid,
    pub(crate) state: String,
    pub(crate) context: String,
    pub(crate) description: Option<String>,
    pub(crate) target_url: Option<String>,
    pub(crate) creator: String,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) id: u64,
    pub(crate) slug: String,
    pub(crate) owner: String,
    pub(crate) permissions: BTreeMap<String, Level>,
    pub(crate) events: Vec<String>,
    /// The keys that its assertions may be signed with: RSAPublicKey, DER.
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) hook: Option<Hook>,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) id: u64,
    pub(crate) app: u64,
    pub(crate) account: String,
    /// `None` for all of the account.
    pub(crate) repos: Option<BTreeSet<u64>>,
    pub(crate) permissions: BTreeMap<String, Level>,
    pub(crate) suspended_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) holder: Holder,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) repos: Option<BTreeSet<u64>>,
    pub(crate) permissions: Option<BTreeMap<String, Level>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    User(String),
    Installation(u64),
}

impl World {
    /// The time, in whole seconds as GitHub writes it.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn api(&self, path: &str) -> String {
        format!("{}/api/v3{path}", self.root)
    }

    pub(crate) fn account(&self, login: &str) -> Option<&Account> {
        self.accounts.get(&login.to_ascii_lowercase())
    }

    /// The account of a login, made as a user's when there is none.
    pub(crate) fn ensure_account(&mut self, login: &str, kind: AccountKind) -> u64 {
        let key = login.to_ascii_lowercase();
        if let Some(account) = self.accounts.get(&key) {
            return account.id;
        }
        let id = self.new_id();
        let account = Account {
            id,
            login: login.to_owned(),
            kind,
            created_at: self.now(),
            members: BTreeMap::new(),
            teams: BTreeMap::new(),
            hooks: BTreeMap::new(),
        };
        self.accounts.insert(key, account);
        id
    }

    pub(crate) fn person(&self, login: &str) -> Person {
        Person {
            name: login.to_owned(),
            email: format!("{}@users.noreply.example.com", login.to_ascii_lowercase()),
        }
    }

    /// What a person may do with a repository.
    pub(crate) fn role(&self, repo: &Repo, login: &str) -> Option<Role> {
        let login = login.to_ascii_lowercase();
        if repo.owner.to_ascii_lowercase() == login {
            return Some(Role::Admin);
        }
        let owner = self.account(&repo.owner);
        let of_owner = owner.and_then(|owner| {
            let is_owner = *owner.members.get(&login)?;
            Some(if is_owner { Role::Admin } else { Role::Read })
        });
        let of_teams =
            owner.into_iter().flat_map(|owner| owner.teams.values()).filter_map(|team| {
                team.members.get(&login).filter(|active| **active)?;
                team.repos.get(&repo.id).copied()
            });
        let own = repo.collaborators.get(&login).map(|one| one.role);
        let public = (!repo.private).then_some(Role::Read);
        of_owner.into_iter().chain(of_teams).chain(own).chain(public).max()
    }

    pub(crate) fn covers(&self, installation: &Installation, repo: &Repo) -> bool {
        installation.account.eq_ignore_ascii_case(&repo.owner)
            && installation.repos.as_ref().is_none_or(|chosen| chosen.contains(&repo.id))
    }

    /// The pull requests of a repository that stand at a commit of its own.
    pub(crate) fn pulls_at(&self, repo: &Repo, head: Oid) -> Vec<u64> {
        let stands = |issue: &&Issue| {
            issue.open
                && issue
                    .pull
                    .as_ref()
                    .is_some_and(|pull| pull.head == head && pull.head_repo == Some(repo.id))
        };
        repo.issues.values().filter(stands).map(|issue| issue.number).collect()
    }
}
