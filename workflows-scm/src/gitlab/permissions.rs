//! Who may do what, asked about one person.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Error, ErrorKind, Result,
    repo::{Permission, Permissions},
};

use super::{connection::GitLabProject, project_path::group};
use crate::{
    printable::printable,
    rest::{Priority, Route},
};

const OPERATION: &str = "ask for a permission";

#[derive(Debug, Deserialize)]
struct Person {
    id: u64,
    username: String,
}

/// <https://docs.gitlab.com/api/members/#retrieve-a-member-of-a-group-or-project>
#[derive(Debug, Serialize, Deserialize)]
struct Member {
    access_level: u32,
    /// `awaiting` for who was invited beyond what the group's plan has room for.
    #[serde(default)]
    membership_state: Option<String>,
    /// `active`, `blocked` and so on: of the account.
    #[serde(default)]
    state: Option<String>,
}

impl Member {
    fn is_active(&self) -> bool {
        self.state.as_deref().is_none_or(|state| state == "active")
            && self.membership_state.as_deref().is_none_or(|state| state == "active")
    }
}

/// The access level from which somebody is a member who sees anything: Guest.
const GUEST: u32 = 10;

/// <https://docs.gitlab.com/api/access_requests/>: 10 Guest, 15 Planner, 20 Reporter, 25 Security
/// Manager, 30 Developer, 40 Maintainer, 50 Owner. A role of one's own counts as the one that it is
/// built on.
fn permission(level: u32) -> Permission {
    match level {
        0..10 => Permission::None,
        10..15 => Permission::Read,
        15..30 => Permission::Triage,
        30..40 => Permission::Write,
        40..50 => Permission::Maintain,
        _ => Permission::Admin,
    }
}

#[async_trait]
impl Permissions for GitLabProject {
    /// Whoever is a member of the project, or inherits that from a group above it or one that was
    /// invited. Of a public project everybody may read.
    async fn of(&self, actor: &str) -> Result<Permission> {
        let of_everybody = if self.is_public { Permission::Read } else { Permission::None };
        let Some(person) = self.person(actor).await? else { return Ok(Permission::None) };
        let route = self.route(["members", "all", &person.to_string()]);
        let member = self.member(&route, actor).await?;
        let of_member = member.map_or(Permission::None, |member| permission(member.access_level));
        Ok(of_member.max(of_everybody))
    }

    /// A team is a group, by its full path: `acme/reviewers`. One without a slash is looked for below
    /// the project's outermost group first. Who is a member of a group above it is one of it, too.
    async fn is_member(&self, actor: &str, team: &str) -> Result<bool> {
        let team = team.trim().trim_start_matches('@');
        let outermost = self.path.split('/').next().unwrap_or_default();
        let below = format!("{outermost}/{team}");
        let candidates = if team.contains('/') { vec![team] } else { vec![below.as_str(), team] };
        // What cannot be a name is not asked for.
        if group(team).is_err() {
            return Ok(false);
        }
        let Some(person) = self.person(actor).await? else { return Ok(false) };
        for candidate in candidates {
            let route = Route::new(["groups", candidate, "members", "all", &person.to_string()]);
            let member = self.member(&route, actor).await?;
            if let Some(member) = member {
                return Ok(member.access_level >= GUEST);
            }
        }
        Ok(false)
    }
}

impl GitLabProject {
    /// GitLab's number of a person, which routes about members want.
    async fn person(&self, actor: &str) -> Result<Option<u64>> {
        let name: Arc<str> = actor.to_lowercase().into();
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.seen.people.get(&name).await {
            return Ok(Some(known));
        }
        let route = Route::new(["users"]).query("username", actor);
        let found: Vec<Person> = self
            .client(Priority::Fetch)
            .get(OPERATION, &route)
            .await
            .map_err(|error: Error| error.with("actor", printable(actor)))?;
        let found = found.into_iter().find(|one| one.username.to_lowercase() == *name);
        if let Some(found) = &found {
            self.seen.people.insert(name, found.id).await;
        }
        Ok(found.map(|found| found.id))
    }

    async fn member(&self, route: &Route, actor: &str) -> Result<Option<Member>> {
        match self.client(Priority::Fetch).look::<Member>(OPERATION, route).await {
            Ok(member) => Ok(Some(member).filter(Member::is_active)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.with("actor", printable(actor))),
        }
    }
}
