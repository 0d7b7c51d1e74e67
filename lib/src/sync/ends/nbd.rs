//! An NBD export, over as many connections as the server allows.

use super::command::Started;
use crate::base::{ByteRange, Class, Error, Result, limits};
use crate::device::FileDevice;
use crate::leg::dial::Dial;
use crate::nbd::client::{ClientOptions, Pipelined};
use crate::nbd::uri::NbdUri;
use crate::nbd::wire::TransmissionFlags;
use crate::sync::end::{End, Facts, Opening, Piece};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The context that tells zeroes from data.
const ALLOCATION: &str = "base:allocation";
/// The flag in it for what reads as zeroes.
const ZERO: u32 = 2;
/// Most bytes of one request for extents: some servers take 32 bits less a little.
const ASK: u64 = 1 << 30;
/// Most bytes of zeroes in one request: some servers bound effects like payloads.
const ZEROES: u64 = 32 << 20;

/// So many requests are worth another connection: to open and close one took as long as a hundred and fifty of 64 KiB
/// (nbdkit, two cores).
const WORTH: usize = 1024;

/// An NBD export.
#[derive(Debug)]
pub struct NbdEnd {
    first: Pipelined,
    /// Further ones, each opened when there is work for it; empty where there was no way to.
    further: Vec<OnceLock<Option<Pipelined>>>,
    uri: NbdUri,
    dial: Dial,
    /// Most requests in flight on a further connection.
    depth: usize,
    next: AtomicUsize,
    facts: Facts,
    contexts: bool,
    /// Why nothing that was written is known to be durable.
    lost: OnceLock<Error>,
    /// Why nothing more can be written; what was written is there.
    full: OnceLock<Error>,
    /// What messages call it, where that is not what it is called here.
    called: Option<String>,
    /// The server, where it was started for this copy; ends after the connections.
    _server: Option<Started>,
}

impl NbdEnd {
    /// Connects to an export: several times if it says that it may be written to over several connections, or is
    /// only read. Classes: `Connect`, `Timeout`, `Usage` for a URI that is none.
    pub fn open(uri: &str, opening: Opening) -> Result<Self> {
        Self::open_over(uri, opening, &Dial::default())
    }

    /// The same; this is how servers are reached.
    pub fn open_over(uri: &str, opening: Opening, dial: &Dial) -> Result<Self> {
        Self::connect(&uri.parse()?, uri, None, opening, dial)
    }

    /// Starts a server with its listening socket as descriptor 3 (`sd_listen_fds(3)`), and connects to it.
    pub fn start(command: &[String], opening: Opening) -> Result<Self> {
        let (server, uri) = Started::new(command)?;
        let name = format!("[ {} ]", command.join(" "));
        Self::connect(&uri, &name, Some(server), opening, &Dial::default())
    }

    fn connect(
        uri: &NbdUri,
        name: &str,
        server: Option<Started>,
        opening: Opening,
        dial: &Dial,
    ) -> Result<Self> {
        let wanted = opening.connections.max(1);
        let first = again(uri, opening.depth, dial)?;
        let info = first.info().clone();
        let several = info.flags.has(TransmissionFlags::CAN_MULTI_CONN) || !opening.write;
        let further = if several { wanted - 1 } else { 0 };
        let request_max = (info.max_payload - info.max_payload % info.min_block) as usize;
        let facts = Facts {
            name: name.to_owned(),
            size: info.size,
            identity: server.is_none().then(|| format!("nbd:{uri}")),
            read_only: info.flags.has(TransmissionFlags::READ_ONLY),
            in_use: None,
            live: false,
            flushes: info.flags.has(TransmissionFlags::SEND_FLUSH),
            zeroes: info.flags.has(TransmissionFlags::SEND_WRITE_ZEROES),
            tells_zeroes: info.contexts.iter().any(|(_, name)| name == ALLOCATION),
            hashes: false,
            takes_files: true,
            align: u64::from(info.min_block),
            request_max,
            lanes: opening.depth,
        };
        let contexts = facts.tells_zeroes;
        let (lost, full) = (OnceLock::new(), OnceLock::new());
        let called = server.is_some().then(|| uri.to_string());
        let next = AtomicUsize::new(0);
        let further = std::iter::repeat_with(OnceLock::new).take(further).collect();
        let (uri, dial, depth) = (uri.clone(), dial.clone(), opening.depth.div_ceil(wanted));
        Ok(Self {
            first,
            further,
            uri,
            dial,
            depth,
            next,
            facts,
            contexts,
            lost,
            full,
            called,
            _server: server,
        })
    }

    /// The connection for the next request: in turn, of as many as are worth it by now.
    fn one(&self) -> &Pipelined {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = number % (1 + self.further.len()).min(1 + number / WORTH);
        let further = slot.checked_sub(1).and_then(|slot| self.further.get(slot));
        further.and_then(|cell| cell.get_or_init(|| self.another()).as_ref()).unwrap_or(&self.first)
    }

