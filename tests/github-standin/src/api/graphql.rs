//! The one kind of GraphQL query that is understood: a repository's objects, and of trees their
//! entries, as deep as is asked for. Anything else is refused.

use std::collections::HashMap;

use git2::{ObjectType, Oid};
use serde_json::{Map, Value, json};

use super::{Route, route};
use crate::{
    access::{Caller, Level},
    answer::{Answer, Reply, Request},
    git::full_id,
    world::{Repo, World},
};

pub(super) const ROUTES: &[Route] = &[route("POST", "/graphql", query)];

/// GitHub shows so much of a blob.
const TEXT: usize = 512_000;

fn query(world: &mut World, request: &Request) -> Reply {
    if matches!(request.caller, Caller::Anonymous) {
        return Err(Answer::error(401, "Bad credentials"));
    }
    let text = request.text("query").unwrap_or_default();
    let variables = &request.body["variables"];
    match answered(world, request, text, variables) {
        Ok(data) => Answer::ok(json!({ "data": data })),
        Err(Refused::Query(message)) => Answer::ok(json!({ "errors": [{ "message": message }] })),
        Err(Refused::NotFound(name)) => Answer::ok(json!({
            "data": { "repository": null },
            "errors": [{
                "type": "NOT_FOUND", "path": ["repository"],
                "message": format!("Could not resolve to a Repository with the name '{name}'."),
            }],
        })),
        Err(Refused::Forbidden(message)) => Answer::ok(json!({
            "data": { "repository": null },
            "errors": [{ "type": "FORBIDDEN", "path": ["repository"], "message": message }],
        })),
    }
}

enum Refused {
    Query(String),
    NotFound(String),
    Forbidden(String),
}

fn answered(
    world: &World,
    request: &Request,
    text: &str,
    variables: &Value,
) -> Result<Value, Refused> {
    let fields = parse(text).map_err(Refused::Query)?;
    let mut data = Map::new();
    for field in &fields {
        if field.name != "repository" {
            return Err(Refused::Query(format!(
                "Field '{}' is not served by the stand-in",
                field.name
            )));
        }
        let argument = |name: &str| field.argument(name, variables).unwrap_or_default();
        let name = format!("{}/{}", argument("owner"), argument("name"));
        let missing = || Refused::NotFound(name.clone());
        let id = world.names.get(&name.to_ascii_lowercase()).ok_or_else(missing)?;
        let repo = world.repos.get(id).ok_or_else(missing)?;
        world.may(&request.caller, repo, "contents", Level::Read).map_err(
            |refused| match refused.status {
                404 => Refused::NotFound(name.clone()),
                _ => Refused::Forbidden("Resource not accessible by integration".to_owned()),
            },
        )?;
        let mut shown = Map::new();
        for field in &field.fields {
            if field.name != "object" {
                return Err(Refused::Query(format!(
                    "Field '{}' is not served by the stand-in",
                    field.name
                )));
            }
            let object = field
                .argument("oid", variables)
                .and_then(|id| full_id(&id))
                .filter(|id| repo.git.kind(*id).is_some())
                .or_else(|| expressed(repo, &field.argument("expression", variables)?));
            shown.insert(
                field.key(),
                match object {
                    Some(id) => shown_object(repo, id, &field.fields)?,
                    None => Value::Null,
                },
            );
        }
        data.insert(field.key(), shown.into());
    }
    Ok(data.into())
}

/// What `commit:path` stands for, or a name of a commit.
fn expressed(repo: &Repo, expression: &str) -> Option<Oid> {
    match expression.split_once(':') {
        Some((commit, path)) => {
            Some(repo.git.at(repo.git.resolve(commit)?, path.trim_matches('/'))?.id)
        }
        None => repo.git.resolve(expression),
    }
}

