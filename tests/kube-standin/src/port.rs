//! The port of the stand-in, which may be closed with all its connections and opened again.

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use axum::Router;
use tokio::sync::oneshot;

/// A port of loopback that answers, until it is dropped.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    router: Router,
    serving: Mutex<Option<Serving>>,
}

/// A thread that serves, with a runtime of its own: what it holds open ends with it.
struct Serving {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Port {
    /// A free one.
    pub(crate) async fn open(router: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.and_then(tokio::net::TcpListener::into_std);
        let listener = listener.expect("a port of loopback");
        let address = listener.local_addr().expect("the port's address");
        let serving = Mutex::new(Some(serve(listener, router.clone())));
        Self { address, router, serving }
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks all connections, and lets nobody in.
    pub(crate) fn close(&self) {
        if let Some(Serving { stop, thread }) = self.serving().take() {
            // Whoever ended by itself is waited for all the same.
            let _ = stop.send(());
            assert!(thread.join().is_ok(), "the stand-in for the API server has ended");
        }
    }

    /// Answers again.
    pub(crate) fn reopen(&self) {
        let mut serving = self.serving();
        assert!(serving.is_none(), "the port is open");
        let listener = TcpListener::bind(self.address).expect("the same port again");
        *serving = Some(serve(listener, self.router.clone()));
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(Serving { stop, thread }) = self.serving().take() {
            let _ = stop.send(());
            // A test that fails already is not to be ended by this.
            let _ = thread.join();
        }
    }
}

fn serve(listener: TcpListener, router: Router) -> Serving {
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime for the stand-in");
        runtime.block_on(async move {
            listener.set_nonblocking(true).expect("a listener that does not block");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            tokio::select! {
                served = async { axum::serve(listener, router).await } => {
                    panic!("the stand-in for the API server has ended: {served:?}");
                }
                _ = stopped => {}
            }
        });
    });
    Serving { stop, thread }
}