    /// Opens a further connection. A server that takes no more of them still serves; one that is another disk by now
    /// does not.
    fn another(&self) -> Option<Pipelined> {
        let another = again(&self.uri, self.depth, &self.dial).ok()?;
        let (is, was) = (another.info().size, self.facts.size);
        if is != was {
            let text = format!("{}: opening it again: {is} bytes now, {was} before", self.facts.name);
            let _ = self.lost.set(Error::new(Class::Io, text));
            return None;
        }
        Some(another)
    }

    /// Those that are open.
    fn connections(&self) -> impl Iterator<Item = &Pipelined> {
        std::iter::once(&self.first).chain(self.further.iter().filter_map(|cell| cell.get()?.as_ref()))
    }

    /// What one connection says counts for all: writes that were acknowledged over a connection that is lost are
    /// not covered by a flush of another.
    fn seen(&self, connection: &Pipelined, error: Error) -> Error {
        let error = match &self.called {
            Some(called) => Error { message: error.message.replacen(called, &self.facts.name, 1), ..error },
            None => error,
        };
        if let Some(broken) = connection.broken() {
            let name = &self.facts.name;
            let _ = self.lost.set(Error::new(broken.class, format!("{name}: {}", broken.message)));
        } else if error.message.ends_with("no space left") {
            let _ = self.full.set(error.clone());
        }
        error
    }

    fn usable(&self) -> Result<()> {
        match self.lost.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// A connection to an export.
fn again(uri: &NbdUri, depth: usize, dial: &Dial) -> Result<Pipelined> {
    let contexts = vec![ALLOCATION.to_owned()];
    let options = ClientOptions { export: uri.export.clone(), contexts, structured: true };
    dial.pipelined(uri, options, Duration::from_millis(limits::LEG_TIMEOUT_MS), depth)
}

impl End for NbdEnd {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        self.usable()?;
        let one = self.one();
        one.read(offset, buf).map_err(|e| self.seen(one, e))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.usable()?;
        let one = self.one();
        one.write(offset, data).map_err(|e| self.seen(one, e))
    }

    fn write_from(&self, file: &FileDevice, range: ByteRange) -> Result<()> {
        self.usable()?;
        let one = self.one();
        let done = one.write_file(range.offset, file.fd(), range.offset, range.len as u32);
        done.map_err(|e| self.seen(one, e))
    }

    fn zero(&self, range: ByteRange, punch: bool) -> Result<()> {
        self.usable()?;
        let one = self.one();
        let step = if self.facts.zeroes { ZEROES } else { (self.facts.request_max as u64).min(1 << 20) };
        let zeroes = if self.facts.zeroes { Vec::new() } else { vec![0; step.min(range.len) as usize] };
        let mut at = range.offset;
        while at < range.end() {
            let len = step.min(range.end() - at);
            if self.facts.zeroes {
                one.zeroes(at, len as u32, punch).map_err(|e| self.seen(one, e))?;
            } else {
                one.write(at, &zeroes[..len as usize]).map_err(|e| self.seen(one, e))?;
            }
            at += len;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.usable()?;
        // One flush covers all connections where the server allows several, if all of them still live.
        let one = self.one();
        let done = one.flush();
        if let Some(dead) = self.connections().find(|connection| connection.broken().is_some()) {
            // That is remembered, with the name of this end; a connection of its own accord has none.
            self.seen(dead, Error::silent(Class::Connect));
            return self.usable();
        }
        done.inspect_err(|error| {
            // Whatever a later flush says, what this one did not cover is not known to be durable.
            let _ = self.lost.set(error.clone());
        })
    }

    fn extents(&self, range: ByteRange, pieces: &mut Vec<Piece>) -> Result<()> {
        if !self.contexts {
            pieces.push(Piece { range, zero: false });
            return Ok(());
        }
        let one = self.one();
        let mut at = range.offset;
        while at < range.end() {
            let ask = (range.end() - at).min(ASK) as u32;
            for (len, flags) in one.block_status(ALLOCATION, at, ask).map_err(|e| self.seen(one, e))? {
                let len = u64::from(len);
                let zero = flags & ZERO != 0;
                match pieces.last_mut() {
                    Some(last) if last.zero == zero && last.range.end() == at => last.range.len += len,
                    _ => pieces.push(Piece { range: ByteRange { offset: at, len }, zero }),
                }
                at += len;
            }
        }
        Ok(())
    }

    fn gone(&self) -> Option<Error> {
        if let Some(error) = self.lost.get().or(self.full.get()) {
            return Some(error.clone());
        }
        let broken = self.connections().find_map(Pipelined::broken)?;
        Some(Error::new(broken.class, format!("{}: {}", self.facts.name, broken.message)))
    }
}
