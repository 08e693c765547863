//! A proxy between a store and its server, which loses connections where it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicU16, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Where the next connection that says `COMMIT` is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Loss {
    None,
    /// Before the server hears the word.
    BeforeCommit,
    /// After the server has heard it and answered.
    AfterCommit,
    /// The word goes nowhere, and neither side hears that the other is gone.
    CommitSwallowed,
    /// Before anything of a transaction is heard.
    BeforeBegin,
}

#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) port: u16,
    server: Arc<AtomicU16>,
    loss: Arc<AtomicU16>,
    losses: Arc<AtomicUsize>,
}

impl Proxy {
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Arc::new(AtomicU16::new(server));
        let target = Arc::clone(&server);
        let loss = Arc::new(AtomicU16::new(Loss::None as u16));
        let losses = Arc::new(AtomicUsize::new(0));
        let (planned, counted) = (Arc::clone(&loss), Arc::clone(&losses));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (planned, counted) = (Arc::clone(&planned), Arc::clone(&counted));
                let server = target.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                        return;
                    };
                    carry(client, server, &planned, &counted).await;
                });
            }
        });
        Self { port, server, loss, losses }
    }

    /// Connections that come from now on lead there.
    pub(super) fn lead_to(&self, server: u16) {
        self.server.store(server, Ordering::SeqCst);
    }

    /// Loses the next connection that comes to that point, once.
    pub(super) fn lose(&self, loss: Loss) {
        self.loss.store(loss as u16, Ordering::SeqCst);
    }

    /// How many were lost.
    pub(super) fn lost(&self) -> usize {
        self.losses.load(Ordering::SeqCst)
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, loss: &AtomicU16, lost: &AtomicUsize) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let said = &asked[..length];
                // A simple query: `Q`, its length, and the text.
                let commits = said.starts_with(b"Q") && contains(said, b"COMMIT");
                let begins = said.starts_with(b"Q") && contains(said, b"BEGIN");
                let take = |wanted: Loss| {
                    let (wanted, none) = (wanted as u16, Loss::None as u16);
                    let order = Ordering::SeqCst;
                    let taken = loss.compare_exchange(wanted, none, order, order).is_ok();
                    lost.fetch_add(usize::from(taken), order);
                    taken
                };
                if commits && take(Loss::BeforeCommit) || begins && take(Loss::BeforeBegin) {
                    return;
                }
                if commits && take(Loss::CommitSwallowed) {
                    std::future::pending::<()>().await;
                }
                if server.write_all(said).await.is_err() {
                    return;
                }
                if commits && take(Loss::AfterCommit) {
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
