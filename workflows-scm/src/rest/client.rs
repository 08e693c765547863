//! A host's API as the rest of its driver uses it: typed calls on relative routes.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use workflows_core::{Error, ErrorKind, Result, SharedClock};

use super::{
    budget::{Cost, Governor, Priority},
    conditional::{ConditionalCache, Shape},
    host::{Authorize, Host},
    route::Route,
    transport::{Answer, Call, Transport, check},
};

const NOT_UNDERSTOOD: &str = "the host's answer is not understood";
/// The longest JSON answer that is read.
const MOST_JSON: usize = 32 << 20;
/// The most pages of one list that are read; a list that never ends is a mistake of the server.
const MOST_PAGES: usize = 1_000;

/// One credential's way to its host, shared by all repositories that it serves.
#[derive(Debug)]
pub(crate) struct Api<H: Host>(Arc<Inner<H>>);

impl<H: Host> Clone for Api<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<H: Host> {
    transport: Arc<Transport<H>>,
    authorizer: H::Authorizer,
    conditional: ConditionalCache<H>,
    clock: SharedClock,
}

impl<H: Host> Api<H> {
    pub(crate) fn new(
        transport: Arc<Transport<H>>,
        authorizer: H::Authorizer,
        conditional: ConditionalCache<H>,
        clock: SharedClock,
    ) -> Self {
        Self(Arc::new(Inner { transport, authorizer, conditional, clock }))
    }

    /// Calls about something, of one priority.
    pub(crate) fn about(&self, scope: H::Scope, priority: Priority) -> Client<H> {
        Client { api: self.clone(), scope, priority }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(crate) fn authorizer(&self) -> &H::Authorizer {
        &self.0.authorizer
    }

    pub(crate) fn governor(&self) -> &Arc<Governor<H>> {
        self.0.transport.governor()
    }
}

/// Calls about one thing, of one priority.
///
/// `operation` is what errors say was being done, such as `report a check`. Nothing is retried
/// here but a call whose token was not accepted, once, with a new one.
///
/// # Errors
///
/// Every method: `RateLimited` with the instant from which a call may be made, `Transient` when no
/// whole answer came in time, `Denied`, `NotFound`, `Conflict` and `Invalid` as the host says.
#[derive(Debug)]
pub(crate) struct Client<H: Host> {
    api: Api<H>,
    scope: H::Scope,
    priority: Priority,
}

/// One page of a list.
#[derive(Debug)]
struct Page<T> {
    items: Vec<T>,
    /// Where the next one is.
    next: Option<Route>,
}

impl<H: Host> Clone for Client<H> {
    fn clone(&self) -> Self {
        Self { api: self.api.clone(), scope: self.scope.clone(), priority: self.priority }
    }
}

impl<H: Host> Client<H> {
    /// The time.
    #[cfg(feature = "gitlab")]
    pub(crate) fn now(&self) -> Timestamp {
        self.api.now()
    }

    /// Gets a thing.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        route: &Route,
    ) -> Result<T> {
        let call = self.call(operation, Method::GET, route);
        let answer = self.read(&call, None).await?;
        parse(&call, &answer.body)
    }

