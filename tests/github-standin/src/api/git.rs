//! Git's own objects and refs.

use data_encoding::BASE64;
use git2::{ObjectType, Oid};
use jiff::Timestamp;
use serde_json::json;

use super::{Route, get, route};
use crate::{
    access::Level,
    answer::{Answer, Body, Reply, Request},
    git::full_id,
    world::{Repo, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/git/ref/{+ref}", one_ref),
    get("/repos/{owner}/{repo}/git/matching-refs/{+ref}", matching),
    route("POST", "/repos/{owner}/{repo}/git/refs", create_ref),
    route("PATCH", "/repos/{owner}/{repo}/git/refs/{+ref}", update_ref),
    route("DELETE", "/repos/{owner}/{repo}/git/refs/{+ref}", delete_ref),
    get("/repos/{owner}/{repo}/git/commits/{commit_sha}", commit),
    get("/repos/{owner}/{repo}/git/tags/{tag_sha}", tag),
    get("/repos/{owner}/{repo}/git/trees/{+tree_sha}", tree),
    get("/repos/{owner}/{repo}/git/blobs/{file_sha}", blob),
];

/// A repository without a commit is a conflict for what reads its git.
pub(super) fn not_empty(repo: &Repo) -> Result<(), Answer> {
    match repo.git.refs("refs/heads/").is_empty() {
        true => Err(Answer::error(409, "Git Repository is empty.")),
        false => Ok(()),
    }
}

fn one_ref(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    not_empty(repo)?;
    let name = format!("refs/{}", request.param("ref"));
    let at = repo.git.position(&name).ok_or_else(Answer::not_found)?;
    Answer::ok(world.ref_view(repo, &name, at))
}

fn matching(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    not_empty(repo)?;
    let prefix = format!("refs/{}", request.param("ref"));
    let all = repo
        .git
        .refs(&prefix)
        .into_iter()
        .map(|(name, at)| world.ref_view(repo, &name, at))
        .collect();
    // The listing is not in the description's pages, but GitHub pages it.
    Answer::listed(request.paged(&world.root, all))
}

fn known_object(repo: &Repo, sha: Option<&str>) -> Result<Oid, Answer> {
    let id = sha.and_then(full_id).filter(|id| repo.git.kind(*id).is_some());
    id.ok_or_else(|| Answer::unprocessable("Object does not exist"))
}

fn create_ref(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Write)?;
    let repo = world.repo(id)?;
    let name = request.text("ref").unwrap_or_default().to_owned();
    if !name.starts_with("refs/") || name.matches('/').count() < 2 {
        return Err(Answer::unprocessable(
            "Reference name must start with 'refs/' and have at least two slashes.",
        ));
    }
    if repo.git.position(&name).is_some() {
        return Err(Answer::unprocessable("Reference already exists"));
    }
    let to = known_object(repo, request.text("sha"))?;
    let actor = world.actor(&request.caller);
    world.move_ref(id, &name, Some(to), &actor)?;
    Answer::created(world.ref_view(world.repo(id)?, &name, to))
}

fn update_ref(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Write)?;
    let repo = world.repo(id)?;
    let name = format!("refs/{}", request.param("ref"));
    let from = repo.git.position(&name);
    let from = from.ok_or_else(|| Answer::unprocessable("Reference does not exist"))?;
    let to = known_object(repo, request.text("sha"))?;
    if request.body["force"] != true && !repo.git.is_ancestor(from, to) {
        return Err(Answer::unprocessable("Update is not a fast forward"));
    }
    let actor = world.actor(&request.caller);
    world.move_ref(id, &name, Some(to), &actor)?;
    Answer::ok(world.ref_view(world.repo(id)?, &name, to))
}

fn delete_ref(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Write)?;
    let name = format!("refs/{}", request.param("ref"));
    if world.repo(id)?.git.position(&name).is_none() {
        return Err(Answer::unprocessable("Reference does not exist"));
    }
    let actor = world.actor(&request.caller);
    world.move_ref(id, &name, None, &actor)?;
    Answer::no_content()
}

