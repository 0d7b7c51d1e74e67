//! Where things are: the state directory, and the files of one volume in it.
//!
//! ```text
//! DIR                     $MIRROR_STATE_DIR, $STATE_DIRECTORY (systemd), $XDG_STATE_HOME/mirrord or
//!                         ~/.local/state/mirrord (ordinary users), /var/lib/mirrord (root)
//! DIR/NAME/               one volume, mode 0700
//!   volume.toml           its legs and options, written by `create`
//!   LEG.record  LEG.map   record and map of each leg
//!   NAME.tracker          the map of each tracker
//!   resize                a growth that is under way
//!   control.sock          the control socket
//!   nbd.sock              the listener when no other was asked for
//!   lock  mirrord.pid     held and written by the daemon
//! ```

use crate::base::{Class, Error, Name, Result, limits};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The state directory of this machine and user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// The directory of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDir {
    path: PathBuf,
    name: Name,
}

impl StateDir {
    /// The state directory by the rule of `cli.md`, from the environment of the process.
    pub fn from_environment() -> Result<Self> {
        Self::choose(|name| std::env::var_os(name), rustix::process::geteuid().is_root())
    }

    /// A directory of the caller's choice.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The rule itself: pure. An empty variable counts as absent.
    pub fn choose(env: impl Fn(&str) -> Option<OsString>, root: bool) -> Result<Self> {
        let set = |name: &str| env(name).filter(|v| !v.is_empty());
        let path = if let Some(dir) = set("MIRROR_STATE_DIR") {
            PathBuf::from(dir)
        } else if let Some(dirs) = set("STATE_DIRECTORY") {
            let first = dirs.as_bytes().split(|b| *b == b':').next().unwrap_or_default();
            PathBuf::from(std::ffi::OsStr::from_bytes(first))
        } else if root {
            PathBuf::from("/var/lib/mirrord")
        } else if let Some(dir) = set("XDG_STATE_HOME").filter(|d| Path::new(d).is_absolute()) {
            Path::new(&dir).join("mirrord")
        } else if let Some(home) = set("HOME") {
            Path::new(&home).join(".local/state/mirrord")
        } else {
            return Err(Error::new(
                Class::Usage,
                "state directory: finding it: neither MIRROR_STATE_DIR nor HOME is set",
            )
            .hint("export MIRROR_STATE_DIR=DIRECTORY"));
        };
        std::path::absolute(&path)
            .map(Self)
            .map_err(|e| Error::io(path.display(), "finding the state directory", e))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of one volume, whether it exists or not.
    pub fn volume(&self, name: &Name) -> VolumeDir {
        VolumeDir { path: self.0.join(name.as_str()), name: name.clone() }
    }

    /// The names of all volumes in it, sorted. A state directory that does not exist holds none.
    pub fn volumes(&self) -> Result<Vec<Name>> {
        let fail = |e| Error::io(self.0.display(), "listing volumes", e);
        let entries = match std::fs::read_dir(&self.0) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(fail)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let Some(name) = entry.file_name().to_str().and_then(|n| n.parse::<Name>().ok()) else {
                continue;
            };
            let volume = self.volume(&name);
            if volume.config().exists() || volume.control_socket_path().exists() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

impl VolumeDir {
    /// The state directory that it is in.
    pub fn state(&self) -> StateDir {
        StateDir(self.path.parent().unwrap_or(Path::new("/")).to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The volume's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// `volume.toml`
    pub fn config(&self) -> PathBuf {
        self.path.join("volume.toml")
    }

    /// `LEG.record`
    pub fn record(&self, leg: &Name) -> PathBuf {
        self.path.join(format!("{leg}.record"))
    }

    /// `LEG.map`
    pub fn map(&self, leg: &Name) -> PathBuf {
        self.path.join(format!("{leg}.map"))
    }

    /// `NAME.tracker`
    pub fn tracker(&self, tracker: &Name) -> PathBuf {
        self.path.join(format!("{tracker}.tracker"))
    }

    /// The names of all trackers, sorted: the files are the list. At most [`limits::TRACKERS`] of them are ever
    /// made by us.
    pub fn trackers(&self) -> Result<Vec<Name>> {
        let fail = |e| Error::io(self.path.display(), "listing trackers", e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            names.extend(name.to_str().and_then(|n| n.strip_suffix(".tracker")).and_then(|n| n.parse().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// `resize`: a growth that is under way.
    pub fn resize(&self) -> PathBuf {
        self.path.join("resize")
    }

    /// `lock`
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// `mirrord.pid`
    pub fn pid(&self) -> PathBuf {
        self.path.join("mirrord.pid")
    }

    fn control_socket_path(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// `control.sock`; refused if the path does not fit in a socket address.
    pub fn control_socket(&self) -> Result<PathBuf> {
        socket_path(self.control_socket_path())
    }

    /// `nbd.sock`; refused if the path does not fit in a socket address.
    pub fn nbd_socket(&self) -> Result<PathBuf> {
        socket_path(self.path.join("nbd.sock"))
    }

    /// Refuses a volume of which nothing is there, naming the way out.
    pub fn must_exist(&self) -> Result<()> {
        match std::fs::metadata(&self.path) {
            Ok(data) if data.is_dir() => Ok(()),
            Ok(_) => Err(Error::new(
                Class::Io,
                format!("{}: opening the volume's directory: Not a directory", self.path.display()),
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(self.unknown()),
            Err(e) => Err(Error::io(self.path.display(), "opening the volume's directory", e)),
        }
    }

    /// The error for a volume that was never created.
    pub fn unknown(&self) -> Error {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        Error::new(Class::Usage, format!("{}: no such volume in {}", self.name, dir.display()))
            .hint(format!("mirrord create {} --size SIZE --leg LEG", self.name))
    }
}

/// Checks that a path fits in the address of a Unix socket (unix(7)).
pub fn socket_path(path: PathBuf) -> Result<PathBuf> {
    let len = path.as_os_str().len();
    if len <= limits::UNIX_PATH {
        return Ok(path);
    }
    Err(Error::new(
        Class::Usage,
        format!(
            "{}: the path of a Unix socket has {len} bytes, at most {} are possible",
            path.display(),
            limits::UNIX_PATH
        ),
    )
    .hint("export MIRROR_STATE_DIR=SHORTER-DIRECTORY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_follows_the_rule() {
        type Case<'a> = (&'a [(&'a str, &'a str)], bool, Option<&'a str>);
        let table: [Case<'_>; 9] = [
            (&[("MIRROR_STATE_DIR", "/m"), ("STATE_DIRECTORY", "/s")], true, Some("/m")),
            (&[("MIRROR_STATE_DIR", ""), ("STATE_DIRECTORY", "/s:/t")], true, Some("/s")),
            (&[("HOME", "/root"), ("XDG_STATE_HOME", "/x")], true, Some("/var/lib/mirrord")),
            (&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")], false, Some("/x/mirrord")),
            (&[("HOME", "/h"), ("XDG_STATE_HOME", "x")], false, Some("/h/.local/state/mirrord")),
            (&[("HOME", "/h")], false, Some("/h/.local/state/mirrord")),
            (&[("MIRROR_STATE_DIR", "/m")], false, Some("/m")),
            (&[("STATE_DIRECTORY", "/s")], false, Some("/s")),
            (&[], false, None),
        ];
        for (env, root, is) in table {
            let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            let dir = StateDir::choose(get, root).ok();
            assert_eq!(dir.as_ref().map(StateDir::path), is.map(Path::new), "{env:?} {root}");
        }
    }

    #[test]
    fn a_socket_path_that_does_not_fit_names_both_lengths() {
        let name: Name = "vol0".parse().expect("name");
        let volume = StateDir::new(format!("/{}", "x".repeat(100))).volume(&name);
        let error = volume.control_socket().expect_err("too long");
        assert!(error.message.contains("119 bytes, at most 107"), "{error}");
        assert!(StateDir::new("/run").volume(&name).nbd_socket().is_ok());
    }

    #[test]
    fn only_directories_of_volumes_are_listed() {
        let dir = tempfile::tempdir().expect("directory");
        let state = StateDir::new(dir.path());
        for name in ["b", "a", "empty", "-odd"] {
            std::fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        for name in ["a", "b", "-odd"] {
            std::fs::write(dir.path().join(name).join("volume.toml"), "").expect("write");
        }
        let names: Vec<_> = state.volumes().expect("list").iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(StateDir::new(dir.path().join("none")).volumes().expect("none").is_empty());
        let missing = state.volume(&"zzz".parse().expect("name")).must_exist().expect_err("missing");
        assert_eq!(missing.class, Class::Usage);
    }
}
