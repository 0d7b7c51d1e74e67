//! Tunnels: begun, counted, waited for.

use super::config::{ClientTls, ServerTls};
use super::explain::Side;
use super::pump::Pump;
use crate::base::{Class, Error, Result};
use crate::transport::tune_unix;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The tunnels of a program: at most so many at a time, and the program can wait until they have sent what they hold.
#[derive(Clone, Debug)]
pub struct Tunnels {
    most: usize,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    running: Mutex<usize>,
    fewer: Condvar,
}

/// Takes one away when a tunnel has ended.
#[derive(Debug)]
struct Ticket(Arc<Count>);

/// What becomes of one tunnel.
#[derive(Clone, Debug)]
pub struct Ending(Arc<Told>);

/// Shared by the thread of a tunnel and whoever holds its [`Ending`].
#[derive(Debug, Default)]
pub(super) struct Told {
    state: Mutex<State>,
    changed: Condvar,
    /// How often its thread has woken up.
    #[cfg(test)]
    pub(super) turns: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Default)]
enum State {
    /// The handshake is under way.
    #[default]
    Begun,
    /// Bytes go both ways.
    Up,
    /// It has ended; why, if that was before its time.
    Over(Option<Error>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tunnels {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Self {
        Self { most, count: Arc::default() }
    }

    /// Puts a tunnel over a connection to us: what to go on with in place of `socket`. The handshake has so long.
    /// Class `Busy` if there are too many.
    pub fn serve(&self, socket: OwnedFd, tls: &ServerTls, patience: Duration) -> Result<(OwnedFd, Ending)> {
        let side = Side::Server;
        let connection = ServerConnection::new(Arc::clone(&tls.config)).map_err(|e| begin(&e))?;
        self.begin(socket, connection.into(), side, patience)
    }

    /// The same over a connection of ours to a server. Nothing that is written goes out before the server has proved
    /// who it is.
    pub fn dial(&self, socket: OwnedFd, tls: &ClientTls, patience: Duration) -> Result<(OwnedFd, Ending)> {
        let certificate = tls.dir.join("client-cert.pem").display().to_string();
        let side = Side::Client { certificate, shown: tls.shows };
        let connection =
            ClientConnection::new(Arc::clone(&tls.config), tls.name.clone()).map_err(|e| begin(&e))?;
        let (near, ending) = self.begin(socket, connection.into(), side, patience)?;
        tune_unix(&near);
        Ok((near, ending))
    }

    fn begin(
        &self,
        socket: OwnedFd,
        connection: Connection,
        side: Side,
        patience: Duration,
    ) -> Result<(OwnedFd, Ending)> {
        let failed = |doing: &str, e: std::io::Error| Error::os(Class::Busy, "TLS", doing, e);
        let ticket = self.enter()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (near, inner) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| failed("making a socket", e.into()))?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|e| failed("taking the socket", e.into()))?;
        let told = Arc::new(Told::default());
        let ending = Ending(Arc::clone(&told));
        let pump = Pump::new(connection, side, socket, inner, Arc::clone(&told), Instant::now() + patience);
        std::thread::Builder::new()
            .name("tls".into())
            .spawn(move || {
                // It is told before the sockets are closed: whoever sees the end of the stream finds out why.
                pump.run();
                drop(ticket);
            })
            .map_err(|e| failed("starting a thread", e))?;
        Ok((near, ending))
    }

    fn enter(&self) -> Result<Ticket> {
        let mut running = lock(&self.count.running);
        if *running >= self.most {
            let text = format!("TLS: beginning it: there are {} tunnels already", *running);
            return Err(Error::new(Class::Busy, text));
        }
        *running += 1;
        Ok(Ticket(Arc::clone(&self.count)))
    }

    /// How many there are.
    pub fn running(&self) -> usize {
        *lock(&self.count.running)
    }

    /// Waits until all have ended, at most so long. Whoever calls it has closed their near sides.
    pub fn wait(&self, most: Duration) {
        let running = lock(&self.count.running);
        let _ = self.count.fewer.wait_timeout_while(running, most, |running| *running > 0);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut running = lock(&self.0.running);
        *running = running.saturating_sub(1);
        self.0.fewer.notify_all();
    }
}

fn begin(error: &rustls::Error) -> Error {
    Error::new(Class::Connect, format!("TLS: beginning it: {error}"))
}

impl Ending {
    /// Why it has ended before its time; `None` as long as it has not.
    pub fn why(&self) -> Option<Error> {
        match &*lock(&self.0.state) {
            State::Over(why) => why.clone(),
            State::Begun | State::Up => None,
        }
    }

    /// Waits until the handshake is over, at most so long. Classes: `Connect`, `Timeout`.
    pub fn wait_until_up(&self, most: Duration) -> Result<()> {
        let state = lock(&self.0.state);
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(state, most, |state| matches!(state, State::Begun))
            .unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Up | State::Over(None) => Ok(()),
            State::Over(Some(why)) => Err(why.clone()),
            State::Begun => Err(Error::new(Class::Timeout, "TLS: the handshake takes too long")),
        }
    }

    /// How often its thread has looked whether there is something to do.
    #[cfg(test)]
    pub(super) fn turns(&self) -> u64 {
        self.0.turns.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits until it has ended, at most so long. Whoever calls it has closed the near side.
    pub fn wait(&self, most: Duration) {
        let state = lock(&self.0.state);
        let _ = self.0.changed.wait_timeout_while(state, most, |state| !matches!(state, State::Over(_)));
    }
}

impl Told {
    pub(super) fn up(&self) {
        *lock(&self.state) = State::Up;
        self.changed.notify_all();
    }

    pub(super) fn over(&self, why: Option<Error>) {
        *lock(&self.state) = State::Over(why);
        self.changed.notify_all();
    }
}
