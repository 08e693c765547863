//! The one error type of the traits: what kind of failure, in which operation, with what context.

use std::{borrow::Cow, error::Error as StdError, fmt};

use jiff::Timestamp;

/// A boxed cause, so that no driver's own error type is part of a public signature.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of every operation of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. The engine alone decides about retries, and it decides from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for is not there (any more).
    NotFound,
    /// The other side knows who asks and refuses, or does not accept the credentials.
    Denied,
    /// The other side asks to come back later; at `until`, when it said so.
    RateLimited {
        /// The first instant at which a further call can succeed.
        until: Option<Timestamp>,
    },
    /// It may go through when tried again: a network fault, a time-out, a 5xx.
    Transient,
    /// The request or the input is wrong and stays so.
    Invalid,
    /// The implementation does not offer this.
    Unsupported,
    /// Somebody else changed the same thing meanwhile, or a lease was lost: read again, decide again.
    Conflict,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Transient | Self::Conflict)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Denied => f.write_str("denied"),
            Self::RateLimited { until: Some(at) } => write!(f, "rate limited until {at}"),
            Self::RateLimited { until: None } => f.write_str("rate limited"),
            Self::Transient => f.write_str("temporary failure"),
            Self::Invalid => f.write_str("invalid"),
            Self::Unsupported => f.write_str("unsupported"),
            Self::Conflict => f.write_str("conflict"),
        }
    }
}

/// A failure of a trait's operation.
///
/// It never contains a secret: implementors put names and places into the context, not values.
///
/// ```
/// use workflows_core::{Error, ErrorKind};
///
/// let error = Error::not_found("read file", "no such file at that commit")
///     .with("path", ".tekton/ci.yaml")
///     .with("commit", "3f2a1c");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(
///     error.to_string(),
///     "read file: no such file at that commit (path: .tekton/ci.yaml, commit: 3f2a1c)"
/// );
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    message: String,
    context: Vec<(Cow<'static, str>, String)>,
    source: Option<BoxError>,
    did_some: bool,
    of_this_alone: bool,
}

impl Error {
    /// An error of any kind: in which operation, and what was wrong in words for the user.
    pub fn new(
        kind: ErrorKind,
        operation: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation: operation.into(),
            message: message.into(),
            context: Vec::new(),
            source: None,
            did_some: false,
            of_this_alone: false,
        }
    }

    /// An [`ErrorKind::NotFound`].
    pub fn not_found(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, operation, message)
    }

    /// An [`ErrorKind::Denied`].
    pub fn denied(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, operation, message)
    }

    /// An [`ErrorKind::Transient`].
    pub fn transient(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Transient, operation, message)
    }

    /// An [`ErrorKind::Invalid`].
    pub fn invalid(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, operation, message)
    }

    /// An [`ErrorKind::Unsupported`].
    pub fn unsupported(
        operation: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(ErrorKind::Unsupported, operation, message)
    }

    /// An [`ErrorKind::Conflict`].
    pub fn conflict(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, operation, message)
    }

    /// Adds a named piece of context, shown behind the message.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.context.push((name.into(), value.to_string()));
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that some of what was asked for had been done when it failed.
    #[must_use]
    pub fn having_done_some(mut self) -> Self {
        self.did_some = true;
        self
    }

    /// Whether some of what was asked for, or all of it, may have been done: it is known, or nobody
    /// knows what came of a call that failed as [`ErrorKind::Transient`].
    pub fn may_have_done_some(&self) -> bool {
        self.did_some || self.kind == ErrorKind::Transient
    }

    /// Says that it tells nothing about other calls to the same place: they may go through.
    #[must_use]
    pub fn of_this_alone(mut self) -> Self {
        self.of_this_alone = true;
        self
    }

    /// Whether it tells nothing about other calls to the same place.
    pub fn is_of_this_alone(&self) -> bool {
        self.of_this_alone
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed, such as `read file`.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// What was wrong, without operation and context.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The named pieces of context in the order in which they were added.
    pub fn context(&self) -> impl Iterator<Item = (&str, &str)> {
        self.context.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        for (index, (name, value)) in self.context.iter().enumerate() {
            let open = if index == 0 { " (" } else { ", " };
            write!(f, "{open}{name}: {value}")?;
        }
        if !self.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
