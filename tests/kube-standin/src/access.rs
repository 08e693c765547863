//! Who asks, and what they may do: bearer tokens, TokenReview, and the rules of roles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Refusal, Resource};

/// A bearer token's owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    user: String,
    groups: Vec<String>,
    /// `None` may do anything.
    rules: Option<Vec<Value>>,
}

/// The owners of tokens. Who shows none may do anything.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<String, Owner>);

/// What a request does.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) verb: &'a str,
    pub(crate) resource: &'a Resource,
    pub(crate) sub: Option<&'a str>,
    pub(crate) namespace: &'a str,
    pub(crate) name: Option<&'a str>,
}

impl Owners {
    pub(crate) fn add(&mut self, token: &str, user: &str, groups: &[&str]) {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let owner = Owner { user: user.to_owned(), groups, rules: None };
        self.0.insert(token.to_owned(), owner);
    }

    pub(crate) fn bind(&mut self, token: &str, user: &str, rules: Vec<Value>) {
        let owner = self.0.entry(token.to_owned()).or_default();
        owner.user = user.to_owned();
        owner.rules.get_or_insert_default().extend(rules);
    }

    /// Lets a request through, or refuses it.
    pub(crate) fn check(&self, token: Option<&str>, asked: &Asked<'_>) -> Result<(), Refusal> {
        let Some(token) = token else { return Ok(()) };
        let Some(owner) = self.0.get(token) else {
            return Err(Refusal::new(401, "Unauthorized", "Unauthorized", json!({})));
        };
        let Some(rules) = &owner.rules else { return Ok(()) };
        if rules.iter().any(|rule| allows(rule, asked)) {
            return Ok(());
        }
        let scope = match asked.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let message = format!(
            "{} is forbidden: User {:?} cannot {} resource {:?} in API group {:?} {scope}",
            asked.resource.qualified(),
            owner.user,
            asked.verb,
            asked.full(),
            asked.resource.group,
        );
        let details = asked.resource.details(asked.name.unwrap_or_default());
        Err(Refusal::new(403, "Forbidden", message, details))
    }

    /// The status of a TokenReview.
    pub(crate) fn review(&self, token: &str) -> Value {
        match self.0.get(token) {
            Some(owner) => json!({
                "authenticated": true,
                "user": {"username": owner.user, "uid": owner.user, "groups": owner.groups},
            }),
            None => json!({"authenticated": false, "error": "[invalid bearer token]"}),
        }
    }
}

impl Asked<'_> {
    fn full(&self) -> String {
        match self.sub {
            None => self.resource.plural.clone(),
            Some(sub) => format!("{}/{sub}", self.resource.plural),
        }
    }
}

fn allows(rule: &Value, asked: &Asked<'_>) -> bool {
    let has = |list: &str, wanted: &str| {
        rule[list].as_array().into_iter().flatten().any(|one| one == "*" || one == wanted)
    };
    let names = rule["resourceNames"].as_array();
    let named = names.is_none_or(|names| {
        names.is_empty() || asked.name.is_some_and(|name| names.iter().any(|one| one == name))
    });
    has("apiGroups", &asked.resource.group)
        && has("resources", &asked.full())
        && has("verbs", asked.verb)
        && named
}
