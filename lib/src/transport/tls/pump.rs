//! The thread of one tunnel: ciphertext on one side, plaintext on the other.
//!
//! A turn moves whatever can be moved without waiting; when nothing can, [`Pump::wait`] waits for those descriptors
//! with which something could be done, and for the next deadline. A descriptor whose end was seen and with which
//! nothing can be done is not waited for, so that the end of a stream never makes the thread run in circles.
//!
//! The ends:
//!
//! - The peer says goodbye (`close_notify`): the near side reads the end of the stream behind the last byte.
//! - The peer's stream ends without one: somebody may have cut it. The near side gets what came whole, then both its
//!   directions end at once, and [`super::Ending::why`] says so.
//! - The near side is closed: what it wrote is sent ([`limits::TLS_CLOSE_MS`]), goodbye is said, the peer's is awaited
//!   ([`limits::TLS_GOODBYE_MS`]). Before the handshake is over there is nothing to send, and no goodbye.
//! - The near side ends its writing only: goodbye is said, and the other direction goes on.

use super::buffer::Buffer;
use super::explain::{Side, explain};
use super::tunnel::Told;
use crate::base::{Class, Error, Result, error::plain, limits};
use crate::transport::stream::timespec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};
use rustls::Connection;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Pump {
    tls: Connection,
    side: Side,
    outer: OwnedFd,
    inner: OwnedFd,
    told: Arc<Told>,
    is_up: bool,
    /// Until when the handshake must be over.
    shaken_by: Instant,
    /// Received, not decrypted yet.
    cipher: Buffer,
    /// Decrypted, for the near side.
    plain: Buffer,
    /// Of the near side, not encrypted yet.
    own: Buffer,
    /// The peer may still send.
    hears: bool,
    /// The near side may still send.
    speaks: bool,
    /// The near side takes nothing any more: what comes is thrown away.
    deaf: bool,
    /// The near side was told that no more comes.
    ended: bool,
    /// When the near side was seen to be closed.
    gone: Option<Instant>,
    /// When everything was sent, goodbye included.
    finished: Option<Instant>,
    /// The peer's stream was cut.
    cut: Option<Error>,
    /// There may be something to receive.
    outer_ready: bool,
    inner_ready: bool,
    /// Both directions of the descriptor have ended.
    outer_hup: bool,
}