    /// Gets a thing that is looked at again and again: the host is asked whether it changed.
    pub(crate) async fn look<T: Serialize + DeserializeOwned + 'static>(
        &self,
        operation: &'static str,
        route: &Route,
    ) -> Result<T> {
        let call = self.call(operation, Method::GET, route);
        let answer = self.read(&call, Some(Shape::of::<T>())).await?;
        parse(&call, &answer.body)
    }

    /// Gets the bytes of a file or a blob, at most so many.
    ///
    /// # Errors
    ///
    /// `Invalid` when there are more.
    pub(crate) async fn get_raw(
        &self,
        operation: &'static str,
        route: &Route,
        max_bytes: usize,
    ) -> Result<Bytes> {
        let call = Call { accept: H::RAW, max_bytes, ..self.call(operation, Method::GET, route) };
        // What is at a commit is cached by commit, elsewhere.
        Ok(self.send(&call).await?.body.clone())
    }

    /// Makes a thing.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        route: &Route,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T> {
        let call = self.write(operation, Method::POST, route, body)?;
        let answer = self.send(&call).await?;
        parse(&call, &answer.body)
    }

    /// Makes a thing that people are told of, such as a comment, of which hosts allow few.
    pub(crate) async fn post_content<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        route: &Route,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T> {
        let call =
            Call { cost: Cost::Content, ..self.write(operation, Method::POST, route, body)? };
        let answer = self.send(&call).await?;
        parse(&call, &answer.body)
    }

    /// Changes a thing.
    #[cfg(feature = "github")]
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        route: &Route,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T> {
        let call = self.write(operation, Method::PATCH, route, body)?;
        let answer = self.send(&call).await?;
        parse(&call, &answer.body)
    }

    /// Puts a thing in place of another.
    #[cfg(feature = "gitlab")]
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        route: &Route,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T> {
        let call = self.write(operation, Method::PUT, route, body)?;
        let answer = self.send(&call).await?;
        parse(&call, &answer.body)
    }

    /// Tells the host to do something; what it answers is not looked at (`202` and `204` have no
    /// content).
    pub(crate) async fn tell(&self, operation: &'static str, route: &Route) -> Result<()> {
        let call = Call { cost: Cost::Write, ..self.call(operation, Method::POST, route) };
        self.send(&call).await.map(drop)
    }

    /// Removes a thing.
    pub(crate) async fn delete(&self, operation: &'static str, route: &Route) -> Result<()> {
        let call = Call { cost: Cost::Write, ..self.call(operation, Method::DELETE, route) };
        self.send(&call).await.map(drop)
    }

    /// Queries GraphQL; returns `data`.
    ///
    /// # Errors
    ///
    /// Errors of the query come with status 200; they have the kind that their type says.
    pub(crate) async fn graphql<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        query: &str,
        variables: Value,
    ) -> Result<T> {
        let route = Route::graphql();
        let body = serde_json::json!({ "query": query, "variables": variables });
        let call = Call { cost: Cost::Read, ..self.write(operation, Method::POST, &route, &body)? };
        let answer = self.send(&call).await?;
        let mut answered: Value = parse(&call, &answer.body)?;
        if let Some(errors) = answered.get("errors").and_then(Value::as_array)
            && let Some(first) = errors.first()
        {
            return Err(graphql_failed::<H>(&call, &answer, first));
        }
        serde_json::from_value(answered["data"].take())
            .map_err(|error| call.failed(ErrorKind::Transient, NOT_UNDERSTOOD).caused_by(error))
    }

    /// One page of a list that is looked at again and again, and whether there are more.
    pub(crate) async fn look_at_page<T: Serialize + DeserializeOwned + 'static>(
        &self,
        operation: &'static str,
        route: &Route,
    ) -> Result<(Vec<T>, bool)> {
        let shape = Some(Shape::of::<Vec<T>>());
        let page = self.page(operation, route, None, shape).await?;
        Ok((page.items, page.next.is_some()))
    }

    async fn page<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        route: &Route,
        field: Option<&'static str>,
        shape: Option<Shape>,
    ) -> Result<Page<T>> {
        let call = self.call(operation, Method::GET, route);
        let answer = self.read(&call, shape).await?;
        let items = match field {
            None => parse(&call, &answer.body)?,
            Some(field) => {
                let mut object: Value = parse(&call, &answer.body)?;
                serde_json::from_value(object[field].take()).map_err(|error| {
                    call.failed(ErrorKind::Transient, NOT_UNDERSTOOD).caused_by(error)
                })?
            }
        };
        let next = answer
            .header("link")
            .and_then(next_link)
            .and_then(|link| Route::from_link(self.api.0.transport.base(), link));
        Ok(Page { items, next })
    }

    /// The items of all pages of a list, in order; a page is asked for when its items are. Who goes on
    /// after an error asks for the page again that could not be had.
    ///
    /// `Link` headers are followed by their route alone, so that no answer leads to another host.
    ///
    /// # Errors
    ///
    /// Besides the usual: `Invalid` when the pages lead round in a circle or do not end.
    pub(crate) fn pages<T: DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        route: Route,
    ) -> BoxStream<'static, Result<T>> {
        self.all_pages(operation, route, None, None)
    }

    /// The same of a list that is looked at again and again.
    pub(crate) fn look_at_pages<T: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        route: Route,
    ) -> BoxStream<'static, Result<T>> {
        self.all_pages(operation, route, None, Some(Shape::of::<Vec<T>>()))
    }

    /// The same for a list that is a field of an object, such as `check_runs`.
    #[cfg(feature = "github")]
    pub(crate) fn pages_in<T: DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        route: Route,
        field: &'static str,
    ) -> BoxStream<'static, Result<T>> {
        self.all_pages(operation, route, Some(field), None)
    }

    fn all_pages<T: DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        route: Route,
        field: Option<&'static str>,
        shape: Option<Shape>,
    ) -> BoxStream<'static, Result<T>> {
        struct Position<H: Host> {
            client: Client<H>,
            next: Option<Route>,
            seen: HashSet<Route>,
        }
        let from = Position { client: self.clone(), next: Some(route), seen: HashSet::new() };
        stream::unfold(from, move |mut at| async move {
            let route = at.next.take()?;
            if at.seen.len() >= MOST_PAGES || at.seen.contains(&route) {
                let error = Error::invalid(operation, "the pages of the answer do not end")
                    .with("route", &route)
                    .with("pages", at.seen.len());
                return Some((Err(error), at));
            }
            match at.client.page::<T>(operation, &route, field, shape).await {
                Ok(page) => {
                    at.seen.insert(route);
                    at.next = page.next;
                    Some((Ok(stream::iter(page.items.into_iter().map(Ok))), at))
                }
                Err(error) => {
                    at.next = Some(route);
                    Some((Err(error), at))
                }
            }
        })
        .try_flatten()
        .boxed()
    }

    fn call(&self, operation: &'static str, method: Method, route: &Route) -> Call {
        Call {
            operation,
            method,
            route: route.clone(),
            accept: H::JSON,
            body: None,
            priority: self.priority,
            cost: Cost::Read,
            max_bytes: MOST_JSON,
        }
    }

    fn write(
        &self,
        operation: &'static str,
        method: Method,
        route: &Route,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Call> {
        let call = self.call(operation, method, route);
        let body = serde_json::to_vec(body).map_err(|error| {
            call.failed(ErrorKind::Invalid, "the request cannot be written").caused_by(error)
        })?;
        Ok(Call { body: Some(body.into()), cost: Cost::Write, ..call })
    }

    /// Reads; with a shape, from the cache when the host says that nothing changed.
    async fn read(&self, call: &Call, shape: Option<Shape>) -> Result<Arc<Answer>> {
        let inner = &*self.api.0;
        let grant = inner.authorizer.grant(&self.scope).await?;
        let made = inner.conditional.read(&inner.transport, call, &grant, shape).await?;
        if made.status != StatusCode::UNAUTHORIZED || !inner.authorizer.refused(&grant, &made).await
        {
            return check(call, &grant, made);
        }
        let grant = inner.authorizer.grant(&self.scope).await?;
        let made = inner.conditional.read(&inner.transport, call, &grant, shape).await?;
        check(call, &grant, made)
    }

    async fn send(&self, call: &Call) -> Result<Arc<Answer>> {
        let inner = &*self.api.0;
        let grant = inner.authorizer.grant(&self.scope).await?;
        let made = Arc::new(inner.transport.exchange(call, &grant, None).await?);
        if made.status != StatusCode::UNAUTHORIZED || !inner.authorizer.refused(&grant, &made).await
        {
            return check(call, &grant, made);
        }
        let grant = inner.authorizer.grant(&self.scope).await?;
        let made = Arc::new(inner.transport.exchange(call, &grant, None).await?);
        check(call, &grant, made)
    }
}

