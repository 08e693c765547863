//! Things as GitLab writes them in JSON, in its API and in its events
//! (<https://docs.gitlab.com/user/project/integrations/webhook_events/>).

use git2::Oid;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    deliveries::Hook,
    world::{MergeRequest, Note, Pipeline, Project, Status, World},
};

/// An instant as the API writes it: in milliseconds.
pub(crate) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// An instant as events write it: in seconds.
fn event_instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

impl World {
    pub(crate) fn user_view(&self, name: &str) -> Value {
        let state = if self.blocked.contains(name) { "blocked" } else { "active" };
        json!({
            "id": self.users.get(name), "username": name, "name": name, "state": state,
            "avatar_url": null, "web_url": format!("{}/{name}", self.root),
        })
    }

    fn user_hook_view(&self, name: &str) -> Value {
        json!({
            "id": self.users.get(name), "name": name, "username": name, "avatar_url": null,
            "email": "[REDACTED]",
        })
    }

    pub(crate) fn web(&self, project: &Project, path: &str) -> String {
        format!("{}/{}{path}", self.root, project.path)
    }

    /// <https://docs.gitlab.com/api/projects/#get-a-single-project>
    pub(crate) fn project_view(&self, project: &Project, is_known: bool) -> Value {
        let has_commits = !project.git.refs("refs/heads/").is_empty();
        let name = project.path.rsplit('/').next().unwrap_or_default();
        let mut view = json!({
            "id": project.id, "path": name, "name": name, "path_with_namespace": project.path,
            "default_branch": has_commits.then_some(project.default_branch.as_str()),
            "http_url_to_repo": self.web(project, ".git"), "web_url": self.web(project, ""),
            "empty_repo": !has_commits,
            "forked_from_project": project.fork_of.map(|id| json!({ "id": id })),
        });
        if is_known {
            view["visibility"] = if project.is_public { "public" } else { "private" }.into();
        }
        view
    }

    pub(crate) fn project_hook_view(&self, project: u64) -> Value {
        let Some(project) = self.projects.get(&project) else { return Value::Null };
        let name = project.path.rsplit('/').next().unwrap_or_default();
        json!({
            "id": project.id, "name": name, "description": null, "avatar_url": null,
            "namespace": project.path.split('/').next(), "web_url": self.web(project, ""),
            "git_http_url": self.web(project, ".git"), "path_with_namespace": project.path,
            "visibility_level": if project.is_public { 20 } else { 0 },
            "default_branch": project.default_branch, "http_url": self.web(project, ".git"),
        })
    }

    /// <https://docs.gitlab.com/api/commits/#retrieve-a-commit>
    pub(crate) fn commit_view(&self, project: &Project, id: Oid) -> Value {
        let Some(commit) = project.git.commit(id) else { return Value::Null };
        let at = |time: git2::Time| Timestamp::from_second(time.seconds()).map(instant).ok();
        let (author, committer) = (commit.author(), commit.committer());
        json!({
            "id": id.to_string(), "short_id": id.to_string().get(..8),
            "title": commit.summary().ok().flatten().unwrap_or_default(),
            "message": commit.message().unwrap_or_default(),
            "author_name": author.name().unwrap_or_default(),
            "author_email": author.email().unwrap_or_default(),
            "authored_date": at(author.when()), "created_at": at(committer.when()),
            "committer_name": committer.name().unwrap_or_default(),
            "committer_email": committer.email().unwrap_or_default(),
            "committed_date": at(committer.when()),
            "parent_ids": commit.parent_ids().map(|id| id.to_string()).collect::<Vec<_>>(),
            "web_url": self.web(project, &format!("/-/commit/{id}")),
        })
    }

    pub(crate) fn commit_hook_view(&self, project: &Project, id: Oid) -> Value {
        let view = self.commit_view(project, id);
        let files = project
            .git
            .commit(id)
            .and_then(|commit| project.git.diff(commit.parent_ids().next(), id).ok());
        let of = |statuses: &[&str]| -> Vec<String> {
            let files = files.iter().flatten().filter(|file| statuses.contains(&file.status));
            files.map(|file| file.path.clone()).collect()
        };
        json!({
            "id": view["id"], "message": view["message"], "title": view["title"],
            "timestamp": view["committed_date"], "url": view["web_url"],
            "author": { "name": view["author_name"], "email": "[REDACTED]" },
            "added": of(&["added", "renamed", "copied"]), "removed": of(&["removed"]),
            "modified": of(&["modified", "changed"]),
        })
    }

    /// A merge request as lists tell it (<https://docs.gitlab.com/api/merge_requests/>).
    pub(crate) fn merge_request_view(&self, project: &Project, one: &MergeRequest) -> Value {
        json!({
            "id": one.id, "iid": one.iid, "project_id": project.id, "title": one.title,
            "description": null, "state": one.state, "created_at": instant(one.created_at),
            "updated_at": instant(one.updated_at), "target_branch": one.target_branch,
            "source_branch": one.source_branch, "author": self.user_view(&one.author),
            "source_project_id": self.projects.contains_key(&one.source_project)
                .then_some(one.source_project),
            "target_project_id": project.id, "labels": one.labels, "draft": one.draft,
            "work_in_progress": one.draft, "sha": one.head.to_string(),
            "merge_status": "can_be_merged", "user_notes_count": one.notes.len(),
            "web_url": self.web(project, &format!("/-/merge_requests/{}", one.iid)),
        })
    }

