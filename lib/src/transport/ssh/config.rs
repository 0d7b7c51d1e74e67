//! What is read of `ssh_config(5)`: HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump, HostKeyAlias,
//! the files of known hosts, Include, Host, and `Match all`. What would change where a connection goes and is not
//! read (ProxyCommand, other Match blocks) is told, so that nobody is taken elsewhere silently.

use super::pattern::in_list;
use std::path::{Path, PathBuf};

/// Deepest nesting of Include.
const DEPTH: usize = 8;
/// Largest file that is read.
const FILE: usize = 1 << 20;

/// What is configured for one host. The first value found counts, as everywhere in this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The name or address to connect to.
    pub host_name: Option<String>,
    /// Who one is there.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Private keys, in order; tokens and `~` are not yet replaced.
    pub identity_files: Vec<String>,
    /// Only these keys, whatever an agent holds.
    pub identities_only: Option<bool>,
    /// `none`, or hosts to go through.
    pub proxy_jump: Option<String>,
    /// What the host is called in the files of known hosts.
    pub host_key_alias: Option<String>,
    /// The user's files of known hosts.
    pub user_known_hosts: Option<Vec<String>>,
    /// The machine's files of known hosts.
    pub global_known_hosts: Option<Vec<String>>,
    /// What is there and not understood, and matters: the word, and where it stands.
    pub not_read: Vec<String>,
}

/// Gives the texts of the files that a pattern names, and their paths. A file that cannot be read is not there.
pub type Files<'f> = &'f dyn Fn(&Path) -> Vec<(PathBuf, String)>;

impl Settings {
    /// What the files say of a host, in order: the user's, then the machine's. `home` is where `~` leads.
    pub fn of(host: &str, files: &[PathBuf], home: &Path, read: Files<'_>) -> Self {
        let mut settings = Self::default();
        for file in files {
            let dir = file.parent().unwrap_or(home);
            for (path, text) in read(file) {
                settings.text(host, &text, &path, (dir, home), read, DEPTH);
            }
        }
        settings
    }

    fn text(
        &mut self,
        host: &str,
        text: &str,
        path: &Path,
        (dir, home): (&Path, &Path),
        read: Files<'_>,
        depth: usize,
    ) {
        let mut applies = true;
        for (number, line) in text.lines().enumerate() {
            let words = words(line);
            let Some((key, values)) = words.split_first() else { continue };
            let at = |what: &str| format!("{what} ({}, line {})", path.display(), number + 1);
            let key = key.to_ascii_lowercase();
            match key.as_str() {
                "host" => applies = in_list(values.iter().map(String::as_str), host),
                "match" => {
                    applies = matches!(values, [all] if all.eq_ignore_ascii_case("all"));
                    if !applies {
                        self.not_read.push(at("Match"));
                    }
                }
                _ if !applies => {}
                "include" if depth > 0 => {
                    for value in values {
                        let file = dir.join(expand_home(value, home));
                        for (path, text) in read(&file) {
                            self.text(host, &text, &path, (dir, home), read, depth - 1);
                        }
                    }
                }
                "proxycommand" => {
                    let none = matches!(values, [none] if none.eq_ignore_ascii_case("none"));
                    if !none && self.proxy_jump.is_none() {
                        self.not_read.push(at("ProxyCommand"));
                    }
                }
                _ => self.set(&key, values),
            }
        }
    }

    fn set(&mut self, key: &str, values: &[String]) {
        let Some(first) = values.first() else { return };
        let one = |slot: &mut Option<String>| {
            slot.get_or_insert_with(|| first.clone());
        };
        let list = |slot: &mut Option<Vec<String>>| {
            slot.get_or_insert_with(|| values.to_vec());
        };
        match key {
            "hostname" => one(&mut self.host_name),
            "user" => one(&mut self.user),
            "port" => self.port = self.port.or_else(|| first.parse().ok()),
            "identityfile" => self.identity_files.push(first.clone()),
            "identitiesonly" => {
                self.identities_only.get_or_insert(first.eq_ignore_ascii_case("yes"));
            }
            "proxyjump" => one(&mut self.proxy_jump),
            "hostkeyalias" => one(&mut self.host_key_alias),
            "userknownhostsfile" => list(&mut self.user_known_hosts),
            "globalknownhostsfile" => list(&mut self.global_known_hosts),
            _ => {}
        }
    }
}

/// The words of a line: separated by spaces or one `=`, quotes around what holds spaces, nothing behind `#`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, more) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.split_once('"').unwrap_or((quoted, ""))
        } else {
            let ends = |c: char| c.is_whitespace() || (words.is_empty() && c == '=');
            rest.split_at(rest.find(ends).unwrap_or(rest.len()))
        };
        words.push(word.to_owned());
        rest = more.trim_start();
        if words.len() == 1 {
            rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        }
    }
    words
}

