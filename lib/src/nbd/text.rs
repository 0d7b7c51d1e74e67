//! Strings that a peer sent, made fit for a terminal and a log line (`nbd.md` cases C21, C24).

use crate::base::limits;

/// One line of at most [`limits::NBD_STRING`] bytes: no control characters, no escapes, no characters that turn
/// the direction of writing.
pub(super) fn clean(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(limits::NBD_STRING)];
    let mut text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() || turns_or_breaks(c) { '?' } else { c })
        .collect();
    truncate(&mut text, limits::NBD_STRING);
    text
}

const fn turns_or_breaks(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Cuts `text` to at most `max` bytes, between two characters.
pub(super) fn truncate(text: &mut String, max: usize) {
    text.truncate(cut(text, max).len());
}

/// The longest beginning of `text` of at most `max` bytes that ends between two characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A name for an error message: cleaned, and no longer than a line can bear.
pub(super) fn shown(name: &str) -> String {
    let mut text = clean(name.as_bytes());
    if text.len() > 80 {
        truncate(&mut text, 77);
        text.push_str("...");
    }
    text
}

/// A string of the protocol: UTF-8, no NUL, at most 4096 bytes (specification, "Values" / "String values").
pub(super) fn string(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > limits::NBD_STRING || bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c21_escapes_and_nul_from_a_server_do_not_reach_the_terminal() {
        assert_eq!(clean(b"a\x1b[31mb\0c\nd\xff"), "a?[31mb?c?d\u{fffd}");
        assert_eq!(clean("x\u{202e}y\u{9b}z".as_bytes()), "x?y?z");
    }

    #[test]
    fn c24_a_message_of_exactly_the_limit_is_kept_whole() {
        assert_eq!(clean(&[b'm'; limits::NBD_STRING]).len(), limits::NBD_STRING);
        assert_eq!(clean(&[b'm'; limits::NBD_STRING + 1]).len(), limits::NBD_STRING);
        assert!(clean(&[0xff; limits::NBD_STRING]).len() <= limits::NBD_STRING);
        assert!(clean("é".repeat(4000).as_bytes()).len() <= limits::NBD_STRING);
    }

    #[test]
    fn strings_of_the_protocol_hold_no_nul() {
        assert_eq!(string(b"vol"), Some("vol"));
        assert_eq!(string(b"a\0b"), None);
        assert_eq!(string(b"\xff"), None);
        assert_eq!(string(&[b'a'; limits::NBD_STRING + 1]), None);
        assert_eq!(shown(&"n".repeat(4096)).len(), 80);
    }
}
