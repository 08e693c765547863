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
    pub(crate) accept: String,
    pub(crate) caller: Caller,
    /// What was shown for it.
    pub(crate) token: Option<String>,
    /// The path without a query, as a `Link` repeats it.
    pub(crate) path: String,
}

impl Request {
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A parameter that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<u64, Answer> {
        self.param(name).parse().map_err(|_| Answer::not_found())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name)?.as_str()
    }

    fn count(&self, name: &str, default: usize, most: usize) -> usize {
        let asked = self.query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        asked.clamp(1, most)
    }

    pub(crate) fn per_page(&self) -> usize {
        self.count("per_page", 30, 100)
    }

    pub(crate) fn page(&self) -> usize {
        self.count("page", 1, usize::MAX)
    }

    /// One page of a list, with the `Link` header that leads to the others.
    pub(crate) fn paged<T>(&self, root: &str, all: Vec<T>) -> (Vec<T>, Option<String>) {
        self.paged_by(root, all, self.per_page())
    }

    pub(crate) fn paged_by<T>(
        &self,
        root: &str,
        all: Vec<T>,
        per_page: usize,
    ) -> (Vec<T>, Option<String>) {
        let page = self.page();
        let last = all.len().div_ceil(per_page).max(1);
        let mut links = Vec::new();
        let mut link = |page: usize, rel: &str| {
            let page = page.to_string();
            links.push(format!("<{}>; rel=\"{rel}\"", self.again(root, "page", &page)));
        };
        if page > 1 {
            link((page - 1).min(last), "prev");
        }
        if page < last {
            link(page + 1, "next");
            link(last, "last");
        }
        if page > 1 {
            link(1, "first");
        }
        let links = (!links.is_empty()).then(|| links.join(", "));
        let here = all.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page);
        (here.collect(), links)
    }

    /// This request's address with one query parameter changed.
    pub(crate) fn again(&self, root: &str, name: &str, value: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.query.iter().filter(|(key, _)| key != name) {
            query.append_pair(key, value);
        }
        query.append_pair(name, value);
        format!("{root}{}?{}", self.path, query.finish())
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

    pub(crate) fn listed((items, links): (Vec<Value>, Option<String>)) -> Reply {
        Self::with_links(Value::Array(items), links)
    }

    /// A list that GitHub wraps, with the count of all.
    pub(crate) fn counted(
        name: &str,
        total: usize,
        (items, links): (Vec<Value>, Option<String>),
    ) -> Reply {
        Self::with_links(json!({ "total_count": total, name: items }), links)
    }

    fn with_links(body: Value, links: Option<String>) -> Reply {
        let mut answer = Self::json(200, body);
        answer.headers.extend(links.map(|links| ("link", links)));
        Ok(answer)
    }

    pub(crate) fn error(status: u16, message: &str) -> Self {
        let docs = "https://docs.github.com/rest";
        let body = json!({
            "message": message, "documentation_url": docs, "status": status.to_string(),
        });
        Self::json(status, body)
    }

    pub(crate) fn not_found() -> Self {
        Self::error(404, "Not Found")
    }

    /// What a field of a request is refused for.
    pub(crate) fn invalid(resource: &str, field: &str, code: &str, message: &str) -> Self {
        let mut answer = Self::error(422, "Validation Failed");
        if let Body::Json(body) = &mut answer.body {
            body["errors"] = json!([
                { "resource": resource, "field": field, "code": code, "message": message }
            ]);
        }
        answer
    }

    pub(crate) fn unprocessable(message: &str) -> Self {
        Self::error(422, message)
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
