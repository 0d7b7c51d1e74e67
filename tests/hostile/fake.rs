//! An NBD server that is a leg and lies: honest until a script takes over, connection by connection or request by
//! request.

use super::raw::number;
use crate::support::Dir;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a script says about a request.
pub enum Turn {
    /// The honest answer.
    Honest,
    /// The script has answered, or will not.
    Taken,
    /// The connection ends here.
    Close,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u32,
    pub payload: Vec<u8>,
}

/// What GO tells.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub size: u64,
    pub flags: u16,
    pub structured: bool,
    /// `base:allocation` is offered, as context 7; what is answered is a script's.
    pub holes: bool,
}

/// `HAS_FLAGS`, `FLUSH`, `FUA`, `TRIM`, `WRITE_ZEROES`.
pub const FLAGS: u16 = 1 | 4 | 8 | 32 | 64;

type Handshake = Arc<dyn Fn(&mut Peer, &Fake) -> io::Result<bool> + Send + Sync>;
type Header = Arc<dyn Fn(&mut Peer, &Asked) -> io::Result<()> + Send + Sync>;
type Request = Arc<dyn Fn(&mut Peer, &Asked) -> io::Result<Turn> + Send + Sync>;

/// The server; lives until the end of the tests' process.
#[derive(Clone)]
pub struct Fake {
    socket: PathBuf,
    image: Arc<Mutex<Vec<u8>>>,
    offer: Arc<Mutex<Offer>>,
    connections: Arc<AtomicUsize>,
    handshake: Arc<Mutex<Option<Handshake>>>,
    header: Arc<Mutex<Option<Header>>>,
    request: Arc<Mutex<Option<Request>>>,
    out_of_step: Arc<AtomicBool>,
}

/// One connection to it.
pub struct Peer {
    stream: UnixStream,
    pub structured: bool,
    /// The how manieth connection it is, from 1.
    pub count: usize,
    out_of_step: Arc<AtomicBool>,
    /// Bytes that it may still send.
    left: usize,
}

impl Fake {
    /// An honest one with this many zeroes.
    pub fn start(dir: &Dir, size: u64) -> Self {
        let socket = dir.path("far.sock");
        let listener = UnixListener::bind(&socket).expect("listen");
        let fake = Self {
            socket,
            image: Arc::new(Mutex::new(vec![0; size as usize])),
            offer: Arc::new(Mutex::new(Offer { size, flags: FLAGS, structured: true, holes: false })),
            connections: Arc::new(AtomicUsize::new(0)),
            handshake: Arc::new(Mutex::new(None)),
            header: Arc::new(Mutex::new(None)),
            request: Arc::new(Mutex::new(None)),
            out_of_step: Arc::new(AtomicBool::new(false)),
        };
        let served = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (fake, stream) = (served.clone(), stream.expect("accept"));
                let count = fake.connections.fetch_add(1, Ordering::SeqCst) + 1;
                // A connection ends with an error when the daemon drops it, which is what it should.
                let out_of_step = Arc::clone(&fake.out_of_step);
                let mut peer = Peer { stream, structured: false, count, out_of_step, left: usize::MAX };
                std::thread::spawn(move || fake.serve(&mut peer).is_ok());
            }
        });
        fake
    }

    /// The leg `far` for `mirrord create`.
    pub fn leg(&self, options: &str) -> String {
        format!("far=nbd+unix:///x?socket={}{options}", self.socket.display())
    }

    /// What it holds.
    pub fn image(&self) -> MutexGuard<'_, Vec<u8>> {
        self.image.lock().expect("image")
    }

    /// What the next connection is offered.
    pub fn offer(&self, change: impl FnOnce(&mut Offer)) {
        change(&mut self.offer.lock().expect("offer"));
    }

    /// What the next connection is offered, now.
    pub fn offered(&self) -> Offer {
        *self.offer.lock().expect("offer")
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Whether our client always sent what a client may send.
    pub fn saw_no_garbage(&self) -> bool {
        !self.out_of_step.load(Ordering::SeqCst)
    }

    /// From now on requests are put to this script.
    pub fn on_request(&self, script: impl Fn(&mut Peer, &Asked) -> io::Result<Turn> + Send + Sync + 'static) {
        *self.request.lock().expect("script") = Some(Arc::new(script));
    }

    /// From now on headers of requests are put to this script before their payload is read.
    pub fn on_header(&self, script: impl Fn(&mut Peer, &Asked) -> io::Result<()> + Send + Sync + 'static) {
        *self.header.lock().expect("script") = Some(Arc::new(script));
    }

    /// From now on new connections are put to this script; they are served if it says so.
    pub fn on_connect(&self, script: impl Fn(&mut Peer, &Self) -> io::Result<bool> + Send + Sync + 'static) {
        *self.handshake.lock().expect("script") = Some(Arc::new(script));
    }

    /// Honest from now on, also towards connections that are up.
    pub fn be_honest(&self) {
        *self.header.lock().expect("script") = None;
        *self.request.lock().expect("script") = None;
        *self.handshake.lock().expect("script") = None;
    }

    fn serve(&self, peer: &mut Peer) -> io::Result<()> {
        let script = self.handshake.lock().expect("script").clone();
        let go_on = match &script {
            Some(script) => script(peer, self),
            None => peer.open(*self.offer.lock().expect("offer")).map(|()| true),
        };
        if !go_on? {
            return Ok(());
        }
        loop {
            let mut asked = peer.request()?;
            let header = self.header.lock().expect("script").clone();
            if let Some(header) = header {
                header(peer, &asked)?;
            }
            if asked.command == 1 {
                asked.payload = peer.read(asked.len as usize)?;
            }
            let script = self.request.lock().expect("script").clone();
            let turn = match script {
                Some(script) => script(peer, &asked)?,
                None => Turn::Honest,
            };
            match turn {
                Turn::Honest => self.answer(peer, &asked)?,
                Turn::Taken => {}
                Turn::Close => return Ok(()),
            }
        }
    }

    /// The honest answer.
    pub fn answer(&self, peer: &mut Peer, asked: &Asked) -> io::Result<()> {
        let range = asked.offset as usize..asked.offset as usize + asked.len as usize;
        match asked.command {
            0 => {
                let data = self.image()[range].to_vec();
                if !peer.structured {
                    peer.simple(asked.cookie, 0)?;
                    return peer.send(&data);
                }
                peer.chunk(1, 1, asked.cookie, &[&asked.offset.to_be_bytes(), &data[..]].concat())
            }
            1 => {
                self.image()[range].copy_from_slice(&asked.payload);
                peer.simple(asked.cookie, 0)
            }
            2 => Err(io::ErrorKind::ConnectionAborted.into()),
            4 | 6 => {
                self.image()[range].fill(0);
                peer.simple(asked.cookie, 0)
            }
            3 | 5 => peer.simple(asked.cookie, 0),
            _ => peer.simple(asked.cookie, 22),
        }
    }
}