fn commit(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    not_empty(repo)?;
    let sha = full_id(request.param("commit_sha")).filter(|id| repo.git.commit(*id).is_some());
    let sha = sha.ok_or_else(Answer::not_found)?;
    Answer::ok(world.git_commit_view(repo, sha))
}

fn tag(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    let sha = full_id(request.param("tag_sha")).ok_or_else(Answer::not_found)?;
    let tag = repo.git.tag(sha).ok_or_else(Answer::not_found)?;
    let kind = match tag.target_type() {
        Some(ObjectType::Tag) => "tag",
        Some(ObjectType::Tree) => "tree",
        Some(ObjectType::Blob) => "blob",
        _ => "commit",
    };
    let tagger = tag.tagger();
    let at = tagger.as_ref().map_or(0, |who| who.when().seconds());
    let part = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Answer::ok(json!({
        "sha": sha.to_string(), "node_id": crate::views::node_id("Tag", sha),
        "url": world.repo_api(repo, &format!("/git/tags/{sha}")),
        "tag": tag.name().unwrap_or_default(), "message": tag.message().ok().flatten().unwrap_or_default(),
        "tagger": {
            "name": part(tagger.as_ref().and_then(|who| who.name().ok())),
            "email": part(tagger.as_ref().and_then(|who| who.email().ok())),
            "date": Timestamp::from_second(at).unwrap_or_default(),
        },
        "object": {
            "sha": tag.target_id().to_string(), "type": kind,
            "url": world.repo_api(repo, &format!("/git/{kind}s/{}", tag.target_id())),
        },
        "verification": {
            "verified": false, "reason": "unsigned", "signature": null, "payload": null,
            "verified_at": null,
        },
    }))
}

fn tree(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    not_empty(repo)?;
    let tree = repo.git.tree(request.param("tree_sha")).ok_or_else(Answer::not_found)?;
    // Any value asks for it, `0` and `false` too.
    let recursive = request.query("recursive").is_some();
    let mut entries = repo.git.entries(tree, recursive)?;
    let truncated = entries.len() > world.limits.tree_entries;
    entries.truncate(world.limits.tree_entries);
    let entries: Vec<_> = entries.iter().map(|entry| world.tree_entry_view(repo, entry)).collect();
    Answer::ok(json!({
        "sha": tree.to_string(), "url": world.repo_api(repo, &format!("/git/trees/{tree}")),
        "tree": entries, "truncated": truncated,
    }))
}

/// GitHub tells blobs of up to 100 MB.
const LARGEST: usize = 100 << 20;

fn blob(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    not_empty(repo)?;
    let sha = full_id(request.param("file_sha")).ok_or_else(Answer::not_found)?;
    let bytes = repo.git.blob(sha).ok_or_else(Answer::not_found)?;
    if bytes.len() > LARGEST {
        return Err(Answer::error(403, "This API returns blobs up to 100 MB in size."));
    }
    if wants_raw(request) {
        return Ok(raw(bytes));
    }
    Answer::ok(json!({
        "sha": sha.to_string(), "node_id": crate::views::node_id("Blob", sha),
        "url": world.repo_api(repo, &format!("/git/blobs/{sha}")), "size": bytes.len(),
        "content": wrapped(&bytes), "encoding": "base64",
    }))
}

pub(super) fn wants_raw(request: &Request) -> bool {
    let accept = &request.accept;
    accept.contains("application/vnd.github") && accept.contains("raw")
}

pub(super) fn raw(bytes: Vec<u8>) -> Answer {
    Answer {
        status: 200,
        headers: Vec::new(),
        body: Body::Raw(bytes, "application/vnd.github.raw; charset=utf-8"),
    }
}

/// Base64 in lines of 60, as GitHub writes it.
pub(super) fn wrapped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, character) in BASE64.encode(bytes).chars().enumerate() {
        if index > 0 && index % 60 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text
}