/// `~/x` under a home directory; anything else as it is.
pub fn expand_home(text: &str, home: &Path) -> PathBuf {
    match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(text),
    }
}

/// Replaces the tokens that are known; `None` if there is another one.
pub fn expand_tokens(text: &str, tokens: &[(char, &str)]) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let token = chars.next()?;
        match tokens.iter().find(|(name, _)| *name == token) {
            Some((_, value)) => out.push_str(value),
            None if token == '%' => out.push('%'),
            None => return None,
        }
    }
    Some(out)
}

/// The files that a path names whose last part may hold `*` and `?`, sorted, and their texts.
pub fn read_files(path: &Path) -> Vec<(PathBuf, String)> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let mut paths = if name.contains(['*', '?']) {
        let entries = std::fs::read_dir(path.parent().unwrap_or(Path::new("/"))).into_iter().flatten();
        let found = entries.flatten().filter(|entry| {
            let other = entry.file_name();
            other
                .to_str()
                .is_some_and(|other| !other.starts_with('.') && super::pattern::matches(name, other))
        });
        found.map(|entry| entry.path()).collect()
    } else {
        vec![path.to_owned()]
    };
    paths.sort();
    let read = |path: PathBuf| {
        let small = std::fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() <= FILE as u64);
        let text = small.then(|| std::fs::read_to_string(&path).ok()).flatten()?;
        Some((path, text))
    };
    paths.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: &str, text: &str) -> Settings {
        let read = |path: &Path| {
            let text = match path.to_str() {
                Some("/h/.ssh/config") => text.to_owned(),
                Some("/h/.ssh/more") => "Host far\nPort 99\nUser other".to_owned(),
                Some("/etc/ssh/ssh_config") => "User everybody\nIdentityFile /etc/key".to_owned(),
                _ => return Vec::new(),
            };
            vec![(path.to_owned(), text)]
        };
        let files = ["/h/.ssh/config", "/etc/ssh/ssh_config"].map(PathBuf::from);
        Settings::of(host, &files, Path::new("/h"), &read)
    }

    #[test]
    fn the_first_value_counts_and_keys_add_up() {
        let text = "# mine\nHost far other\n  HostName=10.0.0.1\n\tPort 2222\nIdentityFile ~/.ssh/\"a\"\n\
                    Host *.org !no.org\nProxyJump gate\nHost *\nUser me\nport 7\nIdentityFile \"~/k y\" # x\n";
        let far = of("far", text);
        assert_eq!((far.host_name.as_deref(), far.port), (Some("10.0.0.1"), Some(2222)));
        assert_eq!((far.user.as_deref(), far.proxy_jump), (Some("me"), None));
        assert_eq!(far.identity_files, ["~/.ssh/\"a\"", "~/k y", "/etc/key"]);
        assert_eq!(of("x.org", text).proxy_jump.as_deref(), Some("gate"));
        assert_eq!((of("no.org", text).proxy_jump, of("no.org", text).port), (None, Some(7)));
    }

    #[test]
    fn what_matters_and_is_not_read_is_told() {
        let told =
            of("far", "Host far\nProxyCommand nc %h %p\nMatch user x\nPort 9\nMatch all\nUser m").not_read;
        assert_eq!(told, ["ProxyCommand (/h/.ssh/config, line 2)", "Match (/h/.ssh/config, line 3)"]);
        assert_eq!(of("far", "ProxyJump none\nProxyCommand x").not_read, [""; 0]);
        assert_eq!(of("far", "Host near\nProxyCommand x\nHost far\nProxyCommand none").not_read, [""; 0]);
        assert_eq!(of("far", "Match user x\nPort 9\nMatch all\nUser m").user.as_deref(), Some("m"));
    }

    #[test]
    fn included_files_stand_where_they_are_named() {
        let text = "Include more\nHost far\nPort 1\nUser me\n";
        assert_eq!((of("far", text).port, of("far", text).user.as_deref()), (Some(99), Some("other")));
        assert_eq!((of("x", text).port, of("x", text).user.as_deref()), (None, Some("everybody")));
        // A file that includes itself comes to an end.
        assert_eq!(of("far", "Include config\nPort 3").port, Some(3));
    }

    #[test]
    fn tokens_and_homes_are_expanded() {
        let tokens = [('h', "far"), ('r', "me")];
        assert_eq!(expand_tokens("k_%h_%r%%", &tokens).as_deref(), Some("k_far_me%"));
        assert_eq!(expand_tokens("%C", &tokens), None);
        assert_eq!(expand_home("~/.ssh/k", Path::new("/h")), Path::new("/h/.ssh/k"));
        assert_eq!(expand_home("~you/k", Path::new("/h")), Path::new("~you/k"));
    }
}