impl Peer {
    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = bytes.len().min(self.left);
        self.left -= now;
        self.stream.write_all(&bytes[..now])?;
        if now < bytes.len() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// After so many bytes the connection ends.
    pub const fn send_no_more_than(&mut self, bytes: usize) {
        self.left = bytes;
    }

    fn read(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The header of the next request, whatever it is.
    pub fn head(&mut self, len: usize) -> io::Result<Vec<u8>> {
        self.read(len)
    }

    fn keeps_in_step(&self, so: bool) -> io::Result<()> {
        if so {
            return Ok(());
        }
        self.out_of_step.store(true, Ordering::SeqCst);
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Reads nothing more until the daemon goes away; then the connection ends.
    pub fn wait_for_the_end(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        while self.stream.read(&mut piece)? > 0 {}
        Ok(())
    }

    /// The greeting, and the client's flags.
    pub fn greet(&mut self) -> io::Result<()> {
        self.send(b"NBDMAGICIHAVEOPT\0\x03")?;
        self.read(4).map(drop)
    }

    /// One option: its number and data.
    pub fn option(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let head = self.read(16)?;
        self.keeps_in_step(head[..8] == *b"IHAVEOPT")?;
        let data = self.read(number(&head[12..]) as usize)?;
        Ok((number(&head[8..12]) as u32, data))
    }

    /// One reply to an option.
    pub fn option_reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
        for field in [option, kind, data.len() as u32] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(data);
        self.send(&bytes)
    }

    /// The whole handshake.
    pub fn open(&mut self, offer: Offer) -> io::Result<()> {
        self.greet()?;
        loop {
            let (option, _) = self.option()?;
            match option {
                10 if offer.structured && offer.holes => {
                    self.option_reply(10, 4, b"\0\0\0\x07base:allocation")?;
                    self.option_reply(10, 1, &[])?;
                }
                8 if offer.structured => {
                    self.structured = true;
                    self.option_reply(8, 1, &[])?;
                }
                7 => {
                    let info = [&[0, 0][..], &offer.size.to_be_bytes(), &offer.flags.to_be_bytes()].concat();
                    self.option_reply(7, 3, &info)?;
                    return self.option_reply(7, 1, &[]);
                }
                other => self.option_reply(other, 1 << 31 | 1, &[])?,
            }
        }
    }

    /// The header of the next request.
    fn request(&mut self) -> io::Result<Asked> {
        let head = self.read(28)?;
        self.keeps_in_step(number(&head[..4]) == 0x2560_9513)?;
        let command = number(&head[6..8]) as u16;
        let (cookie, offset) = (number(&head[8..16]), number(&head[16..24]));
        Ok(Asked { command, cookie, offset, len: number(&head[24..]) as u32, payload: Vec::new() })
    }

    /// A simple reply without payload.
    pub fn simple(&mut self, cookie: u64, error: u32) -> io::Result<()> {
        let mut bytes = 0x6744_6698u32.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        self.send(&bytes)
    }

    /// A chunk.
    pub fn chunk(&mut self, flags: u16, kind: u16, cookie: u64, body: &[u8]) -> io::Result<()> {
        self.chunk_of(flags, kind, cookie, body.len() as u32, body)
    }

    /// A chunk whose length is a lie.
    pub fn chunk_of(&mut self, flags: u16, kind: u16, cookie: u64, len: u32, body: &[u8]) -> io::Result<()> {
        let mut bytes = 0x668e_33efu32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(body);
        self.send(&bytes)
    }
}
