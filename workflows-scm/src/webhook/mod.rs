//! What every webhook source shares: the receiver, its router, signature checks, and the sweep of a
//! host's delivery log.

mod answer;
mod delivery;
#[cfg(any(feature = "github", feature = "gitlab"))]
mod payload;
mod receiver;
#[cfg(any(feature = "github", feature = "gitlab"))]
mod registration;
#[cfg(feature = "webhook-axum")]
mod router;
mod signature;
mod standard;
mod sweep;

#[cfg(feature = "webhook-axum")]
pub use self::router::webhook_router;
pub use self::{
    answer::{Answer, TakenAs},
    delivery::{AccessChange, DeliveredRepo, Delivery, DeliveryFormat, DeliveryHeaders, Told},
    receiver::{HookSecret, WebhookReceiver},
    signature::{sign_sha256, verify_sha256},
    standard::{StandardSignature, verify_standard},
    sweep::DeliverySweep,
};
#[cfg(any(feature = "github", feature = "gitlab"))]
pub(crate) use self::{
    payload::Payload,
    registration::{HookApi, ensure_one, remove_all},
};
#[cfg(feature = "gitlab")]
pub(crate) use self::{payload::position, standard::is_signing_token};
