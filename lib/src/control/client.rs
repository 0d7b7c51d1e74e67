//! The asking side: blocking, one request a connection.

use super::request::to_line;
use super::{Event, Lines, Reply, Request, Status, VolumeDir};
use crate::base::{Class, Error, Result, error::plain};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Asks the daemon of a volume and returns the value of its reply. The whole exchange ends within `deadline`.
pub fn call(volume: &VolumeDir, request: &Request, deadline: Duration) -> Result<serde_json::Value> {
    Connection::open(volume, deadline)?.ask(request)
}

/// The same for what takes as long as it takes: only the connecting has a deadline. The wait ends with the daemon.
pub fn call_long(volume: &VolumeDir, request: &Request, deadline: Duration) -> Result<serde_json::Value> {
    let mut connection = Connection::open(volume, deadline)?;
    connection.deadline = None;
    connection.ask(request)
}

/// The status of a served volume.
pub fn status(volume: &VolumeDir, deadline: Duration) -> Result<Status> {
    let value = call(volume, &Request::Status, deadline)?;
    serde_json::from_value(value)
        .map_err(|e| Error::new(Class::Internal, format!("{}: reading its status: {e}", volume.name())))
}

/// The events of a served volume: an iterator that ends when the daemon closes the connection.
pub fn events(volume: &VolumeDir, now: bool, deadline: Duration) -> Result<Events> {
    let mut connection = Connection::open(volume, deadline)?;
    connection.ask(&Request::Events { now })?;
    connection.deadline = None;
    Ok(Events { connection, ended: false })
}

/// See [`events`].
#[derive(Debug)]
pub struct Events {
    connection: Connection,
    ended: bool,
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.connection.line().and_then(|line| {
            line.map(|line| serde_json::from_slice(&line).map_err(|e| self.connection.garbage(&e)))
                .transpose()
        });
        self.ended = !matches!(event, Ok(Some(_)));
        event.transpose()
    }
}

/// Writes of a volume, held; they go on when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct Barrier {
    connection: Connection,
    deadline: Duration,
}

impl Barrier {
    /// Holds writes for at most `limit`; all legs are flushed. `deadline` is for the daemon's answers beyond that.
    /// Classes: `Timeout` if what is under way does not end within `limit`, `Io` if a leg cannot be flushed, `Busy`
    /// if somebody else holds them; then nothing is held.
    pub fn begin(volume: &VolumeDir, limit: Duration, deadline: Duration) -> Result<Self> {
        let mut connection = Connection::open(volume, limit.saturating_add(deadline))?;
        let for_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        connection.ask(&Request::Barrier { for_ms })?;
        Ok(Self { connection, deadline })
    }

    /// They go on. Class `Timeout` if they did before: what was taken meanwhile is no snapshot.
    pub fn end(mut self) -> Result<()> {
        self.connection.extend(self.deadline);
        self.connection.ask(&Request::EndBarrier).map(drop)
    }
}

/// One connection to the daemon of a volume.
#[derive(Debug)]
pub(super) struct Connection {
    volume: VolumeDir,
    stream: UnixStream,
    lines: Lines,
    deadline: Option<Instant>,
}

impl Connection {
    /// Connects; what is asked over it is answered within `deadline` from now.
    pub(super) fn open(volume: &VolumeDir, deadline: Duration) -> Result<Self> {
        let path = volume.control_socket()?;
        let deadline = Instant::now() + deadline;
        let stream = loop {
            match connect(&path) {
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                stream => break stream.map_err(|e| absent(volume, &e))?,
            }
        };
        Ok(Self { volume: volume.clone(), stream, lines: Lines::default(), deadline: Some(deadline) })
    }

    /// The next question has so long for its answer.
    pub(super) fn extend(&mut self, deadline: Duration) {
        self.deadline = Some(Instant::now() + deadline);
    }

    /// One question, and the value of its answer.
    pub(super) fn ask(&mut self, request: &Request) -> Result<serde_json::Value> {
        let line = to_line(request)?;
        self.arm()?;
        self.stream.write_all(&line).map_err(|e| self.failed("asking", &e))?;
        let Some(reply) = self.line()? else {
            return Err(self.lost("it closed the control socket without an answer"));
        };
        serde_json::from_slice::<Reply>(&reply).map_err(|e| self.garbage(&e))?.into_result()
    }

