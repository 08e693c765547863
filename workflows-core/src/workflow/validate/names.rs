//! What may be a name, by the rules of Kubernetes
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).

/// What [`is_subdomain`] allows, for messages.
pub(super) const SUBDOMAIN: &str =
    "at most 63 characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";

/// What [`is_label`] allows, for messages.
pub(super) const LABEL: &str =
    "at most 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit";

/// A DNS-1123 label.
pub(super) fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 63 && !name.is_empty() && name.chars().all(inner) && !at_edge(name, '-')
}

/// A DNS-1123 subdomain of at most so many characters.
pub(super) fn is_subdomain(name: &str, longest: usize) -> bool {
    name.len() <= longest && name.split('.').all(is_label)
}

/// The value of a label.
pub(super) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name_part(value)
}

/// The name of a label or annotation: a name, and a domain before it where wanted.
pub(super) fn is_qualified(name: &str) -> bool {
    match name.split_once('/') {
        None => is_name_part(name),
        Some((domain, name)) => is_subdomain(domain, 253) && is_name_part(name),
    }
}

/// The name of a parameter, by Tekton's rule.
pub(super) fn is_param(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.len() <= 200 && name.starts_with(first) && name.chars().all(inner)
}

fn is_name_part(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(inner)
}

fn at_edge(name: &str, c: char) -> bool {
    name.starts_with(c) || name.ends_with(c)
}
