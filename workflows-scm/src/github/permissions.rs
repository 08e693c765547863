//! Who may do what, asked about one person.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Error, ErrorKind, Result,
    repo::{Permission, Permissions},
};

use super::{authorization::Scope, connection::GitHubRepository, repo_path::RepoPath};
use crate::rest::{Priority, Route};

/// <https://docs.github.com/en/rest/collaborators/collaborators#get-repository-permissions-for-a-user>
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// `admin`, `write`, `read` or `none`.
    permission: String,
    /// Also `maintain`, `triage`, and whatever an organisation calls a role of its own.
    #[serde(default)]
    role_name: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Membership {
    state: String,
}

#[async_trait]
impl Permissions for GitHubRepository {
    /// Of a public repository everybody may read. A role that an organisation made itself counts as
    /// the one that it is built on.
    async fn of(&self, actor: &str) -> Result<Permission> {
        const OPERATION: &str = "ask for a permission";
        if actor.is_empty() {
            return Ok(Permission::None);
        }
        let route = self.route(["collaborators", actor, "permission"]);
        let told: Told = match self.client(Priority::Fetch).look(OPERATION, &route).await {
            Ok(told) => told,
            // No such account, or one that this repository does not know.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Permission::None),
            Err(error) => return Err(error.with("actor", crate::printable::printable(actor))),
        };
        // The finer roles are told as the ones below them, with their name beside.
        match (told.permission.as_str(), told.role_name.as_deref()) {
            ("write", Some("maintain")) => Ok(Permission::Maintain),
            ("read", Some("triage")) => Ok(Permission::Triage),
            ("admin", _) => Ok(Permission::Admin),
            ("write", _) => Ok(Permission::Write),
            ("read", _) => Ok(Permission::Read),
            ("none", _) => Ok(Permission::None),
            (unknown, _) => {
                Err(Error::invalid(OPERATION, "GitHub names a permission that is not known here")
                    .with("permission", crate::printable::printable(unknown)))
            }
        }
    }

    /// A team is written `organisation/team` or, of the organisation that owns the repository,
    /// `team`: its slug, or its name. Who was invited and has not accepted is no member.
    async fn is_member(&self, actor: &str, team: &str) -> Result<bool> {
        const OPERATION: &str = "ask for a team's member";
        let team = team.trim().trim_start_matches('@');
        let (organisation, name) = team.split_once('/').unwrap_or((&self.path.owner, team));
        let slug = name.to_lowercase().replace(' ', "-");
        // What cannot be a name is not asked for.
        if actor.is_empty() || RepoPath::parse(&format!("{organisation}/{slug}")).is_err() {
            return Ok(false);
        }
        let route = Route::new(["orgs", organisation, "teams", &slug, "memberships", actor]);
        let client = self.api.about(Scope::Owner(organisation.to_owned()), Priority::Fetch);
        match client.look::<Membership>(OPERATION, &route).await {
            Ok(membership) => Ok(membership.state == "active"),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error
                .with("actor", crate::printable::printable(actor))
                .with("team", crate::printable::printable(team))),
        }
    }
}
