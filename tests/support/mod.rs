//! What tests share: a directory of their own, programs with a time limit, servers that never outlive their
//! test, and skipping that nobody can miss.

// Each module of tests uses a part of this.
#![allow(dead_code, unused_imports)]

mod need;
mod pair;
pub mod pki;
mod recording;
mod run;
mod server;
mod ssh;
mod tree;
mod volume;

pub use need::need;
pub use pair::{Pair, wanted};
pub use recording::{CFOR_TOOLS, Recording, bytes_read, recorded, round};
pub use run::{Output, Tool, run};
pub use server::{Server, wait_for};
pub use ssh::{PROGRAMS as SSH, Sshd};
pub use tree::{Disk, Random, mutate, mutate_with_events};
pub use volume::{Volume, assert_equal, nbdkit};

use std::path::{Path, PathBuf};

/// The directory of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the programs: the files in `bins/`.
pub fn bins() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(root().join("bins"))
        .expect("bins")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| path.file_stem().expect("stem").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The page of a program: of the section for everybody, or of that for administrators.
pub fn man_page(name: &str) -> Option<PathBuf> {
    let pages = ["1", "8"].map(|section| root().join("man").join(format!("{name}.{section}")));
    pages.into_iter().find(|page| page.is_file())
}

/// A built program.
pub fn bin(name: &str) -> PathBuf {
    // Beside the tests' own directory, whatever the profile: target/PROFILE/deps/tests-… and target/PROFILE/NAME.
    let here = std::env::current_exe().expect("own path");
    here.parent().and_then(Path::parent).expect("target directory").join(name)
}

/// A directory of a test's own, with a state directory in it. Its path is short enough for sockets.
pub struct Dir(tempfile::TempDir);

impl Dir {
    /// A new one.
    pub fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// A new one in this directory: for images that must not be on a disk, or must.
    pub fn new_in(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("mt").tempdir_in(parent).expect("temporary directory");
        std::fs::create_dir(dir.path().join("state")).expect("state directory");
        Self(dir)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file in it, of zeroes.
    pub fn image(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(size)).expect("image");
        path
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// `mirrord` with this state directory and these arguments.
    pub fn mirrord(&self, args: &[&str]) -> Tool {
        Tool::new(bin("mirrord")).args(args).env("MIRROR_STATE_DIR", self.state())
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `mirror-sync` with these arguments, and the state directory of a test.
pub fn sync(dir: &Dir, args: &[&str]) -> Tool {
    Tool::new(bin("mirror-sync")).args(args).env("MIRROR_STATE_DIR", dir.state())
}
