//! The one note that is kept up to date on a merge request, and reactions to notes of others
//! (<https://docs.gitlab.com/api/notes/#merge-requests>, <https://docs.gitlab.com/api/emoji_reactions/>).

use async_trait::async_trait;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use workflows_core::{Error, ErrorKind, Result, hash_of, repo::Commenter};

use super::{api::Client, connection::GitLabProject};
use crate::rest::{Priority, Route, text::cut_bytes};

const OPERATION: &str = "write a note";
/// Of a note's text. GitLab takes a million characters, which nobody reads.
const TEXT: usize = 65_000;
/// Of a comment on a commit, in its id: GitLab counts all notes together, and takes no reactions to
/// these.
pub(super) const ON_COMMIT: &str = "commit-";

#[derive(Debug, Deserialize)]
struct Note {
    id: u64,
    #[serde(default)]
    body: String,
    author: Person,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Person {
    id: u64,
}

#[async_trait]
impl Commenter for GitLabProject {
    async fn upsert(
        &self,
        pull_request: u64,
        marker: &str,
        body: &str,
        known: Option<&str>,
    ) -> Result<String> {
        // In a comment of HTML, which readers do not see. A digest cannot end it.
        let marker = format!("<!-- workflows {} -->", hash_of(&[marker]));
        let text = format!("{marker}\n{}", cut_bytes(body, TEXT - marker.len()));
        if let Some(id) = known.and_then(|id| id.parse().ok())
            && let Some(edited) = self.edit(pull_request, id, &text).await?
        {
            return Ok(edited);
        }
        if let Some(id) = self.find(pull_request, &marker).await?
            && let Some(edited) = self.edit(pull_request, id, &text).await?
        {
            return Ok(edited);
        }
        let route = self.notes(pull_request);
        let body = json!({ "body": text });
        let made: Note = self.noting().post_content(OPERATION, &route, &body).await?;
        Ok(made.id.to_string())
    }

    async fn acknowledge(&self, pull_request: u64, comment: &str, accepted: bool) -> Result<()> {
        if comment.starts_with(ON_COMMIT) {
            return Ok(());
        }
        let id: u64 = comment.parse().map_err(|_| {
            Error::invalid("react to a note", "it is no id of GitLab's")
                .with("id", crate::printable::printable(comment))
        })?;
        let number = (pull_request.to_string(), id.to_string());
        let route = self.route(["merge_requests", &number.0, "notes", &number.1, "award_emoji"]);
        let name = if accepted { "rocket" } else { "confused" };
        let client = self.noting();
        match client.post::<Value>("react to a note", &route, &json!({ "name": name })).await {
            Ok(_) => Ok(()),
            // GitLab says of one that is there that it is not found.
            Err(error) if error.to_string().contains("already been taken") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl GitLabProject {
    fn noting(&self) -> Client {
        self.client(Priority::Status)
    }

    pub(super) fn notes(&self, number: u64) -> Route {
        self.route(["merge_requests", &number.to_string(), "notes"])
    }

    /// Changes a note; `None` when it was deleted.
    async fn edit(&self, number: u64, id: u64, text: &str) -> Result<Option<String>> {
        let route = self.notes(number).below(&id.to_string())?;
        match self.noting().put::<Note>(OPERATION, &route, &json!({ "body": text })).await {
            Ok(edited) => Ok(Some(edited.id.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Our own note that begins with the marker. Anybody can write the marker into a note; nobody else
    /// can write as us.
    async fn find(&self, number: u64, marker: &str) -> Result<Option<u64>> {
        let me: Person = self.noting().look(OPERATION, &Route::new(["user"])).await?;
        let route = self
            .notes(number)
            .query("order_by", "created_at")
            .query("sort", "asc")
            .query("per_page", 100);
        let mut notes = self.noting().pages::<Note>(OPERATION, route);
        while let Some(note) = notes.try_next().await? {
            if note.author == me && note.body.starts_with(marker) {
                return Ok(Some(note.id));
            }
        }
        Ok(None)
    }
}
