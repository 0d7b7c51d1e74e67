//! Patterns of `ssh_config(5)` and of `known_hosts` (`sshd(8)`): `*`, `?`, and a list with exceptions.

/// Whether a text matches a pattern with `*` and `?`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Whether a text matches a list: one of its patterns, and none of those behind a `!`.
pub fn in_list<'p>(patterns: impl Iterator<Item = &'p str>, text: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if matches(not, text) => return false,
            Some(_) => {}
            None => found |= matches(pattern, text),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_lists_match_as_in_the_manual() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("*", "x", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a*b*c", "aXbXbXc", true),
            ("?", "x", true),
            ("?", "", false),
            ("10.0.0.?", "10.0.0.7", true),
            ("10.0.0.?", "10.0.0.77", false),
            ("far", "far", true),
            ("far", "Far", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
        let list = |text| in_list("*.example.org !bad.example.org".split(' '), text);
        assert!(list("a.example.org") && !list("bad.example.org") && !list("x.org"));
    }
}
