//! What a route answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::access::Caller;

/// A request that was understood so far that a route was found for it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) params: BTreeMap<&'static str, String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) caller: Caller,
    pub(crate) token: Option<String>,
    /// Without the query, as a `Link` repeats it.
    pub(crate) path: String,
}

impl Request {
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, Answer> {
        self.param(name).parse().map_err(|_| Answer::error(400, &format!("{name} is invalid")))
    }

    /// Of the query, or else of the body.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let of_query =
            self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        of_query.or_else(|| self.body.get(name)?.as_str())
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.text(name) == Some("true") || self.body[name] == true
    }

    /// `per_page`: 20, and at most 100 (<https://docs.gitlab.com/api/rest/#pagination>).
    fn per_page(&self) -> usize {
        self.text("per_page").and_then(|text| text.parse().ok()).unwrap_or(20).clamp(1, 100)
    }

    fn again(&self, root: &str, changed: &[(&str, &str)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let is_changed = |key: &str| changed.iter().any(|(name, _)| *name == key);
        for (key, value) in self.query.iter().filter(|(key, _)| !is_changed(key)) {
            query.append_pair(key, value);
        }
        for (key, value) in changed {
            query.append_pair(key, value);
        }
        format!("<{root}{}?{}>; rel=\"next\"", self.path, query.finish())
    }

    /// One page of a list by its number, with the `Link` that leads to the next. Beyond so many things a
    /// list has to be read otherwise.
    pub(crate) fn paged(&self, root: &str, most: usize, all: Vec<Value>) -> Reply {
        let (size, page) = (self.per_page(), self.text("page").and_then(|page| page.parse().ok()));
        let page: usize = page.unwrap_or(1).max(1);
        if (page - 1).saturating_mul(size) >= most.max(1) && page > 1 {
            let text = format!(
                "Offset pagination has a maximum allowed offset of {most} for requests \
                                that return objects of this type. Remaining records can be retrieved \
                                using keyset pagination."
            );
            return Err(Answer::json(405, json!({ "error": text })));
        }
        let total = all.len();
        let here: Vec<Value> = all.into_iter().skip((page - 1) * size).take(size).collect();
        let answer = Answer::json(200, here.into()).header("x-per-page", size);
        Ok(if page * size < total {
            answer.header("link", self.again(root, &[("page", &(page + 1).to_string())]))
        } else {
            answer
        })
    }

    /// One page of a list that is read by the key of its last thing, when that is asked for.
    pub(crate) fn keyset(
        &self,
        root: &str,
        most: usize,
        all: Vec<Value>,
        key: &'static str,
    ) -> Reply {
        if self.text("pagination") != Some("keyset") {
            return self.paged(root, most, all);
        }
        let of = |one: &Value| one[key].as_str().unwrap_or_default().to_owned();
        let after = self.text("page_token").map(ToOwned::to_owned);
        let start = match &after {
            Some(after) => all.iter().position(|one| of(one) == *after).map(|at| at + 1),
            None => Some(0),
        };
        let start = start.ok_or_else(|| Answer::error(400, "page_token is invalid"))?;
        let size = self.per_page();
        let here: Vec<Value> = all.iter().skip(start).take(size).cloned().collect();
        let last = here.last().map(of).unwrap_or_default();
        let answer = Answer::json(200, here.into());
        Ok(if start + size < all.len() {
            answer.header("link", self.again(root, &[("page_token", &last)]))
        } else {
            answer
        })
    }
}

/// What goes back to the client.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    None,
    Json(Value),
    Raw(Vec<u8>, &'static str),
}

pub(crate) type Reply = Result<Answer, Answer>;

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(body) }
    }

    pub(crate) fn ok(body: Value) -> Reply {
        Ok(Self::json(200, body))
    }

    pub(crate) fn created(body: Value) -> Reply {
        Ok(Self::json(201, body))
    }

    pub(crate) fn no_content() -> Reply {
        Ok(Self { status: 204, headers: Vec::new(), body: Body::None })
    }

    pub(crate) fn raw(bytes: Vec<u8>) -> Reply {
        let body = Body::Raw(bytes, "application/octet-stream");
        Ok(Self { status: 200, headers: Vec::new(), body })
    }

    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::json(status, json!({ "message": message }))
    }

    /// What a field of a request is refused for.
    pub(crate) fn invalid(field: &str, why: &str) -> Self {
        Self::json(400, json!({ "message": { field: [why] } }))
    }

    pub(crate) fn oauth(status: u16, error: &str, description: &str) -> Self {
        Self::json(status, json!({ "error": error, "error_description": description }))
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::error(404, &format!("404 {what} Not Found"))
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

impl From<git2::Error> for Answer {
    fn from(error: git2::Error) -> Self {
        Self::error(500, &format!("the stand-in's own git failed: {error}"))
    }
}
