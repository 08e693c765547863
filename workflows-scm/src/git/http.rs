//! Smart HTTP (<https://git-scm.com/docs/http-protocol>) through our HTTP client.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use jiff::SignedDuration;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LOCATION},
    redirect,
};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::{Origin, Url};
use workflows_core::{Error, ErrorKind, Result, SharedClock};

use super::{
    REACH, Settings,
    credentials::{Access, Kind},
    pkt::PacketReader,
    protocol::Advertisement,
};
use crate::{printable::printable, retry_after::retry_after};

const MOST_REDIRECTS: usize = 5;
/// The longest that a server can make this process wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);
/// How long what a server offers is taken for true, so that a poll is one request.
const ADVERTISEMENT_IS_GOOD_FOR: Duration = Duration::from_secs(3_600);
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";
/// Some hosts look at the beginning of it to tell git from a browser.
const USER_AGENT: &str = concat!("git/workflows-scm-", env!("CARGO_PKG_VERSION"));

/// The HTTP client of a driver.
pub(super) fn client(
    settings: &Settings,
    root_certificates: &[Vec<u8>],
    proxy: Option<&str>,
) -> Result<Client> {
    const OPERATION: &str = "build the git driver";
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.idle_timeout);
    for pem in root_certificates {
        let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
            Error::invalid(OPERATION, "a root certificate cannot be read; it must be PEM")
                .caused_by(error)
        })?;
        if certificates.is_empty() {
            return Err(Error::invalid(OPERATION, "a root certificate holds no PEM block"));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder = match proxy {
        None => builder.no_proxy(),
        Some(address) => builder.proxy(reqwest::Proxy::all(address).map_err(|error| {
            Error::invalid(OPERATION, "the proxy's address is not a URL").caused_by(error)
        })?),
    };
    builder.build().map_err(|error| {
        Error::invalid(OPERATION, "the HTTP client cannot be set up").caused_by(error)
    })
}

/// One repository over HTTP.
pub(super) struct Http {
    client: Client,
    url: Url,
    access: Access,
    clock: SharedClock,
    idle: Duration,
    known: Mutex<Option<Known>>,
}

/// What a server said that it offers, and where it was found after redirects.
#[derive(Clone)]
struct Known {
    advertisement: Advertisement,
    url: Url,
    until: Instant,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(client: Client, url: Url, access: Access, settings: &Settings) -> Self {
        Self {
            client,
            url,
            access,
            clock: settings.clock.clone(),
            idle: settings.idle_timeout,
            known: Mutex::new(None),
        }
    }

    /// Sends a request made for what the server offers, and returns the answer.
    pub(super) async fn exchange(
        &self,
        request: impl FnOnce(&Advertisement) -> Result<Vec<u8>>,
    ) -> Result<(PacketReader, Advertisement)> {
        let known = self.known().await?;
        let body = request(&known.advertisement)?;
        match self.post(&known.url, body).await {
            Ok(packets) => Ok((packets, known.advertisement)),
            Err(error) => {
                // It may have moved, or speak otherwise by now.
                self.remember(None);
                Err(error)
            }
        }
    }

    fn remember(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    async fn known(&self) -> Result<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known
            && Instant::now() < known.until
        {
            return Ok(known);
        }
        let known = self.advertisement().await?;
        self.remember(Some(known.clone()));
        Ok(known)
    }

    async fn advertisement(&self) -> Result<Known> {
        const SUFFIX: &str = "/info/refs";
        let mut at = below(&self.url, SUFFIX);
        at.set_query(Some("service=git-upload-pack"));
        for _ in 0..=MOST_REDIRECTS {
            let request = self.client.get(at.clone()).header("Git-Protocol", "version=2");
            let response = self.send(request, &at).await?;
            if let Some(next) = redirect_of(&response, &at)? {
                at = next;
                continue;
            }
            let response = self.check(response, &at)?;
            if !has_type(&response, ADVERTISEMENT) {
                return Err(Error::unsupported(
                    REACH,
                    "this is no git repository over smart HTTP: the answer is not an \
                     upload-pack advertisement (a web page, or the dumb protocol, which is not \
                     spoken here)",
                )
                .with("address", shown(&at)));
            }
            let Some(path) = at.path().strip_suffix(SUFFIX) else {
                return Err(Error::unsupported(
                    REACH,
                    "the server redirects to an address that is no repository",
                )
                .with("address", shown(&at)));
            };
            let mut url = at.clone();
            url.set_path(path);
            url.set_query(None);
            let advertisement = Advertisement::read(&mut self.packets(response)).await?;
            return Ok(Known {
                advertisement,
                url,
                until: Instant::now() + ADVERTISEMENT_IS_GOOD_FOR,
            });
        }
        Err(Error::invalid(REACH, format!("the server redirects more than {MOST_REDIRECTS} times"))
            .with("address", shown(&at)))
    }

