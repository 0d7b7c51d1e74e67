//! A connection to the far end of a copy: the channel of `transport` and the protocol of `remote`, put together.

use super::dial::Dial;
use crate::base::{Class, Error, Result};
use crate::remote::{Client, Pipe};
use crate::transport::ssh::{self, Options, Target};

/// How to reach far ends, as the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The way there.
    pub ssh: Options,
    /// Whether what travels is compressed.
    pub zstd: bool,
    /// How NBD servers are reached.
    pub dial: Dial,
}

/// Connects, and starts `mirror-sync --serve` over there. Class `Connect` or `Timeout` if that does not come about.
pub fn reach(target: &Target, reach: &Reach) -> Result<Client> {
    let link = ssh::open(target, &reach.ssh)?;
    let name = target.to_string();
    let (ending, told) = (link.ending, name.clone());
    let why = move || ending.why(&told);
    let pipe =
        Pipe { name, reader: Box::new(link.reader), writer: Box::new(link.writer), why: Box::new(why) };
    Client::start(pipe, reach.zstd)
}

/// The address of something on another machine, if this is one.
pub fn target(text: &str) -> Result<Option<Target>> {
    if Target::is_one(text) { text.parse().map(Some) } else { Ok(None) }
}

/// The same, of a path as it stands in a command line.
pub fn target_of(path: &std::path::Path) -> Result<Option<Target>> {
    match path.to_str() {
        Some(text) => target(text),
        None if path.as_os_str().as_encoded_bytes().starts_with(b"ssh://") => {
            Err(Error::new(Class::Usage, format!("{}: write bytes that are no text as %XX", path.display())))
        }
        None => Ok(None),
    }
}
