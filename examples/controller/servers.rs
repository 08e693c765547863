//! The two ports: one for hosts, one for people, Prometheus and the kubelet.

use std::{error::Error, sync::Arc};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use workflows_k8s::api::{self, ClusterAccess};

use crate::{
    composition::Composed,
    probes::{self, Watched},
    settings::Settings,
};

/// Opens both ports. The one for hosts is closed when it is told to stop, the one for people and probes
/// when what was under way is done. What is returned ends when both are.
pub(crate) async fn start(
    settings: &Settings,
    composed: &Composed,
    shutdown: CancellationToken,
    done: CancellationToken,
) -> Result<JoinHandle<()>, Box<dyn Error>> {
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let render = metrics.clone();
    let access = Arc::new(ClusterAccess::new(composed.client.clone()));
    let watched = Watched {
        handle: composed.handle.clone(),
        controller: composed.controller.clone(),
        shutdown: shutdown.clone(),
    };
    let inside = api::router(composed.handle.clone(), access)
        .merge(probes::router(watched))
        .route("/metrics", get(async move || render.render()));
    let outside = composed.controller.webhooks();

    let hooks = TcpListener::bind(settings.hooks_address).await?;
    let questions = TcpListener::bind(settings.api_address).await?;
    tracing::info!(hooks = %hooks.local_addr()?, api = %questions.local_addr()?, "the ports are open");
    Ok(tokio::spawn(async move {
        let upkeep = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                metrics.run_upkeep();
            }
        };
        tokio::select! {
            _ = async {
                tokio::join!(
                    serve(hooks, outside, shutdown),
                    serve(questions, inside, done),
                )
            } => {}
            () = upkeep => {}
        }
    }))
}

async fn serve(listener: TcpListener, router: Router, until: CancellationToken) {
    let ended = axum::serve(listener, router)
        .with_graceful_shutdown(async move { until.cancelled().await })
        .await;
    if let Err(error) = ended {
        tracing::error!(%error, "a port was closed");
    }
}
