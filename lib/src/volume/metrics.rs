//! Figures for monitoring, beside the loop and never in its way: threads that ask the daemon's own control socket,
//! and answer HTTP or write a file.
//!
//! A request is read up to its first empty line and answered with the one page there is; whatever else it says is
//! ignored. Every client has one deadline for everything, and there are few of them at a time.

use super::entrance::{Remove, SOCKET_MODE};
use super::options::ServeNotice;
use crate::base::{Result, limits};
use crate::config::{Cidr, MetricsTo, VolumeConfig, allow};
use crate::control::{VolumeDir, client, metrics};
use crate::device::durable;
use crate::transport::{self, Bound, Peer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Metrics while this lives.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Closed to end the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    /// Who may ask over TCP.
    allow: Arc<Mutex<Vec<Cidr>>>,
    /// Where they are had, for people.
    place: String,
    _socket: Option<Remove>,
}

impl Metrics {
    /// Opens what was asked for, if anything; the volume's control socket is in `sockets`. Classes as for opening
    /// listeners.
    pub(crate) fn open(config: &VolumeConfig, sockets: &VolumeDir) -> Result<Option<Self>> {
        let Some(to) = &config.metrics else { return Ok(None) };
        let (stop, stopped) = UnixStream::pair()
            .map_err(|e| crate::base::Error::io(sockets.name(), "making the end of its metrics", e))?;
        let volume = sockets.clone();
        let allow = Arc::new(Mutex::new(config.allow.clone()));
        let list = Arc::clone(&allow);
        let mut socket = None;
        let mut place = to.to_string();
        let thread = match to {
            MetricsTo::File(path) => {
                let path = path.clone();
                // That it can be written is seen before the first client is let in.
                write(&path, &metrics::absent(sockets.name().as_str()))?;
                std::thread::spawn(move || keep_file(&path, &volume, &stopped))
            }
            MetricsTo::Unix(path) => {
                let listener = transport::listen_unix(path, SOCKET_MODE)?;
                socket = Some(Remove(path.clone()));
                std::thread::spawn(move || answer(&[listener], &Arc::new(volume), &list, &stopped))
            }
            MetricsTo::Tcp(listen) => {
                let addresses = listen.resolve(config.may_listen_widely())?;
                let listeners: Result<Vec<_>> = addresses.iter().map(transport::listen_tcp).collect();
                let listeners = listeners?;
                if let Some(Bound::Tcp(address)) = listeners.first().and_then(transport::bound) {
                    place = format!("http://{address}/metrics");
                }
                std::thread::spawn(move || answer(&listeners, &Arc::new(volume), &list, &stopped))
            }
        };
        Ok(Some(Self { stop: Some(stop), thread: Some(thread), allow, place, _socket: socket }))
    }

    /// From now on these may ask.
    pub(crate) fn allow(&self, list: &[Cidr]) {
        list.clone_into(&mut self.allow.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What to tell an administrator.
    pub(crate) fn notice(&self) -> ServeNotice {
        ServeNotice::Note(format!("metrics: {}", self.place))
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It panicked: it is gone as well.
            let _ = thread.join();
        }
    }
}

/// The page of this moment.
fn page(volume: &VolumeDir) -> String {
    match client::status(volume, Duration::from_millis(limits::METRICS_CLIENT_MS)) {
        Ok(status) => metrics::render(&status),
        Err(_) => metrics::absent(volume.name().as_str()),
    }
}

/// Waits for one of these, or for the end; `false` at the end.
fn wait(stopped: &UnixStream, listeners: &[OwnedFd], limit: Option<Duration>) -> bool {
    let mut fds: Vec<_> = listeners.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    fds.push(PollFd::new(stopped, PollFlags::IN));
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    });
    // Anything but a success is as if nothing had come in time.
    let _ = poll(&mut fds, limit.as_ref());
    fds.last().is_some_and(|fd| fd.revents().is_empty())
}

fn keep_file(path: &Path, volume: &VolumeDir, stopped: &UnixStream) {
    let every = Duration::from_millis(limits::METRICS_FILE_MS);
    // The first look comes soon: the volume is about to be served.
    let mut pause = Duration::from_millis(limits::METRICS_FIRST_MS);
    while wait(stopped, &[], Some(pause)) {
        // A full disk now does not end the metrics for ever; the age of the file tells.
        let _ = write(path, &page(volume));
        pause = every;
    }
    let _ = write(path, &metrics::absent(volume.name().as_str()));
}

/// Replaces the file; a collector, which is another user, reads the old page or the new one, whole.
fn write(path: &Path, text: &str) -> Result<()> {
    let draft = durable::Draft::new(path)?;
    draft
        .file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .and_then(|()| { draft.file() }.write_all(text.as_bytes()))
        .map_err(|e| crate::base::Error::io(path.display(), "writing metrics", e))?;
    draft.publish(true).map(drop)
}

fn answer(listeners: &[OwnedFd], volume: &Arc<VolumeDir>, list: &Mutex<Vec<Cidr>>, stopped: &UnixStream) {
    let clients = Arc::new(AtomicUsize::new(0));
    while wait(stopped, listeners, None) {
        for listener in listeners {
            // Whoever is not accepted now is accepted in the next round.
            let Ok(Some((fd, peer))) = transport::accept(listener) else { continue };
            let list = list.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let stranger = matches!(peer, Peer::Tcp(from) if !allow::allows(&list, from.ip()));
            if stranger || clients.load(Ordering::Acquire) >= limits::METRICS_CLIENTS {
                continue;
            }
            clients.fetch_add(1, Ordering::AcqRel);
            let (volume, clients) = (Arc::clone(volume), Arc::clone(&clients));
            std::thread::spawn(move || {
                let until = Instant::now() + Duration::from_millis(limits::METRICS_CLIENT_MS);
                // A client that has gone, or is late, gets nothing.
                let _ = serve(fd, &volume, until);
                clients.fetch_sub(1, Ordering::AcqRel);
            });
        }
    }
}

/// One request, one page.
fn serve(fd: OwnedFd, volume: &VolumeDir, until: Instant) -> std::io::Result<()> {
    let mut stream = std::fs::File::from(fd);
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && !request.windows(2).any(|end| end == b"\n\n") {
        ready(&stream, PollFlags::IN, until)?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) if request.len() + n > limits::METRICS_REQUEST => return Ok(()),
            Ok(n) => request.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    let (status, body) = if request.starts_with(b"GET ") || request.starts_with(b"HEAD ") {
        ("200 OK", page(volume))
    } else {
        ("405 Method Not Allowed", String::new())
    };
    let mut reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if !request.starts_with(b"HEAD ") {
        reply.push_str(&body);
    }
    let mut rest = reply.as_bytes();
    while !rest.is_empty() {
        ready(&stream, PollFlags::OUT, until)?;
        match stream.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Waits until a socket is ready, or fails when the time is over.
fn ready(stream: &std::fs::File, flags: PollFlags, until: Instant) -> std::io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::from_borrowed_fd(stream.as_fd(), flags)], Some(&timeout)) {
        Ok(0) => Err(ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
