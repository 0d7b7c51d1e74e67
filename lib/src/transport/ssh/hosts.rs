//! Whether a host is whom the files of known hosts know (`sshd(8)`, on the format of that file).

use super::pattern::in_list;
use std::path::{Path, PathBuf};

/// A key as it stands in these files: its type, and its bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `ssh-ed25519`, …
    pub kind: String,
    /// Base64.
    pub base64: String,
}

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Known,
    /// Nobody has seen this host, or not with a key of this type.
    Unknown,
    /// Another key of this type stands there.
    Changed {
        /// In which file.
        file: PathBuf,
        /// In which line, from 1.
        line: usize,
    },
    /// This key is marked as revoked.
    Revoked {
        /// In which file.
        file: PathBuf,
        /// In which line, from 1.
        line: usize,
    },
}

/// One line that is of this host, or revokes a key.
#[derive(Clone, Debug)]
struct Line {
    file: PathBuf,
    number: usize,
    key: Key,
    revoked: bool,
}

/// What the files say of one host.
#[derive(Clone, Debug, Default)]
pub struct Known(Vec<Line>);

/// What a host is called in these files.
pub fn name_of(host: &str, port: u16) -> String {
    if port == 22 { host.to_ascii_lowercase() } else { format!("[{}]:{port}", host.to_ascii_lowercase()) }
}

impl Known {
    /// Reads the text of a file. `hashed` says whether a hashed line is of this name.
    pub fn read(&mut self, file: &Path, text: &str, name: &str, hashed: &dyn Fn(&str) -> bool) {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace().peekable();
            let marker = words.next_if(|word| word.starts_with('@'));
            let (Some(names), Some(kind), Some(base64)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if names.starts_with('#') {
                continue;
            }
            let revoked = marker == Some("@revoked");
            // A key that is revoked for one host is worth nothing for another. Certificates are not understood.
            let ours = match marker {
                Some(_) => revoked,
                None if names.starts_with('|') => hashed(line),
                None => in_list(names.split(','), name),
            };
            if ours {
                let key = Key { kind: kind.to_owned(), base64: base64.to_owned() };
                self.0.push(Line { file: file.to_owned(), number: number + 1, key, revoked });
            }
        }
    }

    /// Types of keys that this host is known by.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> =
            self.0.iter().filter(|line| !line.revoked).map(|line| line.key.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// What is to be made of a key that a host shows.
    pub fn judge(&self, key: &Key) -> Verdict {
        let found = |line: &Line| (line.file.clone(), line.number);
        if let Some((file, line)) = self.0.iter().find(|l| l.revoked && l.key.base64 == key.base64).map(found)
        {
            return Verdict::Revoked { file, line };
        }
        let mut same = self.0.iter().filter(|line| !line.revoked && line.key.kind == key.kind);
        if same.clone().any(|line| line.key == *key) {
            return Verdict::Known;
        }
        match same.next().map(found) {
            Some((file, line)) => Verdict::Changed { file, line },
            None => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n\
        far,10.0.0.1 ssh-ed25519 AAAAfar me@far\n\
        \n\
        far ssh-rsa AAAArsa\n\
        [far]:2222 ssh-ed25519 AAAAport\n\
        *.example.org,!bad.example.org ecdsa-sha2-nistp256 AAAAstar\n\
        |1|salt|hash ssh-ed25519 AAAAhashed\n\
        @revoked * ssh-ed25519 AAAAgone\n\
        @cert-authority * ssh-ed25519 AAAAca\n\
        broken line\n";

    fn known(host: &str, port: u16) -> Known {
        let mut known = Known::default();
        let hashed = |line: &str| host == "secret" && line.contains("|1|salt|hash");
        known.read(Path::new("/k"), TEXT, &name_of(host, port), &hashed);
        known
    }

    #[test]
    fn a_key_is_known_unknown_changed_or_revoked() {
        let file = || PathBuf::from("/k");
        for (host, port, kind, base64, is) in [
            ("far", 22, "ssh-ed25519", "AAAAfar", Verdict::Known),
            ("FAR", 22, "ssh-ed25519", "AAAAfar", Verdict::Known),
            ("10.0.0.1", 22, "ssh-ed25519", "AAAAfar", Verdict::Known),
            ("far", 22, "ssh-rsa", "AAAArsa", Verdict::Known),
            ("far", 22, "ssh-ed25519", "AAAAother", Verdict::Changed { file: file(), line: 2 }),
            ("far", 22, "ecdsa-sha2-nistp256", "AAAAother", Verdict::Unknown),
            ("far", 2222, "ssh-ed25519", "AAAAport", Verdict::Known),
            ("far", 2222, "ssh-ed25519", "AAAAfar", Verdict::Changed { file: file(), line: 5 }),
            ("far", 2200, "ssh-ed25519", "AAAAfar", Verdict::Unknown),
            ("a.example.org", 22, "ecdsa-sha2-nistp256", "AAAAstar", Verdict::Known),
            ("bad.example.org", 22, "ecdsa-sha2-nistp256", "AAAAstar", Verdict::Unknown),
            ("secret", 22, "ssh-ed25519", "AAAAhashed", Verdict::Known),
            ("other", 22, "ssh-ed25519", "AAAAhashed", Verdict::Unknown),
            ("far", 22, "ssh-ed25519", "AAAAgone", Verdict::Revoked { file: file(), line: 8 }),
            ("other", 22, "ssh-ed25519", "AAAAca", Verdict::Unknown),
        ] {
            let key = Key { kind: kind.to_owned(), base64: base64.to_owned() };
            assert_eq!(known(host, port).judge(&key), is, "{host} {port} {base64}");
        }
        assert_eq!(known("far", 22).kinds(), ["ssh-ed25519", "ssh-rsa"]);
    }
}
