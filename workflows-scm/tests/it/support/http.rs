//! `git http-backend` behind a server on the loopback address.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode, Uri},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use workflows_scm::git::GitDriver;

/// A request that the server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) authorization: Option<String>,
    pub(crate) sent: usize,
    pub(crate) answered: usize,
}

type Answer = Response<Body>;
type Intercept = dyn Fn(&Method, &Uri, &HeaderMap) -> Option<Answer> + Send + Sync;

/// A server; it goes away with this.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Shared {
    root: Arc<PathBuf>,
    seen: Arc<Mutex<Vec<Seen>>>,
    intercept: Arc<Intercept>,
}

impl Server {
    /// Serves the repositories below a directory.
    pub(crate) async fn start(root: &std::path::Path) -> Self {
        Self::with(root, |_, _, _| None).await
    }

    /// Serves them unless the closure has an answer.
    pub(crate) async fn with(
        root: &std::path::Path,
        intercept: impl Fn(&Method, &Uri, &HeaderMap) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared {
            root: Arc::new(root.to_owned()),
            seen: Arc::clone(&seen),
            intercept: Arc::new(intercept),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, task }
    }

    /// Serves them over TLS, as `localhost`, with a certificate that an authority of its own
    /// signed. Returns the authority's certificate too.
    pub(crate) async fn with_tls(root: &std::path::Path) -> (Self, String) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared {
            root: Arc::new(root.to_owned()),
            seen: Arc::clone(&seen),
            intercept: Arc::new(|_, _, _| None),
        };
        let (tls, authority) = self_signed();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let app = axum::Router::new().fallback(answer).with_state(shared);
        let listener = TlsListener { listener, tls };
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (Self { url, seen, task }, authority)
    }

    /// The requests so far; they are forgotten.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A certificate for `localhost`, and that of its authority as PEM.
fn self_signed() -> (TlsAcceptor, String) {
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority_certificate.pem())
}

struct TlsListener {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // Who does not trust the certificate hangs up.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

pub(crate) fn status(code: StatusCode) -> Answer {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

async fn answer(State(shared): State<Shared>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let intercepted = (shared.intercept)(&parts.method, &parts.uri, &parts.headers);
    let authorization = parts.headers.get("authorization");
    let mut seen = Seen {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
        sent: body.len(),
        answered: 0,
    };
    let answer = match intercepted {
        Some(answer) => answer,
        None => {
            let (answer, length) =
                backend(&shared.root, &parts.method, &parts.uri, &parts.headers, body).await;
            seen.answered = length;
            answer
        }
    };
    shared.seen.lock().unwrap().push(seen);
    answer
}

/// RFC 3875, as far as `git http-backend` needs it.
async fn backend(
    root: &std::path::Path,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> (Answer, usize) {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or(""))
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It does not read what it does not want.
    let _ = stdin.write_all(&body).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&output[..end]).unwrap();
    let mut answer = Response::builder();
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            answer = answer.status(value[..3].parse::<u16>().unwrap());
        } else {
            answer = answer.header(name, value);
        }
    }
    let body = output[end + 4..].to_vec();
    let length = body.len();
    (answer.body(Body::from(body)).unwrap(), length)
}

/// A driver for a server's repositories that shows no credentials.
pub(crate) fn anonymous(server: &Server) -> GitDriver {
    GitDriver::at(&*server.url).unwrap()
}
