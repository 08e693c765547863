//! What every webhook source shares.

mod signature;

pub use self::signature::{sign_sha256, verify_sha256};
