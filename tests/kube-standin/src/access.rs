//! Who asks, and what they may do: bearer tokens, TokenReview, and the rules of roles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Refusal, Resource};

/// Whom a role is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One user.
    User(String),
    /// Everybody in a group.
    Group(String),
}

/// A bearer token's owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
}

/// A role that is bound: in one namespace, or in the whole cluster.
#[derive(Debug)]
struct Binding {
    subject: Subject,
    namespace: Option<String>,
    rules: Vec<Value>,
}

/// The owners of tokens, and what roles let them do. Who shows no token may do anything.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    tokens: BTreeMap<String, Owner>,
    bindings: Vec<Binding>,
}

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
        self.tokens.insert(token.to_owned(), Owner { user: user.to_owned(), groups });
    }

    pub(crate) fn bind(&mut self, subject: Subject, namespace: Option<&str>, rules: &[Value]) {
        let namespace = namespace.map(str::to_owned);
        self.bindings.push(Binding { subject, namespace, rules: rules.to_vec() });
    }

    /// Whose token it is.
    pub(crate) fn owner(&self, token: &str) -> Result<&Owner, Refusal> {
        self.tokens
            .get(token)
            .ok_or_else(|| Refusal::new(401, "Unauthorized", "Unauthorized", json!({})))
    }

    /// The rules that hold for somebody in a namespace; an empty one is the whole cluster.
    fn rules<'a>(
        &'a self,
        owner: &'a Owner,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        let holds = move |binding: &&Binding| {
            let is_meant = match &binding.subject {
                Subject::User(user) => *user == owner.user,
                Subject::Group(group) => owner.groups.contains(group),
            };
            is_meant && binding.namespace.as_deref().is_none_or(|bound| bound == namespace)
        };
        self.bindings.iter().filter(holds).flat_map(|binding| &binding.rules)
    }

    /// Lets a request through, or refuses it.
    pub(crate) fn check(&self, token: Option<&str>, asked: &Asked<'_>) -> Result<(), Refusal> {
        let Some(token) = token else { return Ok(()) };
        let owner = self.owner(token)?;
        if self.rules(owner, asked.namespace).any(|rule| allows(rule, asked)) {
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

    /// The status of a SubjectAccessReview.
    pub(crate) fn review_access(&self, spec: &Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let groups = spec["groups"].as_array().into_iter().flatten().map(text).collect();
        let owner = Owner { user: text(&spec["user"]), groups };
        let allowed = match (spec.get("resourceAttributes"), spec.get("nonResourceAttributes")) {
            (Some(of), _) => {
                let field = |name: &str| text(&of[name]);
                let (sub, name) = (field("subresource"), field("name"));
                let resource = Resource::namespaced(&field("group"), "v1", "", &field("resource"));
                let namespace = field("namespace");
                let asked = Asked {
                    verb: &field("verb"),
                    resource: &resource,
                    sub: (!sub.is_empty()).then_some(&*sub),
                    namespace: &namespace,
                    name: (!name.is_empty()).then_some(&*name),
                };
                self.rules(&owner, &namespace).any(|rule| allows(rule, &asked))
            }
            (None, Some(of)) => self.rules(&owner, "").any(|rule| {
                has(rule, "nonResourceURLs", &text(&of["path"]))
                    && has(rule, "verbs", &text(&of["verb"]))
            }),
            (None, None) => false,
        };
        json!({"allowed": allowed})
    }

    /// The status of a TokenReview.
    pub(crate) fn review(&self, token: &str) -> Value {
        match self.tokens.get(token) {
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

/// Whether a list of a rule has a word, or all.
fn has(rule: &Value, list: &str, wanted: &str) -> bool {
    rule[list].as_array().into_iter().flatten().any(|one| one == "*" || one == wanted)
}

fn allows(rule: &Value, asked: &Asked<'_>) -> bool {
    let names = rule["resourceNames"].as_array();
    let named = names.is_none_or(|names| {
        names.is_empty() || asked.name.is_some_and(|name| names.iter().any(|one| one == name))
    });
    has(rule, "apiGroups", &asked.resource.group)
        && has(rule, "resources", &asked.full())
        && has(rule, "verbs", asked.verb)
        && named
}