    async fn post(&self, url: &Url, body: Vec<u8>) -> Result<PacketReader> {
        let at = below(url, "/git-upload-pack");
        let request = self
            .client
            .post(at.clone())
            .header("Git-Protocol", "version=2")
            .header(CONTENT_TYPE, REQUEST)
            .header(ACCEPT, RESULT)
            .body(body);
        let response = self.send(request, &at).await?;
        if redirect_of(&response, &at)?.is_some() {
            return Err(Error::transient(REACH, "the server redirects a request that has a body")
                .with("address", shown(&at)));
        }
        let response = self.check(response, &at)?;
        if !has_type(&response, RESULT) {
            return Err(Error::transient(REACH, "the answer is not one of git upload-pack")
                .with("address", shown(&at)));
        }
        Ok(self.packets(response))
    }

    /// Sends a request, with the credentials when it goes to the origin that was configured.
    async fn send(&self, request: reqwest::RequestBuilder, at: &Url) -> Result<Response> {
        let request = if origin(at) == origin(&self.url) {
            match &self.access.credentials {
                Some(Kind::Basic { username, password }) => {
                    let password = self.access.secret(password).await?;
                    request.basic_auth(username, Some(password.expose_secret().trim_end()))
                }
                Some(Kind::Bearer { token }) => {
                    let token = self.access.secret(token).await?;
                    request.bearer_auth(token.expose_secret().trim_end())
                }
                _ => request,
            }
        } else {
            request
        };
        request.send().await.map_err(|error| failed(error, at))
    }

    fn packets(&self, response: Response) -> PacketReader {
        let stream = response.bytes_stream().map_err(|error| {
            Error::transient(REACH, "the answer broke off").caused_by(error.without_url())
        });
        PacketReader::new(stream.boxed(), self.idle)
    }

    fn check(&self, response: Response, at: &Url) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let until = retry_after(response.headers(), self.clock.now(), LONGEST_WAIT);
        let (kind, what) = match status {
            StatusCode::UNAUTHORIZED if self.access.credentials.is_none() => (
                ErrorKind::Denied,
                "the server asks for credentials (many do so for a repository that is not there); \
                 configure some for this connection",
            ),
            StatusCode::TOO_MANY_REQUESTS => {
                (ErrorKind::RateLimited { until }, "the server asks to come back later")
            }
            StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE if until.is_some() => {
                (ErrorKind::RateLimited { until }, "the server asks to come back later")
            }
            StatusCode::UNAUTHORIZED => {
                (ErrorKind::Denied, "the server does not accept the credentials")
            }
            StatusCode::FORBIDDEN => (ErrorKind::Denied, "the server refuses"),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                (ErrorKind::Denied, "the proxy asks for credentials")
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                (ErrorKind::NotFound, "there is no such repository, or it may not be seen")
            }
            StatusCode::REQUEST_TIMEOUT => (ErrorKind::Transient, "the server gave up waiting"),
            status if status.is_server_error() => (ErrorKind::Transient, "the server has failed"),
            _ => (ErrorKind::Invalid, "the server does not take the request"),
        };
        Err(Error::new(kind, REACH, what)
            .with("status", status.as_u16())
            .with("address", shown(at)))
    }
}

/// Scheme, host and port.
fn origin(url: &Url) -> Origin {
    url.origin()
}

fn below(url: &Url, suffix: &str) -> Url {
    let mut url = url.clone();
    let path = format!("{}{suffix}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// Where a redirect leads. Only the question what a server offers follows one, as git does; from
/// https it does not lead to http.
fn redirect_of(response: &Response, at: &Url) -> Result<Option<Url>> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| at.join(location).ok()).filter(|next| {
        next.scheme() == at.scheme() || (at.scheme(), next.scheme()) == ("http", "https")
    });
    let Some(mut next) = next else {
        return Err(Error::invalid(
            REACH,
            "the server redirects to nowhere, or from https to something else",
        )
        .with("address", shown(at)));
    };
    // A redirect must not smuggle credentials of its own in.
    if next.set_username("").is_err() || next.set_password(None).is_err() {
        return Err(Error::invalid(REACH, "the server redirects to an odd address"));
    }
    Ok(Some(next))
}

fn has_type(response: &Response, expected: &str) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim() == expected))
}

/// The address for an error: what the user gave, nothing that a server may have added.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    printable(&format!("{}://{host}{port}{}", url.scheme(), url.path()))
}

fn failed(error: reqwest::Error, at: &Url) -> Error {
    let what = if error.is_timeout() {
        "the server did not answer in time"
    } else if error.is_connect() {
        "the server cannot be reached"
    } else if error.is_builder() {
        return Error::invalid(
            REACH,
            "the request cannot be made; does a secret hold a line break?",
        )
        .with("address", shown(at));
    } else {
        "the request failed"
    };
    Error::transient(REACH, what).with("address", shown(at)).caused_by(error.without_url())
}
