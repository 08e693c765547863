//! What every webhook source shares: the receiver, its router, signature checks, and the sweep of a
//! host's delivery log.

mod answer;
mod delivery;
mod receiver;
#[cfg(feature = "webhook-axum")]
mod router;
mod signature;
mod sweep;

#[cfg(feature = "webhook-axum")]
pub use self::router::webhook_router;
pub use self::{
    answer::{Answer, TakenAs},
    delivery::{AccessChange, DeliveredRepo, Delivery, DeliveryFormat, DeliveryHeaders, Told},
    receiver::{HookSecret, WebhookReceiver},
    signature::{sign_sha256, verify_sha256},
    sweep::DeliverySweep,
};
