//! Who asks, and what they may.

use std::collections::{BTreeMap, BTreeSet};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::{
    answer::{Answer, Request},
    script::Role,
    world::{Holder, Repo, World},
};

/// How far a permission goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// To see.
    Read,
    /// To change.
    Write,
    /// To administer.
    Admin,
}

impl Level {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// What a token that is narrowed was narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Narrowed {
    pub(crate) repos: Option<BTreeSet<u64>>,
    pub(crate) permissions: Option<BTreeMap<String, Level>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Caller {
    Anonymous,
    App(u64),
    Installation(u64, Narrowed),
    User(String, Narrowed),
}

impl Caller {
    /// Whose limits a call counts against.
    pub(crate) fn principal(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::App(id) => format!("app:{id}"),
            Self::Installation(id, _) => format!("installation:{id}"),
            Self::User(login, _) => format!("user:{}", login.to_ascii_lowercase()),
        }
    }
}

/// What a public repository shows to everybody.
const PUBLIC: &[&str] = &["metadata", "contents", "pull_requests", "issues", "checks", "statuses"];

impl World {
    /// Who shows these credentials.
    pub(crate) fn caller(&self, authorization: Option<&str>) -> Result<Caller, Answer> {
        let Some(authorization) = authorization else { return Ok(Caller::Anonymous) };
        let bad = || Answer::error(401, "Bad credentials");
        let (scheme, token) = authorization.split_once(' ').ok_or_else(bad)?;
        if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("token") {
            return Err(bad());
        }
        if token.split('.').count() == 3 {
            return self.app_of(token).map(Caller::App);
        }
        let known = self.tokens.get(token).ok_or_else(bad)?;
        if known.expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(bad());
        }
        let narrowed =
            Narrowed { repos: known.repos.clone(), permissions: known.permissions.clone() };
        match &known.holder {
            Holder::User(login) => Ok(Caller::User(login.clone(), narrowed)),
            Holder::Installation(id) => {
                let installation = self.installations.get(id).ok_or_else(bad)?;
                if installation.suspended_at.is_some() {
                    return Err(Answer::error(403, "This installation has been suspended"));
                }
                Ok(Caller::Installation(*id, narrowed))
            }
        }
    }

    /// The App that signed an assertion
    /// (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>).
    fn app_of(&self, assertion: &str) -> Result<u64, Answer> {
        let refuse = |message: &str| Answer::error(401, message);
        let undecodable = || refuse("A JSON web token could not be decoded");
        let mut checks = Validation::new(Algorithm::RS256);
        checks.validate_exp = false;
        checks.validate_aud = false;
        checks.required_spec_claims.clear();
        let claims = self.apps.values().find_map(|app| {
            let claims = app.keys.iter().find_map(|key| {
                let key = DecodingKey::from_rsa_der(key);
                jsonwebtoken::decode::<Value>(assertion, &key, &checks).ok()
            })?;
            let issuer = &claims.claims["iss"];
            let number = issuer.as_u64().or_else(|| issuer.as_str()?.parse().ok());
            (number == Some(app.id)).then_some((app.id, claims.claims))
        });
        let (app, claims) = claims.ok_or_else(undecodable)?;
        let now = self.clock.now().as_second();
        let issued = claims["iat"].as_i64().ok_or_else(|| {
            refuse(
                "'Issued at' claim ('iat') must be an Integer representing the time that the \
                    assertion was issued",
            )
        })?;
        let expires = claims["exp"].as_i64().ok_or_else(undecodable)?;
        if issued > now {
            return Err(refuse(
                "'Issued at' claim ('iat') must be an Integer representing the time that the \
                 assertion was issued",
            ));
        }
        if expires <= now {
            return Err(refuse(
                "'Expiration time' claim ('exp') must be a numeric value representing the future \
                 time at which the assertion expires",
            ));
        }
        if expires > now + 600 || expires - issued > 660 {
            return Err(refuse("'Expiration time' claim ('exp') is too far in the future"));
        }
        Ok(app)
    }

    /// The login that acts.
    pub(crate) fn actor(&self, caller: &Caller) -> String {
        match caller {
            Caller::Anonymous => "ghost".to_owned(),
            Caller::User(login, _) => login.clone(),
            Caller::App(app) => self.bot(*app),
            Caller::Installation(id, _) => {
                self.installations.get(id).map_or_else(String::new, |one| self.bot(one.app))
            }
        }
    }

    fn bot(&self, app: u64) -> String {
        self.apps.get(&app).map_or_else(String::new, |app| format!("{}[bot]", app.slug))
    }

    /// The App behind a caller.
    pub(crate) fn app_behind(&self, caller: &Caller) -> Option<u64> {
        match caller {
            Caller::Installation(id, _) => self.installations.get(id).map(|one| one.app),
            _ => None,
        }
    }

    /// The repository that a route names, for somebody who may do this with it.
    pub(crate) fn repo_for(
        &self,
        request: &Request,
        permission: &str,
        level: Level,
    ) -> Result<u64, Answer> {
        let name = format!("{}/{}", request.param("owner"), request.param("repo"));
        let id = *self.names.get(&name.to_ascii_lowercase()).ok_or_else(Answer::not_found)?;
        let repo = self.repos.get(&id).ok_or_else(Answer::not_found)?;
        self.may(&request.caller, repo, permission, level)?;
        if !repo.full_name().eq_ignore_ascii_case(&name) {
            let mut to = format!("/repositories/{id}");
            // What follows `/api/v3/repos/{owner}/{repo}/`.
            if let Some(tail) = request.path.splitn(7, '/').nth(6) {
                to.push('/');
                to.push_str(tail);
            }
            let location = self.api(&to);
            let mut answer = Answer::error(301, "Moved Permanently").header("location", &location);
            if let crate::answer::Body::Json(body) = &mut answer.body {
                body["url"] = location.into();
            }
            return Err(answer);
        }
        Ok(id)
    }

    pub(crate) fn may(
        &self,
        caller: &Caller,
        repo: &Repo,
        permission: &str,
        level: Level,
    ) -> Result<(), Answer> {
        let is_shown = !repo.private && level == Level::Read && PUBLIC.contains(&permission);
        let hidden = |answer: Answer| if repo.private { Answer::not_found() } else { answer };
        match caller {
            Caller::Anonymous if is_shown => Ok(()),
            Caller::Anonymous => Err(hidden(Answer::error(401, "Requires authentication"))),
            Caller::App(_) => Err(hidden(inaccessible())),
            Caller::Installation(id, narrowed) => {
                let installation = self.installations.get(id).ok_or_else(Answer::not_found)?;
                let reaches = self.covers(installation, repo)
                    && narrowed.repos.as_ref().is_none_or(|repos| repos.contains(&repo.id));
                if is_shown {
                    return Ok(());
                }
                if !reaches {
                    return Err(hidden(inaccessible()));
                }
                let permissions =
                    narrowed.permissions.as_ref().unwrap_or(&installation.permissions);
                let granted = permissions.get(permission).copied();
                let is_metadata = permission == "metadata" && level == Level::Read;
                if is_metadata || granted.is_some_and(|granted| granted >= level) {
                    Ok(())
                } else {
                    Err(inaccessible())
                }
            }
            Caller::User(login, narrowed) => {
                let role = self.role(repo, login).ok_or_else(Answer::not_found)?;
                if narrowed.repos.as_ref().is_some_and(|repos| !repos.contains(&repo.id))
                    && !is_shown
                {
                    return Err(hidden(not_by_this_token()));
                }
                if let Some(permissions) = &narrowed.permissions {
                    let granted = permissions.get(permission).copied();
                    let is_metadata = permission == "metadata" && level == Level::Read;
                    if !is_shown && !is_metadata && granted.is_none_or(|granted| granted < level) {
                        return Err(not_by_this_token());
                    }
                }
                let needed = match (permission, level) {
                    ("checks", Level::Write) => {
                        return Err(Answer::error(403, "You must authenticate via a GitHub App."));
                    }
                    ("repository_hooks" | "administration", _) => Role::Admin,
                    ("contents" | "statuses", Level::Write) => Role::Write,
                    _ => Role::Read,
                };
                match role >= needed {
                    true => Ok(()),
                    // What somebody may not administer, GitHub does not show to be there.
                    false if needed == Role::Admin => Err(Answer::not_found()),
                    false => {
                        Err(hidden(Answer::error(403, "Must have push access to the repository")))
                    }
                }
            }
        }
    }

    /// Whether the caller may do this with an organisation.
    pub(crate) fn may_in(
        &self,
        caller: &Caller,
        organisation: &str,
        permission: &str,
        level: Level,
    ) -> Result<(), Answer> {
        let account = self.account(organisation).ok_or_else(Answer::not_found)?;
        match caller {
            Caller::Anonymous => Err(Answer::error(401, "Requires authentication")),
            Caller::App(_) => Err(inaccessible()),
            Caller::Installation(id, narrowed) => {
                let installation = self.installations.get(id).ok_or_else(Answer::not_found)?;
                if !installation.account.eq_ignore_ascii_case(organisation) {
                    return Err(inaccessible());
                }
                let permissions =
                    narrowed.permissions.as_ref().unwrap_or(&installation.permissions);
                match permissions.get(permission).is_some_and(|granted| *granted >= level) {
                    true => Ok(()),
                    false => Err(inaccessible()),
                }
            }
            Caller::User(login, narrowed) => {
                if let Some(permissions) = &narrowed.permissions
                    && permissions.get(permission).is_none_or(|granted| *granted < level)
                {
                    return Err(not_by_this_token());
                }
                let member = account.members.get(&login.to_ascii_lowercase()).copied();
                let is_enough = match permission {
                    "organization_hooks" | "administration" => member == Some(true),
                    _ => member.is_some(),
                };
                if is_enough { Ok(()) } else { Err(Answer::not_found()) }
            }
        }
    }
}

pub(crate) fn inaccessible() -> Answer {
    Answer::error(403, "Resource not accessible by integration")
}

fn not_by_this_token() -> Answer {
    Answer::error(403, "Resource not accessible by personal access token")
}
