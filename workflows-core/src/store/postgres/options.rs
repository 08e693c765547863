//! How a ledger in Postgres is reached.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{Error, Result, store::StoreLimits};

/// Whose clock decides about leases and due times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreTime {
    /// The server's: one clock for all replicas.
    #[default]
    Server,
    /// The one that the store was opened with: for tests and simulations, in which it stands still.
    Clock,
}

/// Whether the connection is encrypted, and how the server proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresTls {
    /// It is not encrypted.
    Disable,
    /// It is encrypted where the server offers it; who the server is, is not checked.
    Prefer,
    /// It is encrypted; who the server is, is checked when there is a root certificate.
    Require,
    /// It is encrypted, and the server's certificate is of a known authority.
    VerifyCa,
    /// It is encrypted, and the server's certificate is of a known authority and bears the host's
    /// name.
    VerifyFull,
}

/// How a ledger in Postgres is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`. A socket's directory is a host with its
    /// slashes written as `%2F`. What the URL does not say is as for every client of Postgres: the
    /// driver looks into `PGHOST` and its like.
    pub url: SecretString,
    /// The schema that the tables are in; it is made when it is missing. Letters, digits and
    /// underscores, in lower case. By default `workflows`.
    pub schema: String,
    /// What the server calls the connections (`pg_stat_activity`). By default `workflows`.
    pub application_name: String,
    /// The name of this replica, when it keeps it over restarts: a StatefulSet's pod. Leases of the
    /// one that had the name before are over when this one opens the ledger, and a second one that
    /// has the name at the same time is refused. Without a name a crash's leases end with their time.
    pub replica: Option<String>,
    /// For how long to wait for a predecessor of the same name to go. By default two seconds.
    pub replica_wait: Duration,
    /// Connections at most, besides the one that listens. By default eight.
    pub connections: u32,
    /// For how long to wait for a connection: for a free one, and for a server that starts again or
    /// fails over. By default ten seconds.
    pub connect_timeout: Duration,
    /// What one statement may take; the server ends it then. By default 30 seconds.
    pub statement_timeout: Duration,
    /// For how long a statement may wait for a lock. By default ten seconds.
    pub lock_timeout: Duration,
    /// For how long the server bears with a transaction whose client is silent: a frozen replica
    /// keeps others waiting so long at most. By default five seconds.
    pub idle_in_transaction_timeout: Duration,
    /// How the connection is protected; what the URL says in `sslmode` when `None`, and
    /// [`PostgresTls::Prefer`] when it says nothing.
    pub tls: Option<PostgresTls>,
    /// Certificates of authorities in PEM that the server's may be of; the URL's `sslrootcert` and
    /// the usual ones of the web when `None`.
    pub root_certificates: Option<Vec<u8>>,
    /// How often to look for work that no other replica told of: the net below LISTEN and NOTIFY.
    /// By default ten seconds.
    pub poll_interval: Duration,
    /// Whose clock decides. By default the server's.
    pub time: StoreTime,
    /// Limits of what a tenant may put in.
    pub limits: StoreLimits,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(mut self, value: $type) -> Self {
                self.$field = value;
                self
            }
        )*
    };
}

