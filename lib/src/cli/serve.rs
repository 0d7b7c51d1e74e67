//! `mirror-sync --serve`: the far end of a copy, on standard input and output.

use super::tree::log_dir;
use crate::base::{Class, Error, Result, limits};
use crate::capture::far::Trees;
use crate::device::Confined;
use crate::remote::{self, Call, FarDevice, FarStream, FarTree, How, Service};
use crate::sync;
use crate::transport::stream::Timed;
use std::io::IsTerminal as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

struct FarEnd {
    confined: Confined,
    read_only: bool,
}

impl FarEnd {
    fn trees(&self) -> Trees<'_> {
        let usual_log = |root: &Path| log_dir(None, root);
        Trees { confined: &self.confined, read_only: self.read_only, usual_log }
    }
}

impl Service for FarEnd {
    fn device(&self, path: &[u8], how: How) -> Result<Box<dyn FarDevice>> {
        Ok(Box::new(sync::far::open(&self.confined, self.read_only, path, how)?))
    }

    fn apply(&self, call: &Call) -> Result<Box<dyn FarStream>> {
        Ok(Box::new(self.trees().apply(call)?))
    }

    fn scan(&self, call: &Call) -> Result<Box<dyn FarTree>> {
        Ok(Box::new(self.trees().scan(call)?))
    }

    fn round(&self, call: &Call) -> Result<Vec<u8>> {
        self.trees().round(call)
    }
}

/// Serves whoever started this, beneath `root` if there is one, until they end the connection.
pub fn serve(root: Option<&Path>, read_only: bool) -> Result<()> {
    if std::io::stdin().is_terminal() || std::io::stdout().is_terminal() {
        let text = "--serve: talking to a terminal: it is started by the near end of a copy, through ssh";
        return Err(Error::new(Class::Usage, text).hint("mirror-sync SOURCE ssh://HOST/PATH"));
    }
    let confined = root.map_or(Ok(Confined::nowhere()), Confined::beneath)?;
    let patience = Duration::from_millis(limits::REMOTE_SILENCE_MS);
    let fail = |e| Error::os(Class::Internal, "--serve", "taking its standard input and output", e);
    let half = |fd: std::io::Result<OwnedFd>| fd.and_then(|fd| Timed::new(fd, patience)).map_err(fail);
    let input = half(std::io::stdin().as_fd().try_clone_to_owned())?;
    let output = half(std::io::stdout().as_fd().try_clone_to_owned())?;
    remote::serve(input, Box::new(output), &FarEnd { confined, read_only })
}