    /// A merge request as it is told alone.
    pub(crate) fn whole_merge_request_view(&self, project: &Project, one: &MergeRequest) -> Value {
        let mut view = self.merge_request_view(project, one);
        let base = project.git.merge_base(one.start, one.head).unwrap_or(one.start);
        view["diff_refs"] = json!({
            "base_sha": base.to_string(), "head_sha": one.head.to_string(),
            "start_sha": one.start.to_string(),
        });
        view
    }

    fn merge_request_hook_view(&self, project: &Project, one: &MergeRequest) -> Value {
        let labels: Vec<Value> = one.labels.iter().map(|label| label_view(label)).collect();
        json!({
            "id": one.id, "iid": one.iid, "title": one.title, "description": null,
            "author_id": self.users.get(&one.author), "state": one.state,
            "source_branch": one.source_branch, "target_branch": one.target_branch,
            "source_project_id": one.source_project, "target_project_id": project.id,
            "created_at": event_instant(one.created_at),
            "updated_at": event_instant(one.updated_at), "draft": one.draft,
            "work_in_progress": one.draft, "labels": labels, "merge_status": "unchecked",
            "url": self.web(project, &format!("/-/merge_requests/{}", one.iid)),
            "source": self.project_hook_view(one.source_project),
            "target": self.project_hook_view(project.id),
            "last_commit": self.commit_hook_view(project, one.head),
        })
    }

    pub(crate) fn tell_merge_request(
        &mut self,
        project_id: u64,
        iid: u64,
        action: &str,
        more: Value,
        changes: Value,
        actor: &str,
    ) {
        let Some(project) = self.projects.get(&project_id) else { return };
        let Some(one) = project.merge_requests.get(&iid) else { return };
        let mut attributes = self.merge_request_hook_view(project, one);
        attributes["action"] = action.into();
        merge(&mut attributes, more);
        let payload = json!({
            "object_kind": "merge_request", "event_type": "merge_request",
            "user": self.user_hook_view(actor), "project": self.project_hook_view(project_id),
            "labels": attributes["labels"], "object_attributes": attributes, "changes": changes,
        });
        self.tell(project_id, "Merge Request Hook", "merge_requests_events", payload);
    }

    /// <https://docs.gitlab.com/api/notes/#merge-requests>
    pub(crate) fn note_view(&self, note: &Note) -> Value {
        json!({
            "id": note.id, "type": note.kind, "body": note.body, "system": note.system,
            "author": self.user_view(&note.author), "created_at": instant(note.created_at),
            "updated_at": instant(note.updated_at), "internal": false,
        })
    }

    pub(crate) fn tell_note(
        &mut self,
        project_id: u64,
        iid: Option<u64>,
        id: u64,
        action: &str,
        actor: &str,
    ) {
        let Some(project) = self.projects.get(&project_id) else { return };
        let of = iid.and_then(|iid| project.merge_requests.get(&iid));
        let Some(note) = of.map_or(&project.notes, |one| &one.notes).get(&id) else { return };
        let mut payload = json!({
            "object_kind": "note", "event_type": "note", "user": self.user_hook_view(actor),
            "project_id": project_id, "project": self.project_hook_view(project_id),
            "object_attributes": {
                "id": note.id, "note": note.body, "author_id": self.users.get(&note.author),
                "created_at": event_instant(note.created_at),
                "updated_at": event_instant(note.updated_at), "project_id": project_id,
                "system": note.system, "action": action, "type": note.kind,
                "noteable_type": if of.is_some() { "MergeRequest" } else { "Commit" },
                "commit_id": note.commit.map(|id| id.to_string()),
                "url": self.web(project, &format!("#note_{}", note.id)),
            },
        });
        match (of, note.commit) {
            (Some(one), _) => {
                payload["merge_request"] = self.merge_request_hook_view(project, one);
            }
            (None, Some(commit)) => payload["commit"] = self.commit_hook_view(project, commit),
            (None, None) => {}
        }
        self.tell(project_id, "Note Hook", "note_events", payload);
    }

    /// <https://docs.gitlab.com/api/commits/#commit-status>
    pub(crate) fn status_view(&self, pipeline: &Pipeline, status: &Status) -> Value {
        json!({
            "id": status.id, "sha": pipeline.sha.to_string(), "ref": pipeline.reference,
            "status": status.state, "name": status.name, "target_url": status.target_url,
            "description": status.description, "created_at": instant(status.created_at),
            "started_at": null, "finished_at": null, "allow_failure": false,
            "author": self.user_view(&status.author), "pipeline_id": pipeline.id,
        })
    }

    /// <https://docs.gitlab.com/api/project_webhooks/#get-a-project-webhook>
    pub(crate) fn hook_view(&self, hook: &Hook) -> Value {
        let now = self.now();
        let mut view = json!({
            "id": hook.id, "url": hook.url, "enable_ssl_verification": hook.verifies,
            "push_events_branch_filter": hook.branch_filter, "created_at": instant(hook.created_at),
            "alert_status": hook.alert_status(now), "token_present": hook.token.is_some(),
            "signing_token_present": hook.signing_token.is_some(),
            "disabled_until": hook.disabled_until.filter(|until| *until > now).map(instant),
        });
        for (event, is_wanted) in &hook.events {
            view[event.as_str()] = (*is_wanted).into();
        }
        view
    }
}

pub(crate) fn label_view(label: &str) -> Value {
    let id = label.bytes().fold(7_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_003);
    json!({ "id": id, "title": label, "color": "#ffffff", "type": "ProjectLabel" })
}

/// Adds members to an object.
pub(crate) fn merge(to: &mut Value, more: Value) {
    if let (Some(to), Value::Object(more)) = (to.as_object_mut(), more) {
        to.extend(more);
    }
}
