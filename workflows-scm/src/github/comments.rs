//! The one comment that is kept up to date on a pull request, and reactions to comments of others.

use async_trait::async_trait;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use workflows_core::{ErrorKind, Result, hash_of, repo::Commenter};

use super::{api::Client, comment_id::CommentId, connection::GitHubRepository, credentials::Kind};
use crate::rest::{Priority, Route, text::cut_bytes};

const OPERATION: &str = "write a comment";
/// Of a comment's text (<https://docs.github.com/en/rest/issues/comments>). GitHub takes 65,536
/// characters.
const TEXT: usize = 65_000;

#[derive(Debug, Deserialize)]
struct Comment {
    id: u64,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    user: Option<Account>,
    #[serde(default)]
    performed_via_github_app: Option<Account>,
}

#[derive(Debug, Deserialize)]
struct Account {
    id: u64,
}

/// Whose comments are our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ourselves {
    App(u64),
    User(u64),
}

impl Ourselves {
    fn wrote(self, comment: &Comment) -> bool {
        match self {
            Self::App(id) => {
                comment.performed_via_github_app.as_ref().is_some_and(|app| app.id == id)
            }
            Self::User(id) => {
                comment.performed_via_github_app.is_none()
                    && comment.user.as_ref().is_some_and(|user| user.id == id)
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    body: &'a str,
}

#[async_trait]
impl Commenter for GitHubRepository {
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
        if let Some(id) = known.and_then(|id| id.parse::<u64>().ok())
            && let Some(edited) = self.edit(id, &text).await?
        {
            return Ok(edited);
        }
        if let Some(id) = self.find(pull_request, &marker).await?
            && let Some(edited) = self.edit(id, &text).await?
        {
            return Ok(edited);
        }
        let route = self.of_pull_request(pull_request);
        let made: Comment =
            self.commenting().post_content(OPERATION, &route, &Body { body: &text }).await?;
        Ok(made.id.to_string())
    }

    async fn acknowledge(&self, _pull_request: u64, comment: &str, accepted: bool) -> Result<()> {
        #[derive(Debug, Serialize)]
        struct Reaction {
            content: &'static str,
        }
        let digits;
        let route = match comment.parse()? {
            CommentId::Conversation(id) => {
                digits = id.to_string();
                self.route(["issues", "comments", &digits, "reactions"])
            }
            CommentId::Line(id) => {
                digits = id.to_string();
                self.route(["pulls", "comments", &digits, "reactions"])
            }
            CommentId::Commit(id) => {
                digits = id.to_string();
                self.route(["comments", &digits, "reactions"])
            }
            // GitHub has no way to react to what was written with a whole review.
            CommentId::Review(_) => return Ok(()),
        };
        // GitHub answers with the reaction that is there when it is.
        let reaction = Reaction { content: if accepted { "rocket" } else { "confused" } };
        let client = self.commenting();
        client.post::<Account>("react to a comment", &route, &reaction).await.map(drop)
    }
}

impl GitHubRepository {
    fn commenting(&self) -> Client {
        self.client(Priority::Status)
    }

    fn of_pull_request(&self, number: u64) -> Route {
        self.route(["issues", &number.to_string(), "comments"])
    }

    /// Changes a comment; `None` when it was deleted.
    async fn edit(&self, id: u64, text: &str) -> Result<Option<String>> {
        let route = self.route(["issues", "comments", &id.to_string()]);
        match self.commenting().patch::<Comment>(OPERATION, &route, &Body { body: text }).await {
            Ok(edited) => Ok(Some(edited.id.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Our own comment that begins with the marker. Anybody can write the marker into a comment;
    /// nobody else can write as us.
    async fn find(&self, pull_request: u64, marker: &str) -> Result<Option<u64>> {
        let Some(ourselves) = self.ourselves().await? else { return Ok(None) };
        let route = self.of_pull_request(pull_request).query("per_page", 100);
        let mut comments = self.commenting().pages::<Comment>(OPERATION, route);
        while let Some(comment) = comments.try_next().await? {
            let begins = comment.body.as_ref().is_some_and(|body| body.starts_with(marker));
            if begins && ourselves.wrote(&comment) {
                return Ok(Some(comment.id));
            }
        }
        Ok(None)
    }

    /// `None` when the credential may not know whose it is.
    async fn ourselves(&self) -> Result<Option<Ourselves>> {
        match self.api.authorizer().kind() {
            Kind::App { id, .. } => Ok(Some(Ourselves::App(*id))),
            Kind::Anonymous => Ok(None),
            Kind::Token { .. } => {
                let me = self.commenting().get::<Account>(OPERATION, &Route::new(["user"])).await;
                match me {
                    Ok(me) => Ok(Some(Ourselves::User(me.id))),
                    Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }
}