fn shown_object(repo: &Repo, id: Oid, fields: &[Field]) -> Result<Value, Refused> {
    let kind = match repo.git.kind(id) {
        Some(ObjectType::Tree) => "Tree",
        Some(ObjectType::Blob) => "Blob",
        Some(ObjectType::Tag) => "Tag",
        _ => "Commit",
    };
    let mut shown = Map::new();
    for field in fields {
        if let Some(on) = &field.on {
            if on == kind
                && let Value::Object(more) = shown_object(repo, id, &field.fields)?
            {
                shown.extend(more);
            }
            continue;
        }
        let bytes = || repo.git.blob(id).unwrap_or_default();
        let value = match (field.name.as_str(), kind) {
            ("__typename", _) => kind.into(),
            ("oid", _) => id.to_string().into(),
            ("byteSize", "Blob") => repo.git.size(id).into(),
            ("isTruncated", "Blob") => (bytes().len() > TEXT).into(),
            ("isBinary", "Blob") => bytes().contains(&0).into(),
            ("text", "Blob") => {
                let bytes = bytes();
                let cut = bytes.get(..bytes.len().min(TEXT)).unwrap_or_default();
                match bytes.contains(&0) {
                    true => Value::Null,
                    false => String::from_utf8_lossy(cut).into(),
                }
            }
            ("entries", "Tree") => {
                let mut entries = Vec::new();
                for entry in repo.git.entries(id, false).unwrap_or_default() {
                    let mut view = Map::new();
                    for field in &field.fields {
                        view.insert(
                            field.key(),
                            match field.name.as_str() {
                                "name" | "path" => entry.path.as_str().into(),
                                "mode" => entry.mode.into(),
                                "type" => entry.kind().into(),
                                "oid" => entry.id.to_string().into(),
                                "object" if entry.kind() == "commit" => Value::Null,
                                "object" => shown_object(repo, entry.id, &field.fields)?,
                                other => {
                                    return Err(Refused::Query(format!(
                                        "Field '{other}' doesn't exist on type 'TreeEntry'"
                                    )));
                                }
                            },
                        );
                    }
                    entries.push(view.into());
                }
                Value::Array(entries)
            }
            (other, kind) => {
                return Err(Refused::Query(format!(
                    "Field '{other}' doesn't exist on type '{kind}'"
                )));
            }
        };
        shown.insert(field.key(), value);
    }
    Ok(shown.into())
}

/// A field that is asked for; or, with `on`, fields for one type.
#[derive(Debug, Default)]
struct Field {
    alias: Option<String>,
    name: String,
    on: Option<String>,
    arguments: HashMap<String, String>,
    fields: Vec<Field>,
}

impl Field {
    fn key(&self) -> String {
        self.alias.clone().unwrap_or_else(|| self.name.clone())
    }

    /// An argument's value, where `$name` stands for a variable.
    fn argument(&self, name: &str, variables: &Value) -> Option<String> {
        let given = self.arguments.get(name)?;
        match given.strip_prefix('$') {
            Some(variable) => variables[variable].as_str().map(ToOwned::to_owned),
            None => Some(given.clone()),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Field>, String> {
    let tokens = tokens(text)?;
    let open = tokens.iter().position(|token| token == "{").ok_or("there is no selection")?;
    let mut at = open + 1;
    let fields = selection(&tokens, &mut at)?;
    if at == tokens.len() { Ok(fields) } else { Err("there is more than one query".to_owned()) }
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\n' | '\t' | '\r' | ',' => {}
            '"' => {
                let mut value = String::from("\"");
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => value.extend(characters.next()),
                        Some(other) => value.push(other),
                        None => return Err("a string does not end".to_owned()),
                    }
                }
                tokens.push(value);
            }
            '.' => {
                if characters.next() != Some('.') || characters.next() != Some('.') {
                    return Err("unexpected '.'".to_owned());
                }
                tokens.push("...".to_owned());
            }
            '{' | '}' | '(' | ')' | ':' | '!' | '[' | ']' | '=' => tokens.push(character.into()),
            '$' | '_' | 'a'..='z' | 'A'..='Z' | '0'..='9' => {
                let mut word = String::from(character);
                let is_word = |next: &char| next.is_ascii_alphanumeric() || *next == '_';
                while let Some(next) = characters.next_if(is_word) {
                    word.push(next);
                }
                tokens.push(word);
            }
            other => return Err(format!("unexpected {other:?}")),
        }
    }
    Ok(tokens)
}

fn selection(tokens: &[String], at: &mut usize) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    loop {
        let token = tokens.get(*at).ok_or("a selection does not end")?;
        *at += 1;
        if token == "}" {
            return Ok(fields);
        }
        let mut field = Field::default();
        if token == "..." {
            let mut next = || {
                let token = tokens.get(*at).cloned();
                *at += 1;
                token
            };
            if next().as_deref() != Some("on") {
                return Err("only inline fragments are served".to_owned());
            }
            field.on = next();
        } else {
            field.name = token.clone();
            if tokens.get(*at).is_some_and(|token| token == ":") {
                field.alias = Some(std::mem::take(&mut field.name));
                field.name = tokens.get(*at + 1).cloned().unwrap_or_default();
                *at += 2;
            }
            if tokens.get(*at).is_some_and(|token| token == "(") {
                *at += 1;
                while let Some(name) = tokens.get(*at).filter(|token| *token != ")") {
                    let value = tokens.get(*at + 2).ok_or("an argument has no value")?;
                    let value = value.strip_prefix('"').unwrap_or(value);
                    field.arguments.insert(name.clone(), value.to_owned());
                    *at += 3;
                }
                *at += 1;
            }
        }
        if tokens.get(*at).is_some_and(|token| token == "{") {
            *at += 1;
            field.fields = selection(tokens, at)?;
        }
        fields.push(field);
    }
}