fn parse<T: DeserializeOwned>(call: &Call, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| call.failed(ErrorKind::Transient, NOT_UNDERSTOOD).caused_by(error))
}

/// The error that an error of GraphQL means, which comes with status 200.
fn graphql_failed<H: Host>(call: &Call, answer: &Answer, error: &Value) -> Error {
    let message = error["message"].as_str().unwrap_or_default();
    call.failed(H::graphql_kind(error, answer), "the host does not answer the query")
        .with(format!("{} says", H::NAME), crate::printable::printable(message))
}

/// The `next` link of a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.split_once(';')?;
        let is_next = parameters.split(';').any(|parameter| {
            matches!(parameter.trim().split_once('='),
                Some((name, value)) if name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case("next"))
        });
        is_next.then(|| target.trim().strip_prefix('<')?.strip_suffix('>')).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found() {
        let header = "<https://api.github.com/a?page=1>; rel=\"prev\", \
                      <https://api.github.com/a?page=3>; rel=\"next\", \
                      <https://api.github.com/a?page=9>; rel=\"last\"";
        assert_eq!(next_link(header), Some("https://api.github.com/a?page=3"));
        assert_eq!(next_link("<https://api.github.com/a?page=1>; rel=\"last\""), None);
        for broken in ["", ",", "<a>", "a; rel=next", "<a; rel=next", ";;;", "<>;rel"] {
            let _ = next_link(broken);
        }
    }
}
