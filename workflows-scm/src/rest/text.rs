//! Texts within a host's limits.

/// At most so many bytes, cut between two characters.
pub(crate) fn cut_bytes(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// At most so many characters.
pub(crate) fn cut_characters(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// An address that hosts take as a link. Others, such as the directory of a local run, are left
/// out: a host would refuse all of the request.
pub(crate) fn web_address(address: Option<&str>) -> Option<&str> {
    address.filter(|address| {
        url::Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut_bytes("a🦀b", 5), "a🦀");
        assert_eq!(cut_bytes("a🦀b", 4), "a");
        assert_eq!(cut_bytes("a🦀b", 6), "a🦀b");
        assert_eq!(cut_bytes("", 0), "");
        assert_eq!(cut_characters("a🦀b", 2), "a🦀");
        assert_eq!(cut_characters("a🦀b", 3), "a🦀b");
        assert_eq!(cut_characters("🦀", 0), "");
    }

    #[test]
    fn only_addresses_of_the_web_are_links() {
        for (address, is_one) in [
            ("https://ci.example.com/runs/1", true),
            ("http://localhost:8080", true),
            ("/var/lib/runs/1", false),
            ("file:///var/lib", false),
            ("javascript:alert(1)", false),
            ("", false),
        ] {
            assert_eq!(web_address(Some(address)).is_some(), is_one, "{address}");
        }
        assert_eq!(web_address(None), None);
    }
}
