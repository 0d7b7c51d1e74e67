//! Lines of a foreign format, each of bounded length.

use super::read_error;
use crate::base::{Class, Error, Result, limits};
use std::io::{BufRead, Read as _};

/// Calls `take` with the number and the words of each line, without those that are empty or begin with `#`.
pub fn each_line(input: &mut dyn BufRead, take: &mut dyn FnMut(&[&str]) -> Result<()>) -> Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let mut limited = (&mut *input).take(limits::MAP_LINE as u64);
        let found = limited.read_until(b'\n', &mut line).map_err(|e| read_error(&e))?;
        if found == 0 {
            break;
        }
        let at = |e: Error| Error { message: format!("line {number}: {}", e.message), ..e };
        if found == limits::MAP_LINE && line.last() != Some(&b'\n') {
            return Err(at(bad(&format!("longer than {} bytes", limits::MAP_LINE))));
        }
        let text = std::str::from_utf8(&line).map_err(|_| at(bad("not text")))?;
        let words: Vec<_> = text.split_ascii_whitespace().take(8).collect();
        if words.first().is_some_and(|word| !word.starts_with('#')) {
            take(&words).map_err(at)?;
        }
    }
    Ok(())
}

/// What is wrong with a foreign map.
pub fn bad(why: &str) -> Error {
    Error::new(Class::Damaged, why)
}

/// A number in decimal or, with `0x`, in hexadecimal digits.
pub fn number(word: &str) -> Result<u64> {
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = if plain { u64::from_str_radix(digits, radix).ok() } else { None };
    value.ok_or_else(|| bad(&format!("'{}' is not a number below 2^64", word.escape_debug())))
}