    /// The next line; `None` at the end of the stream.
    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = [0u8; 8192];
        loop {
            if let Some(line) = self.lines.next_line()? {
                return Ok(Some(line.to_vec()));
            }
            self.arm()?;
            match self.stream.read(&mut piece) {
                Ok(0) if self.lines.is_partial() => return Err(self.lost("it ended in the middle of a line")),
                Ok(0) => return Ok(None),
                Ok(n) => self.lines.push(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("reading its answer", &e)),
            }
        }
    }

    /// Gives the socket what is left of the deadline.
    fn arm(&self) -> Result<()> {
        let left = self.deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(self.late());
        }
        let set = self.stream.set_read_timeout(left).and_then(|()| self.stream.set_write_timeout(left));
        set.map_err(|e| self.failed("setting a deadline", &e))
    }

    fn late(&self) -> Error {
        Error::new(Class::Timeout, format!("{}: asking its mirrord: no answer in time", self.volume.name()))
            .hint(format!("mirrord status {}", self.volume.name()))
    }

    fn lost(&self, why: &str) -> Error {
        Error::new(Class::Connect, format!("{}: asking its mirrord: {why}", self.volume.name()))
            .hint(format!("mirrord status {}", self.volume.name()))
    }

    fn garbage(&self, cause: &serde_json::Error) -> Error {
        self.lost(&format!("an answer that is not understood: {cause}"))
    }

    fn failed(&self, doing: &str, cause: &std::io::Error) -> Error {
        match cause.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.late(),
            _ => Error::new(
                Class::Connect,
                format!("{}: {doing} over the control socket: {}", self.volume.name(), plain(cause)),
            )
            .hint(format!("mirrord status {}", self.volume.name())),
        }
    }
}

/// Connects without waiting: `WouldBlock` if the daemon has not accepted the connections before this one.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Why there is nobody to ask.
fn absent(volume: &VolumeDir, cause: &std::io::Error) -> Error {
    match cause.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused => {
            match volume.must_exist() {
                Err(unknown) => unknown,
                Ok(()) => Error::new(Class::Connect, format!("{}: no mirrord serves it", volume.name()))
                    .hint(format!("mirrord serve {}", volume.name())),
            }
        }
        ErrorKind::WouldBlock => Error::new(
            Class::Busy,
            format!("{}: connecting to its mirrord: too many wait already", volume.name()),
        ),
        _ => Error::new(
            Class::Connect,
            format!("{}: connecting to its mirrord: {}", volume.name(), plain(cause)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{EventKind, StateDir};
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;

    const SHORT: Duration = Duration::from_millis(300);

    /// A daemon that reads one line and answers with fixed bytes.
    fn daemon(answer: &'static [u8]) -> (tempfile::TempDir, VolumeDir, std::thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().expect("directory");
        let volume = StateDir::new(dir.path()).volume(&"vol0".parse().expect("name"));
        std::fs::create_dir(volume.path()).expect("mkdir");
        let listener = UnixListener::bind(volume.control_socket().expect("path")).expect("bind");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("clone")).read_line(&mut line).expect("line");
            stream.write_all(answer).expect("answer");
            if answer.is_empty() {
                std::thread::sleep(2 * SHORT);
            }
            line
        });
        (dir, volume, thread)
    }

    #[test]
    fn a_call_returns_the_value_or_the_daemons_error() {
        let (_dir, volume, thread) = daemon(b"{\"reply\":\"ok\",\"value\":5}\n");
        assert_eq!(call(&volume, &Request::Ping, SHORT).expect("ok"), 5);
        assert_eq!(thread.join().expect("thread"), "{\"request\":\"ping\"}\n");

        let (_dir, volume, _thread) = daemon(b"{\"reply\":\"error\",\"code\":3,\"message\":\"no\"}\n");
        assert_eq!(call(&volume, &Request::Stop, SHORT).expect_err("refused").class, Class::Refused);
    }

    #[test]
    fn silence_garbage_and_a_cut_line_are_told_apart() {
        for (answer, class) in
            [(&b""[..], Class::Timeout), (b"{\"rep", Class::Connect), (b"hello\n", Class::Connect)]
        {
            let (_dir, volume, _thread) = daemon(answer);
            assert_eq!(call(&volume, &Request::Ping, SHORT).expect_err("bad").class, class);
        }
    }

    #[test]
    fn a_volume_that_is_not_served_says_how_to_serve_it() {
        let dir = tempfile::tempdir().expect("directory");
        let volume = StateDir::new(dir.path()).volume(&"vol0".parse().expect("name"));
        assert_eq!(call(&volume, &Request::Ping, SHORT).expect_err("unknown").class, Class::Usage);
        std::fs::create_dir(volume.path()).expect("mkdir");
        let error = call(&volume, &Request::Ping, SHORT).expect_err("not served");
        assert_eq!((error.class, error.hint.as_deref()), (Class::Connect, Some("mirrord serve vol0")));
        drop(UnixListener::bind(volume.control_socket().expect("path")).expect("stale socket"));
        assert_eq!(call(&volume, &Request::Ping, SHORT).expect_err("stale").class, Class::Connect);
    }

    #[test]
    fn events_come_until_the_daemon_closes() {
        let (_dir, volume, _thread) = daemon(
            b"{\"reply\":\"ok\"}\n{\"schema\":\"mirrord-event/1\",\"seq\":1,\"time\":\"t\",\"event\":\"start\",\
              \"volume\":\"vol0\",\"text\":\"x\"}\n",
        );
        let events: Result<Vec<_>> = events(&volume, false, SHORT).expect("stream").collect();
        let events = events.expect("events");
        assert_eq!((events.len(), events[0].event), (1, EventKind::Start));
    }
}
