//! Who asks, and what they may (<https://docs.gitlab.com/user/permissions/>).

use crate::{
    answer::Answer,
    world::{Project, World},
};

/// A role (<https://docs.gitlab.com/api/access_requests/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// To see.
    Guest,
    /// And to plan.
    Planner,
    /// And to read the code of what is private.
    Reporter,
    /// And to push.
    Developer,
    /// And to keep it.
    Maintainer,
    /// And everything.
    Owner,
}

impl Access {
    /// As the API tells it.
    pub(crate) fn level(self) -> u32 {
        match self {
            Self::Guest => 10,
            Self::Planner => 15,
            Self::Reporter => 20,
            Self::Developer => 30,
            Self::Maintainer => 40,
            Self::Owner => 50,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    Anonymous,
    User { name: String, scopes: Vec<String> },
}

impl Caller {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User { name, .. } => name,
        }
    }

    /// Whoever is signed in.
    pub(crate) fn user(&self) -> Result<&str, Answer> {
        match self {
            Self::Anonymous => Err(Answer::error(401, "401 Unauthorized")),
            Self::User { name, .. } => Ok(name),
        }
    }
}

impl World {
    /// Who shows this token.
    pub(crate) fn caller(&self, token: Option<&str>) -> Result<Caller, Answer> {
        let Some(token) = token else { return Ok(Caller::Anonymous) };
        let known = self.tokens.get(token).filter(|token| !token.is_revoked);
        let known = known.ok_or_else(|| Answer::error(401, "401 Unauthorized"))?;
        if known.expires_at.is_some_and(|day| day <= self.now()) {
            let text = "Token is expired. You can either do re-authorization or token refresh.";
            return Err(Answer::oauth(401, "invalid_token", text));
        }
        Ok(Caller::User { name: known.holder.clone(), scopes: known.scopes.clone() })
    }

    /// Whether the scopes of a token allow a call.
    pub(crate) fn check_scope(caller: &Caller, is_write: bool) -> Result<(), Answer> {
        let Caller::User { scopes, .. } = caller else { return Ok(()) };
        let will_do = |scope: &String| scope == "api" || (!is_write && scope == "read_api");
        if scopes.iter().any(will_do) {
            return Ok(());
        }
        let text = "The request requires higher privileges than provided by the access token.";
        Err(Answer::oauth(403, "insufficient_scope", text))
    }

    /// The role of somebody in a project, their own or that of a group above it.
    pub(crate) fn access(&self, project: &Project, user: &str) -> Option<u32> {
        let own = project.members.get(user).copied();
        let above = self.groups.values().filter(|group| {
            project.path.strip_prefix(&group.path).is_some_and(|rest| rest.starts_with('/'))
        });
        let inherited = above.filter_map(|group| group.members.get(user).copied());
        let is_theirs = project.path.split('/').next() == Some(user);
        own.into_iter().chain(inherited).chain(is_theirs.then_some(50)).max()
    }

    /// The role of somebody in a group, or one above it.
    pub(crate) fn access_in_group(&self, path: &str, user: &str) -> Option<u32> {
        let is_above = |group: &str| {
            path == group || path.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'))
        };
        let groups = self.groups.values().filter(|group| is_above(&group.path));
        groups.filter_map(|group| group.members.get(user).copied()).max()
    }

    /// A project by its number or its path, for who may do this much with it.
    pub(crate) fn project_for(
        &self,
        name: &str,
        caller: &Caller,
        needed: u32,
    ) -> Result<&Project, Answer> {
        let missing = || Answer::error(404, "404 Project Not Found");
        let id = match name.parse::<u64>() {
            Ok(id) => id,
            Err(_) => *self.paths.get(&name.to_lowercase()).ok_or_else(missing)?,
        };
        let project = self.projects.get(&id).ok_or_else(missing)?;
        let access = self.access(project, caller.name());
        if !project.is_public && access.is_none() {
            return Err(missing());
        }
        if needed > 10 || !project.is_public {
            caller.user()?;
            if access.unwrap_or(0) < needed {
                return Err(Answer::error(403, "403 Forbidden"));
            }
        }
        Ok(project)
    }
}