impl PostgresOptions {
    /// A ledger at a URL, with every other option as it is by default.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            schema: "workflows".to_owned(),
            application_name: "workflows".to_owned(),
            replica: None,
            replica_wait: Duration::from_secs(2),
            connections: 8,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(5),
            tls: None,
            root_certificates: None,
            poll_interval: Duration::from_secs(10),
            time: StoreTime::Server,
            limits: StoreLimits::default(),
        }
    }

    setters! {
        /// Sets how many connections there are at most, besides the one that listens.
        connections: u32,
        /// Sets for how long to wait for a connection.
        connect_timeout: Duration,
        /// Sets what one statement may take.
        statement_timeout: Duration,
        /// Sets for how long a statement may wait for a lock.
        lock_timeout: Duration,
        /// Sets for how long the server bears with a transaction whose client is silent.
        idle_in_transaction_timeout: Duration,
        /// Sets for how long to wait for a predecessor of the same name.
        replica_wait: Duration,
        /// Sets how often to look for work that no other replica told of.
        poll_interval: Duration,
        /// Sets whose clock decides.
        time: StoreTime,
        /// Sets the limits of what a tenant may put in.
        limits: StoreLimits,
    }

    /// Sets the schema that the tables are in.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets what the server calls the connections.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// Names this replica.
    #[must_use]
    pub fn replica(mut self, name: impl Into<String>) -> Self {
        self.replica = Some(name.into());
        self
    }

    /// Sets how the connection is protected.
    #[must_use]
    pub fn tls(mut self, tls: PostgresTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the certificates of authorities that the server's may be of.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// What the driver is told.
    pub(super) fn connect(&self) -> Result<PgConnectOptions> {
        self.check()?;
        let invalid = |error: sqlx::Error| {
            // The driver's words may repeat a part of the URL, and so of the password.
            drop(error);
            Error::invalid(
                "open the ledger",
                "the URL is not one of Postgres; it looks like \
                 postgres://user:password@host:5432/database, with what is special in the password \
                 written as %XX",
            )
        };
        let mut connect = PgConnectOptions::from_str(self.url.expose_secret()).map_err(invalid)?;
        let milliseconds = |time: Duration| time.as_millis().to_string();
        connect = connect
            .application_name(&self.application_name)
            .statement_cache_capacity(512)
            .options([
                ("search_path", self.schema.clone()),
                ("workflows.replica", self.replica.clone().unwrap_or_default()),
                ("statement_timeout", milliseconds(self.statement_timeout)),
                ("lock_timeout", milliseconds(self.lock_timeout)),
                (
                    "idle_in_transaction_session_timeout",
                    milliseconds(self.idle_in_transaction_timeout),
                ),
                ("default_transaction_isolation", r"read committed".to_owned()),
                ("jit", "off".to_owned()),
            ])
            .disable_statement_logging();
        if let Some(tls) = self.tls {
            connect = connect.ssl_mode(match tls {
                PostgresTls::Disable => PgSslMode::Disable,
                PostgresTls::Prefer => PgSslMode::Prefer,
                PostgresTls::Require => PgSslMode::Require,
                PostgresTls::VerifyCa => PgSslMode::VerifyCa,
                PostgresTls::VerifyFull => PgSslMode::VerifyFull,
            });
        }
        if let Some(pem) = &self.root_certificates {
            connect = connect.ssl_root_cert_from_pem(pem.clone());
        }
        Ok(connect)
    }

    fn check(&self) -> Result<()> {
        let refused = |option: &'static str, message: &'static str| {
            Err(Error::invalid("open the ledger", message).with("option", option))
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
        if self.schema.len() > 50
            || !self.schema.bytes().all(plain)
            || !self.schema.as_bytes().first().is_some_and(starts)
            || self.schema.starts_with("pg_")
        {
            return refused(
                "schema",
                "a schema's name has lower-case letters, digits and underscores, at most 50 of \
                 them, begins with no digit and not with pg_",
            );
        }
        if let Some(replica) = &self.replica
            && (replica.is_empty()
                || replica.len() > 253
                || !replica.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return refused(
                "replica",
                "a replica's name has 1 to 253 printable ASCII characters and no space",
            );
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_timeout", self.idle_in_transaction_timeout),
            ("poll_interval", self.poll_interval),
        ];
        for (option, time) in times {
            if time < Duration::from_millis(1) || time > Duration::from_secs(24 * 3600) {
                return refused(option, "it has to be between a millisecond and a day");
            }
        }
        if self.connections == 0 {
            return refused("connections", "there has to be one at least");
        }
        Ok(())
    }
}
