//! What happens in projects, and who is told of it. The API and people act through this alike.

use git2::Oid;
use serde_json::{Value, json};
use workflows_standin_kit::git::Git;

use crate::{
    answer::Answer,
    world::{MergeRequest, Note, World},
};

const NOTHING: &str = "0000000000000000000000000000000000000000";
/// A push tells so many commits, the newest.
const MOST_COMMITS: usize = 20;

/// A ref, and where it is to be.
pub(crate) type Move = (String, Option<Oid>);

impl World {
    /// Pushes some refs at once, and tells so: of each, unless they are too many, and of all together.
    pub(crate) fn push(&mut self, project_id: u64, moves: &[Move], actor: &str) -> Git<()> {
        let mut done: Vec<(String, Option<Oid>, Option<Oid>)> = Vec::new();
        {
            let Some(project) = self.projects.get_mut(&project_id) else { return Ok(()) };
            for (name, to) in moves {
                let before = project.git.position(name);
                if before == *to {
                    continue;
                }
                match to {
                    Some(to) => project.git.set_ref(name, *to)?,
                    None => project.git.delete_ref(name)?,
                }
                done.push((name.clone(), before, *to));
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        let text = |id: Option<Oid>| id.map_or_else(|| NOTHING.to_owned(), |id| id.to_string());
        if done.len() <= self.limits.push_hooks {
            for (name, before, after) in &done {
                let payload = self.push_view(project_id, name, *before, *after, actor)?;
                let is_tag = name.starts_with("refs/tags/");
                let (event, hook) = if is_tag {
                    ("Tag Push Hook", "tag_push_events")
                } else {
                    ("Push Hook", "push_events")
                };
                self.tell(project_id, event, hook, payload);
            }
        }
        let changes: Vec<Value> = done
            .iter()
            .map(|(name, before, after)| {
                json!({ "before": text(*before), "after": text(*after), "ref": name })
            })
            .collect();
        let update = json!({
            "event_name": "repository_update", "user_id": self.users.get(actor), "changes": changes,
            "project_id": project_id, "project": self.project_hook_view(project_id),
            "refs": done.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(),
        });
        self.tell(project_id, "Repository Update Hook", "repository_update_events", update);
        for (name, _, after) in &done {
            if let Some(branch) = name.strip_prefix("refs/heads/") {
                self.move_merge_requests(project_id, branch, *after, actor)?;
            }
        }
        Ok(())
    }

    fn push_view(
        &self,
        project_id: u64,
        name: &str,
        before: Option<Oid>,
        after: Option<Oid>,
        actor: &str,
    ) -> Git<Value> {
        let Some(project) = self.projects.get(&project_id) else { return Ok(Value::Null) };
        let marked = |id: Oid| match project.git.tag(id) {
            Some(tag) => tag.target_id(),
            None => id,
        };
        let is_tag = name.starts_with("refs/tags/");
        let commits = match after {
            Some(after) if !is_tag => {
                let main = format!("refs/heads/{}", project.default_branch);
                let main = (name != main).then(|| project.git.position(&main)).flatten();
                project.git.between(before.or(main), after)?
            }
            _ => Vec::new(),
        };
        let told: Vec<Value> = commits
            .iter()
            .take(MOST_COMMITS)
            .rev()
            .map(|id| self.commit_hook_view(project, *id))
            .collect();
        let kind = if is_tag { "tag_push" } else { "push" };
        let text = |id: Option<Oid>| id.map_or_else(|| NOTHING.to_owned(), |id| id.to_string());
        Ok(json!({
            "object_kind": kind, "event_name": kind, "before": text(before), "after": text(after),
            "ref": name, "ref_protected": false,
            "checkout_sha": after.map(|id| marked(id).to_string()),
            "user_id": self.users.get(actor), "user_name": actor, "user_username": actor,
            "project_id": project_id, "project": self.project_hook_view(project_id),
            "commits": told, "total_commits_count": commits.len(),
        }))
    }

    /// What a moved branch does to the merge requests that hang on it.
    fn move_merge_requests(
        &mut self,
        project_id: u64,
        branch: &str,
        to: Option<Oid>,
        actor: &str,
    ) -> Git<()> {
        let hanging: Vec<(u64, u64, bool)> = self
            .projects
            .values()
            .flat_map(|project| {
                let open = project.merge_requests.values().filter(|one| one.state == "opened");
                open.filter_map(move |one| {
                    let is_source = one.source_project == project_id && one.source_branch == branch;
                    let is_target = project.id == project_id && one.target_branch == branch;
                    (is_source || is_target).then_some((project.id, one.iid, is_source))
                })
            })
            .collect();
        for (of, iid, is_source) in hanging {
            match to {
                None if is_source => self.end(of, iid, "closed", actor),
                None => {}
                Some(to) if is_source => self.new_head(of, iid, to, actor)?,
                Some(to) => {
                    let is_in = self.merge_request(of, iid).is_ok_and(|one| {
                        self.projects.get(&of).is_some_and(|p| p.git.is_ancestor(one.head, to))
                    });
                    if is_in {
                        self.end(of, iid, "merged", actor);
                    }
                }
            }
        }
        Ok(())
    }

    fn new_head(&mut self, project: u64, iid: u64, to: Oid, actor: &str) -> Git<()> {
        let Ok(before) = self.merge_request(project, iid).map(|one| one.head) else {
            return Ok(());
        };
        if before == to {
            return Ok(());
        }
        self.set_head(project, iid, to)?;
        self.system_note(project, iid, "added 1 commit", actor);
        self.touch(project, iid);
        let more = json!({ "oldrev": before.to_string() });
        self.tell_merge_request(project, iid, "update", more, json!({}), actor);
        Ok(())
    }

    /// Brings the head into the target project, under `refs/merge-requests/N/head`.
    pub(crate) fn set_head(&mut self, project_id: u64, iid: u64, to: Oid) -> Git<()> {
        let (Some(project), Ok(one)) =
            (self.projects.get(&project_id), self.merge_request(project_id, iid))
        else {
            return Ok(());
        };
        let name = format!("refs/merge-requests/{iid}/head");
        if one.source_project != project_id
            && let Some(source) = self.projects.get(&one.source_project)
        {
            let from = format!("+refs/heads/{}:{name}", one.source_branch);
            project.git.fetch(source.git.path(), &[from])?;
        }
        project.git.set_ref(&name, to)?;
        let start = project.git.position(&format!("refs/heads/{}", one.target_branch));
        let start = start.unwrap_or(one.start);
        if let Some(one) = self.merge_request_mut(project_id, iid) {
            (one.head, one.start) = (to, start);
        }
        Ok(())
    }

    pub(crate) fn merge_request(&self, project: u64, iid: u64) -> Result<&MergeRequest, Answer> {
        let found = self.projects.get(&project).and_then(|one| one.merge_requests.get(&iid));
        found.ok_or_else(|| Answer::error(404, "404 Not found"))
    }

    pub(crate) fn merge_request_mut(
        &mut self,
        project: u64,
        iid: u64,
    ) -> Option<&mut MergeRequest> {
        self.projects.get_mut(&project)?.merge_requests.get_mut(&iid)
    }

    pub(crate) fn touch(&mut self, project: u64, iid: u64) {
        let now = self.now();
        if let Some(one) = self.merge_request_mut(project, iid) {
            one.updated_at = now;
        }
    }

    fn system_note(&mut self, project: u64, iid: u64, body: &str, actor: &str) {
        let note = self.new_note(body, actor, true);
        if let Some(one) = self.merge_request_mut(project, iid) {
            one.notes.insert(note.id, note);
        }
    }

    pub(crate) fn new_note(&mut self, body: &str, author: &str, system: bool) -> Note {
        let (id, now) = (self.new_id(), self.now());
        Note {
            id,
            author: author.to_owned(),
            body: body.to_owned(),
            system,
            kind: None,
            commit: None,
            created_at: now,
            updated_at: now,
            emoji: Vec::new(),
        }
    }

    /// Opens a merge request.
    pub(crate) fn open(
        &mut self,
        project_id: u64,
        source: (u64, &str),
        target: &str,
        title: &str,
        actor: &str,
    ) -> Result<u64, Answer> {
        let (source_project, source_branch) = source;
        let position = |project: u64, branch: &str| {
            self.projects.get(&project)?.git.position(&format!("refs/heads/{branch}"))
        };
        let head = position(source_project, source_branch)
            .ok_or_else(|| Answer::invalid("source_branch", "does not exist"))?;
        let start = position(project_id, target)
            .ok_or_else(|| Answer::invalid("target_branch", "does not exist"))?;
        let is_known = self.projects.get(&project_id).is_some_and(|project| {
            project.merge_requests.values().any(|one| {
                one.state == "opened"
                    && one.source_project == source_project
                    && one.source_branch == source_branch
                    && one.target_branch == target
            })
        });
        if is_known {
            let text = "Another open merge request already exists for this source branch";
            return Err(Answer::error(409, text));
        }
        let (id, now) = (self.new_id(), self.now());
        let draft = title.starts_with("Draft:");
        let Some(project) = self.projects.get_mut(&project_id) else {
            return Err(Answer::not_found("Project"));
        };
        let iid = project.merge_requests.len() as u64 + 1;
        let one = MergeRequest {
            id,
            iid,
            title: title.to_owned(),
            author: actor.to_owned(),
            draft,
            state: "opened",
            source_project,
            source_branch: source_branch.to_owned(),
            target_branch: target.to_owned(),
            head,
            start,
            labels: Default::default(),
            created_at: now,
            updated_at: now,
            notes: Default::default(),
        };
        project.merge_requests.insert(iid, one);
        self.set_head(project_id, iid, head)?;
        self.tell_merge_request(project_id, iid, "open", json!({}), json!({}), actor);
        Ok(iid)
    }

    /// Closes it, or notes that it is merged.
    pub(crate) fn end(&mut self, project: u64, iid: u64, state: &'static str, actor: &str) {
        let Some(one) = self.merge_request_mut(project, iid) else { return };
        if one.state != "opened" {
            return;
        }
        one.state = state;
        self.touch(project, iid);
        let action = if state == "merged" { "merge" } else { "close" };
        self.tell_merge_request(project, iid, action, json!({}), json!({}), actor);
    }

    pub(crate) fn reopen(&mut self, project: u64, iid: u64, actor: &str) -> Result<(), Answer> {
        let one = self.merge_request(project, iid)?.clone();
        if one.state != "closed" {
            return Err(Answer::invalid("state", "cannot transition via reopen"));
        }
        let source = self.projects.get(&one.source_project);
        let head =
            source.and_then(|it| it.git.position(&format!("refs/heads/{}", one.source_branch)));
        let head = head.ok_or_else(|| Answer::invalid("source_branch", "does not exist"))?;
        if let Some(one) = self.merge_request_mut(project, iid) {
            one.state = "opened";
        }
        self.set_head(project, iid, head)?;
        self.touch(project, iid);
        self.tell_merge_request(project, iid, "reopen", json!({}), json!({}), actor);
        Ok(())
    }

    /// Changes something about a merge request, which is an update; `changes` is what hooks are told.
    pub(crate) fn update(
        &mut self,
        project: u64,
        iid: u64,
        change: impl FnOnce(&mut MergeRequest) -> Value,
        actor: &str,
    ) {
        let Some(one) = self.merge_request_mut(project, iid) else { return };
        let changes = change(one);
        self.touch(project, iid);
        self.tell_merge_request(project, iid, "update", json!({}), changes, actor);
    }

    /// Merges with a merge commit.
    pub(crate) fn merge(&mut self, project_id: u64, iid: u64, actor: &str) -> Result<Oid, Answer> {
        let refused = || Answer::error(405, "405 Method Not Allowed");
        let one = self.merge_request(project_id, iid)?.clone();
        if one.state != "opened" || one.draft {
            return Err(refused());
        }
        let target = format!("refs/heads/{}", one.target_branch);
        let project = self.projects.get(&project_id).ok_or_else(refused)?;
        let at = project.git.position(&target).ok_or_else(refused)?;
        let tree = project.git.merged_tree(at, one.head).ok_or_else(refused)?;
        let text = format!("Merge branch '{}' into '{}'", one.source_branch, one.target_branch);
        let person = self.person(actor);
        let merged =
            project.git.write_commit_of(tree, &[at, one.head], &text, &person, self.now())?;
        self.push(project_id, &[(target, Some(merged))], actor)?;
        Ok(merged)
    }

    /// Writes a note on a merge request.
    pub(crate) fn note(
        &mut self,
        project: u64,
        iid: u64,
        body: &str,
        kind: Option<&'static str>,
        actor: &str,
    ) -> Result<u64, Answer> {
        self.merge_request(project, iid)?;
        let mut note = self.new_note(body, actor, false);
        note.kind = kind;
        let id = note.id;
        if let Some(one) = self.merge_request_mut(project, iid) {
            one.notes.insert(id, note);
        }
        self.touch(project, iid);
        self.tell_note(project, Some(iid), id, "create", actor);
        Ok(id)
    }

    pub(crate) fn note_on_commit(
        &mut self,
        project: u64,
        commit: Oid,
        body: &str,
        actor: &str,
    ) -> u64 {
        let mut note = self.new_note(body, actor, false);
        note.commit = Some(commit);
        let id = note.id;
        if let Some(project) = self.projects.get_mut(&project) {
            project.notes.insert(id, note);
        }
        self.tell_note(project, None, id, "create", actor);
        id
    }
}