/// A socket as a place to write to, without SIGPIPE.
struct Socket<'s>(&'s OwnedFd);

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, buf, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut none = SendAncillaryBuffer::default();
        Ok(sendmsg(self.0, bufs, &mut none, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Pump {
    pub(super) fn new(
        mut tls: Connection,
        side: Side,
        outer: OwnedFd,
        inner: OwnedFd,
        told: Arc<Told>,
        shaken_by: Instant,
    ) -> Self {
        tls.set_buffer_limit(Some(limits::TLS_BUFFER));
        Self {
            tls,
            side,
            outer,
            inner,
            told,
            is_up: false,
            shaken_by,
            cipher: Buffer::new(),
            plain: Buffer::new(),
            own: Buffer::new(),
            hears: true,
            speaks: true,
            deaf: false,
            ended: false,
            gone: None,
            finished: None,
            cut: None,
            outer_ready: true,
            inner_ready: true,
            outer_hup: false,
        }
    }

    /// Until one of the ends of the module's list.
    pub(super) fn run(mut self) {
        let result = self.go();
        // Told first: whoever then sees the end of the stream finds out why.
        self.told.over(result.err());
    }

    fn go(&mut self) -> Result<()> {
        loop {
            #[cfg(test)]
            self.told.turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let moved = self.turn()?;
            if !self.is_up && !self.tls.is_handshaking() {
                self.is_up = true;
                self.told.up();
            }
            if let Some(end) = self.end(Instant::now()) {
                return end;
            }
            if !moved {
                self.wait()?;
            }
        }
    }

    /// Moves what can be moved. Says whether anything was.
    fn turn(&mut self) -> Result<bool> {
        let received = self.receive()?;
        let delivered = self.deliver();
        let collected = self.collect()?;
        let sent = self.send()?;
        Ok(received || delivered || collected || sent)
    }

    /// From the peer to the plain bytes.
    fn receive(&mut self) -> Result<bool> {
        let mut moved = false;
        while self.plain.is_empty() {
            if self.decrypted()? {
                moved = true;
                continue;
            }
            if !self.cipher.is_empty() && self.tls.wants_read() {
                self.decrypt()?;
                moved = true;
                continue;
            }
            if !self.cipher.is_empty() || !self.hears || !self.outer_ready {
                break;
            }
            moved |= self.receive_once()?;
        }
        Ok(moved)
    }

    /// Takes what was decrypted. Says whether there was something.
    fn decrypted(&mut self) -> Result<bool> {
        match self.tls.reader().read(self.plain.room()) {
            Ok(n) => {
                self.plain.add(n);
                if self.deaf {
                    self.plain.clear();
                }
                Ok(n > 0)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(failed(&plain(&e))),
        }
    }

    /// Decrypts some of what was received.
    fn decrypt(&mut self) -> Result<()> {
        let mut rest = self.cipher.filled();
        let n = self.tls.read_tls(&mut rest).map_err(|e| failed(&plain(&e)))?;
        self.cipher.take(n);
        match self.tls.process_new_packets() {
            Ok(state) => {
                if state.peer_has_closed() {
                    // Nothing behind a goodbye is of the peer.
                    self.hears = false;
                    self.cipher.clear();
                }
                Ok(())
            }
            Err(error) => {
                // The peer is told why, if it still listens.
                let _ = self.tls.write_tls(&mut Socket(&self.outer));
                Err(failed(&explain(&error, &self.side)))
            }
        }
    }

    fn receive_once(&mut self) -> Result<bool> {
        let room = self.cipher.room();
        let most = room.len();
        match recv(&self.outer, room, RecvFlags::empty()) {
            Ok((0, _)) => {
                self.hears = false;
                if self.tls.is_handshaking() {
                    let peer = self.side.peer();
                    return Err(failed(&format!("{peer} closed the connection during the handshake")));
                }
                // Whoever has said goodbye needs none.
                if self.finished.is_none() {
                    let why = "the connection was cut: its end is not the other side's";
                    self.cut = Some(failed(why));
                }
                Ok(true)
            }
            Ok((n, _)) => {
                self.outer_ready = n == most;
                self.cipher.add(n);
                Ok(true)
            }
            Err(Errno::AGAIN) => {
                self.outer_ready = false;
                Ok(false)
            }
            Err(Errno::INTR) => Ok(true),
            Err(e) => Err(failed(&format!("receiving: {}", plain(&e.into())))),
        }
    }

    /// From the plain bytes to the near side.
    fn deliver(&mut self) -> bool {
        let mut moved = false;
        while !self.plain.is_empty() {
            match send(&self.inner, self.plain.filled(), SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.plain.take(n);
                    moved = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.deaf = true;
                    self.plain.clear();
                    moved = true;
                }
            }
        }
        if !self.hears && self.plain.is_empty() && !self.ended && self.cut.is_none() {
            self.ended = true;
            // It may be gone already.
            let _ = shutdown(&self.inner, Shutdown::Write);
        }
        moved
    }

    /// From the near side to what is to be sent; only when that is empty, so that it is bounded.
    fn collect(&mut self) -> Result<bool> {
        if !self.is_up || self.tls.wants_write() {
            return Ok(false);
        }
        let mut moved = false;
        if self.own.is_empty() && self.speaks && self.inner_ready {
            let room = self.own.room();
            let most = room.len();
            match recv(&self.inner, room, RecvFlags::empty()) {
                Ok((0, _)) => self.said_all(),
                Ok((n, _)) => {
                    self.inner_ready = n == most;
                    self.own.add(n);
                }
                Err(Errno::AGAIN) => self.inner_ready = false,
                Err(Errno::INTR) => {}
                Err(_) => self.said_all(),
            }
            moved |= self.inner_ready;
        }
        while !self.own.is_empty() {
            let n = self.tls.writer().write(self.own.filled()).map_err(|e| failed(&plain(&e)))?;
            self.own.take(n);
            moved |= n > 0;
            if n == 0 {
                break;
            }
        }
        Ok(moved)
    }

    fn said_all(&mut self) {
        self.speaks = false;
        self.tls.send_close_notify();
    }

    /// To the peer.
    fn send(&mut self) -> Result<bool> {
        let mut moved = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&self.outer)) {
                Ok(n) if n > 0 => moved = true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(moved),
                result => {
                    let why = result.map_or_else(|e| plain(&e), |_| "nothing was taken".to_owned());
                    // What it said last may say why.
                    self.outer_ready = true;
                    self.receive()?;
                    return Err(failed(&format!("sending: {why}")));
                }
            }
        }
        if !self.speaks && self.finished.is_none() {
            self.finished = Some(Instant::now());
            moved = true;
            let _ = shutdown(&self.outer, Shutdown::Write);
        }
        Ok(moved)
    }

    /// Whether this is the end, and which.
    fn end(&mut self, now: Instant) -> Option<Result<()>> {
        if !self.is_up {
            if self.gone.is_some() {
                return Some(Ok(()));
            }
            let late = || Err(Error::new(Class::Timeout, "TLS: the handshake takes too long"));
            return (now >= self.shaken_by).then(late);
        }
        if self.plain.is_empty()
            && let Some(cut) = self.cut.take()
        {
            return Some(Err(cut));
        }
        if self.finished.is_some() && !self.hears && self.plain.is_empty() {
            return Some(Ok(()));
        }
        (self.deadline().is_some_and(|deadline| now >= deadline)).then_some(Ok(()))
    }

    /// When something must have happened.
    fn deadline(&self) -> Option<Instant> {
        if !self.is_up {
            return Some(self.shaken_by);
        }
        let gone = self.gone?;
        let sent = gone + millis(limits::TLS_CLOSE_MS);
        Some(self.finished.map_or(sent, |at| sent.min(at.max(gone) + millis(limits::TLS_GOODBYE_MS))))
    }

    /// Waits until something can be moved, or a deadline comes.
    fn wait(&mut self) -> Result<()> {
        let mut outer = PollFlags::empty();
        outer.set(PollFlags::IN, self.hears && self.plain.is_empty() && self.cipher.is_empty());
        outer.set(PollFlags::OUT, self.tls.wants_write());
        let mut inner = PollFlags::empty();
        let room = self.is_up && !self.tls.wants_write() && self.own.is_empty();
        inner.set(PollFlags::IN, self.speaks && room);
        inner.set(PollFlags::OUT, !self.plain.is_empty());
        let timeout = self.deadline().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        // Where both directions have ended is told again and again.
        let mut fds = Vec::with_capacity(2);
        let with_outer = !outer.is_empty() || !self.outer_hup;
        let with_inner = !inner.is_empty() || self.gone.is_none();
        if with_outer {
            fds.push(PollFd::from_borrowed_fd(rustix::fd::AsFd::as_fd(&self.outer), outer));
        }
        if with_inner {
            fds.push(PollFd::from_borrowed_fd(rustix::fd::AsFd::as_fd(&self.inner), inner));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed(&format!("waiting: {}", plain(&e.into())))),
        }
        let found: Vec<_> = fds.iter().map(PollFd::revents).collect();
        let mut found = found.into_iter();
        let of_outer = found.by_ref().take(usize::from(with_outer)).next().unwrap_or(PollFlags::empty());
        let of_inner = found.next().unwrap_or(PollFlags::empty());
        let over = PollFlags::HUP | PollFlags::ERR;
        self.outer_ready |= of_outer.intersects(PollFlags::IN | over);
        self.outer_hup |= of_outer.intersects(over);
        self.inner_ready |= of_inner.intersects(PollFlags::IN | over);
        if of_inner.intersects(over) {
            self.gone.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

fn failed(why: &str) -> Error {
    Error::new(Class::Connect, format!("TLS: {why}"))
}
