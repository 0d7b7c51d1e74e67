//! Extended headers: against our server byte by byte, between our client and our server, with a leg of qemu-nbd, and
//! with legs that lie (C8, C28). libnbd 1.14 and qemu before 8.2 do not speak them.

use super::fake::{Fake, Peer};
use super::leg::{SIZE, Scene};
use super::raw::{
    ACK, At, EINVAL, ENOSPC, FLUSH, GO, MIB, Place, READ, Raw, SET_META, STATUS, STRUCTURED, TRIM, WRITE,
    ZEROES, bytes_of, contexts, export, number, pattern,
};
use crate::support::{Dir, Server, Volume, assert_equal, need, run};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

const EXTENDED: u32 = 11;
const PAYLOAD_LEN: u16 = 1 << 5;

/// A client that negotiated extended headers and `base:allocation`.
struct Long(Raw, u64);

/// One chunk: kind, whether it is the last, content.
type Chunk = (u16, bool, Vec<u8>);

impl Long {
    fn open(at: &At) -> Self {
        let mut raw = Raw::greeted(at);
        assert_eq!(raw.option(EXTENDED, &[]), ACK);
        assert_eq!(raw.option(SET_META, &contexts("vol", &["base:allocation"])), ACK);
        assert_eq!(raw.option(GO, &export("vol")), ACK);
        Self(raw, 0)
    }

    fn send(&mut self, flags: u16, command: u16, offset: u64, len: u64, payload: &[u8]) {
        self.1 += 1;
        let mut bytes = 0x21e4_1c71u32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        for field in [self.1, offset, len] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(payload);
        self.0.send(&bytes);
    }

    /// One chunk of the reply to the last request, whose offset it repeats.
    #[track_caller]
    fn chunk(&mut self, offset: u64) -> Chunk {
        let head = self.0.read(32);
        assert_eq!(number(&head[..4]), 0x6e8a_278c);
        assert_eq!((number(&head[8..16]), number(&head[16..24])), (self.1, offset), "cookie and offset");
        let body = self.0.read(number(&head[24..]) as usize);
        (number(&head[6..8]) as u16, head[5] & 1 == 1, body)
    }

    /// The error of a request that has one chunk without content, 0 for success.
    #[track_caller]
    fn outcome(&mut self, flags: u16, command: u16, offset: u64, len: u64, payload: &[u8]) -> u32 {
        self.send(flags, command, offset, len, payload);
        match self.chunk(offset) {
            (0, true, body) => {
                assert!(body.is_empty());
                0
            }
            (0x8001, true, body) => number(&body[..4]) as u32,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn pread(&mut self, offset: u64, len: u64) -> Vec<u8> {
        self.send(0, READ, offset, len, &[]);
        let (kind, done, body) = self.chunk(offset);
        assert_eq!((kind, done, number(&body[..8])), (1, true, offset));
        body[8..].to_vec()
    }

    /// Extents (length, status).
    #[track_caller]
    fn extents(&mut self, offset: u64, len: u64) -> Vec<(u64, u64)> {
        self.send(0, STATUS, offset, len, &[]);
        let (kind, done, body) = self.chunk(offset);
        assert_eq!((kind, done, number(&body[..4])), (6, true, 1));
        assert_eq!(number(&body[4..8]) as usize * 16 + 8, body.len());
        body[8..].chunks(16).map(|e| (number(&e[..8]), number(&e[8..]))).collect()
    }
}

#[test]
fn extended_headers_are_negotiated_once_and_exclude_what_they_replace() {
    let dir = Dir::new();
    let place = Place::new(&dir, 8 * MIB);
    for at in place.both() {
        let mut raw = Raw::greeted(&at);
        assert_eq!(raw.option(EXTENDED, &[0]), 1 << 31 | 3, "it takes no data");
        assert_eq!(raw.option(STRUCTURED, &[]), ACK);
        assert_eq!(raw.option(EXTENDED, &[]), ACK, "after structured replies too");
        assert_eq!(raw.option(EXTENDED, &[]), 1 << 31 | 3);
        assert_eq!(raw.option(STRUCTURED, &[]), 1 << 31 | 0xa);
        // EXPORT_NAME cannot be answered any more.
        raw.send(&super::raw::option(1, b"vol"));
        assert_eq!(raw.end(), [0; 0]);
    }
    place.ends_well();
}

#[test]
fn done_extended_requests_are_carried_out_and_wrong_ones_refused_in_step() {
    let dir = Dir::new();
    let place = Place::new(&dir, 8 * MIB);
    for at in place.both() {
        let mut long = Long::open(&at);
        let data = pattern(2 * MIB, 200_000);
        assert_eq!(long.outcome(PAYLOAD_LEN, WRITE, 2 * MIB, 200_000, &data), 0);
        assert_eq!(long.pread(2 * MIB, 200_000), data);
        assert_eq!(long.outcome(1, FLUSH, 0, 0, &[]), 0);
        assert_eq!(long.outcome(0, ZEROES, 2 * MIB, 65536, &[]), 0);
        assert_eq!(long.outcome(0, TRIM, 3 * MIB, 4096, &[]), 0);
        assert_eq!(long.pread(2 * MIB, 65536), vec![0; 65536]);
        // qemu forgets the flag, and means the same.
        assert_eq!(long.outcome(0, WRITE, 3 * MIB, 512, &data[..512]), 0);
        assert_eq!(long.pread(3 * MIB, 512), data[..512]);
        // A request that is refused leaves the stream in step, its payload never being a request.
        let evil = [&0x21e4_1c71u32.to_be_bytes()[..], &[0, 0, 0, 6], &[0; 24]].concat();
        for (flags, command, offset, len, payload, error) in [
            (PAYLOAD_LEN, READ, 0, 32, &evil[..], EINVAL),
            (PAYLOAD_LEN, FLUSH, 0, 32, &evil, EINVAL),
            (PAYLOAD_LEN, STATUS, 0, 32, &evil, EINVAL),
            (PAYLOAD_LEN, 99, 0, 32, &evil, EINVAL),
            (PAYLOAD_LEN, WRITE, 8 * MIB, 32, &evil, ENOSPC),
            (0, READ, 0, 1 << 40, &[], EINVAL),
            (0, ZEROES, 0, u64::MAX, &[], ENOSPC),
            (0, STATUS, 1, u64::MAX, &[], EINVAL),
        ] {
            assert_eq!(
                long.outcome(flags, command, offset, len, payload),
                error,
                "{command} {flags:x} {len}"
            );
        }
        assert_eq!(long.pread(2 * MIB + 65536, 1000), data[65536..66536]);
        // Compact headers are garbage now, and so is a payload of 2^63.
        long.0.send(&[super::raw::request(0, READ, 1, 0, 512), vec![0; 4]].concat());
        assert_eq!(long.0.end(), [0; 0]);
        let mut long = Long::open(&at);
        long.send(PAYLOAD_LEN, WRITE, 0, 1 << 63, &[]);
        assert_eq!(long.0.end(), [0; 0]);
    }
    place.ends_well();
}

#[test]
fn effects_and_extents_beyond_4_gib_take_one_request() {
    const BIG: u64 = 12 << 30;
    let dir = Dir::new();
    let place = Place::new(&dir, BIG);
    let mut long = Long::open(&place.unix);
    for offset in [5 << 30, BIG - 65536] {
        assert_eq!(long.outcome(PAYLOAD_LEN, WRITE, offset, 65536, &vec![7; 65536]), 0);
    }
    // Behind the witness at 1 MiB.
    let first = 64 * MIB;
    assert_eq!(
        long.extents(first, BIG - first),
        [((5 << 30) - first, 3), (65536, 0), (BIG - 65536 - (5 << 30) - 65536, 3), (65536, 0)]
    );
    assert_eq!(long.outcome(1, ZEROES, first, BIG - first, &[]), 0);
    assert_eq!(long.pread(5 << 30, 65536), vec![0; 65536]);
    assert_eq!(long.pread(BIG - 65536, 65536), vec![0; 65536]);
    assert_eq!(long.extents(first, BIG - first), [(BIG - first, 3)]);
    // The client of a long one goes away: the rest is not done, the volume goes on.
    long.send(0, ZEROES, first, BIG - first, &[]);
    drop(long);
    place.ends_well();
}

/// A relay between a client and `to` that remembers what the client sent.
fn relay(dir: &Dir, to: &Path) -> (PathBuf, Arc<Mutex<Vec<u8>>>) {
    let path = dir.path("relay.sock");
    let listener = UnixListener::bind(&path).expect("relay");
    let (to, seen) = (to.to_owned(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&to) else { continue };
            let (mut from, mut back) =
                (server.try_clone().expect("clone"), client.try_clone().expect("clone"));
            std::thread::spawn(move || io::copy(&mut from, &mut back).is_ok());
            let (mut client, mut server, log) = (client, server, Arc::clone(&log));
            std::thread::spawn(move || {
                let mut piece = vec![0; 65536];
                while let Ok(n) = client.read(&mut piece) {
                    log.lock().expect("log").extend_from_slice(&piece[..n.min(64)]);
                    if n == 0 || server.write_all(&piece[..n]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (path, seen)
}

fn holds(bytes: &Mutex<Vec<u8>>, magic: u32) -> bool {
    bytes.lock().expect("log").windows(4).any(|word| word == magic.to_be_bytes())
}

/// A volume of a file and of `far`, written in every way, ends with equal legs.
fn mirrors(dir: &Dir, far: &Path, image: &Path) {
    let legs = [
        format!("near={}", dir.image("near.img", SIZE).display()),
        format!("far=nbd+unix:///vol?socket={},read=prefer", far.display()),
    ];
    let mut volume = Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    let mut client = Raw::simple(&At::Unix(volume.socket().to_owned()));
    for at in [0, 4096, MIB, 5 * MIB] {
        client.pwrite(at, &pattern(at, 300_000));
        assert_eq!(client.pread(at, 300_000), pattern(at, 300_000), "read from the far leg");
    }
    assert_eq!(client.outcome(1, ZEROES, 2 * MIB, 1 << 20, &[]), 0);
    assert_eq!(client.outcome(1, WRITE, 3 * MIB, 512, &[9; 512]), 0);
    // A resync reads and writes too.
    volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
    client.pwrite(6 * MIB, &pattern(6 * MIB, 1 << 20));
    volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
    volume.wait_synced();
    assert_eq!(client.outcome(0, FLUSH, 0, 0, &[]), 0);
    volume.stop();
    assert_equal(&dir.path("near.img"), image);
}

#[test]
fn our_client_and_our_server_speak_extended_headers_to_each_other() {
    let (inner, dir) = (Dir::new(), Dir::new());
    let leg = format!("only={}", inner.image("only.img", SIZE).display());
    let mut far = Volume::create(&inner, SIZE, &[&leg], &["--known-zero"]);
    far.serve(&[]);
    let (socket, seen) = relay(&dir, far.socket());
    mirrors(&dir, &socket, &inner.path("only.img"));
    assert!(holds(&seen, 0x21e4_1c71));
    far.stop();
}

#[test]
fn a_leg_of_qemu_nbd_works_with_extended_headers_where_it_has_them() {
    if !need(&["qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    let (image, socket) = (dir.image("far.img", SIZE), dir.path("qemu.sock"));
    let mut command = Command::new("qemu-nbd");
    command.args(["-f", "raw", "-x", "vol", "-t", "-e", "4", "-k"]).arg(&socket).arg(&image);
    let server = Server::start_on(&mut command, &dir.path("qemu.log"), &socket);
    let (relay, seen) = relay(&dir, &socket);
    mirrors(&dir, &relay, &image);
    drop(server);
    let text = run("qemu-nbd", &["--version"]).expect(0).stdout;
    let version = text.split_whitespace().nth(1).and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    if version.is_some_and(|major| major >= 9) {
        assert!(holds(&seen, 0x21e4_1c71), "{text}");
    } else {
        assert!(holds(&seen, 0x2560_9513), "{text}");
    }
}

#[test]
fn qemu_io_reads_what_it_wrote_through_whatever_headers_it_speaks() {
    if !need(&["qemu-io", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let place = Place::new(&dir, 8 * MIB);
    let At::Unix(path) = &place.unix else { panic!("a path") };
    let (socket, _seen) = relay(&dir, path);
    let uri = format!("nbd+unix:///vol?socket={}", socket.display());
    let commands = [
        "write -P 0xab 2M 64k",
        "write -z 4M 1M",
        "write -f -P 1 6M 4k",
        "discard 7M 64k",
        "read -P 0xab 2M 64k",
    ];
    let mut args = vec!["-f", "raw"];
    for command in &commands {
        args.extend(["-c", command]);
    }
    args.push(&uri);
    let out = run("qemu-io", &args).expect(0);
    assert!(!out.stdout.contains("failed"), "{}", out.stdout);
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]).expect(0).stdout;
    assert!(map.contains("\"start\": 2097152, \"length\": 65536") && map.contains("\"data\": true"), "{map}");
    place.ends_well();
}

/// Negotiates extended headers, and then answers the first READ with these bytes.
fn lie_at_length(scene: &Scene<'_>, reply: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
    scene.fake.on_connect(move |peer: &mut Peer, _| {
        peer.greet()?;
        loop {
            match peer.option()? {
                (11, _) => peer.option_reply(11, 1, &[])?,
                (7, _) => {
                    let info = [&[0, 0][..], &SIZE.to_be_bytes(), &super::fake::FLAGS.to_be_bytes()].concat();
                    peer.option_reply(7, 3, &info)?;
                    peer.option_reply(7, 1, &[])?;
                    break;
                }
                (other, _) => peer.option_reply(other, 1 << 31 | 1, &[])?,
            }
        }
        let head = peer.head(32)?;
        peer.send(&reply(&head))?;
        peer.wait_for_the_end()?;
        Ok(false)
    });
}

/// An extended chunk in reply to the request `head`.
fn long_chunk(head: &[u8], kind: u16, offset: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = 0x6e8a_278cu32.to_be_bytes().to_vec();
    bytes.extend(1u16.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(&head[8..16]);
    bytes.extend(offset.to_be_bytes());
    bytes.extend((body.len() as u64).to_be_bytes());
    bytes.extend(body);
    bytes
}

type Lie = fn(&[u8]) -> Vec<u8>;

#[test]
fn c8_c17_c28_lies_under_extended_headers_end_the_connection_and_never_the_volume() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",read=prefer,retries=50,timeout=3s");
    let lies: [(Lie, &str); 7] = [
        // C28: the style of replies that was not agreed.
        (
            |head| [&[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0][..], &head[8..16], &[0; 16]].concat(),
            "wrong magic 0x668e33ef",
        ),
        (
            |head| [&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0][..], &head[8..16], &[0; 16]].concat(),
            "wrong magic 0x67446698",
        ),
        (|head| long_chunk(head, 0, number(&head[16..24]) ^ 512, &[]), "another offset"),
        // C8: extents with all bits of their status, for a request that has none.
        (
            |head| {
                long_chunk(
                    head,
                    6,
                    number(&head[16..24]),
                    &[[0, 0, 0, 1, 0, 0, 0, 1], [1; 8], [0xff; 8]].concat(),
                )
            },
            "content",
        ),
        (
            |head| {
                long_chunk(
                    head,
                    6,
                    number(&head[16..24]),
                    &[[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], [1; 8], [0; 8]].concat(),
                )
            },
            "extents in a chunk",
        ),
        (|head| long_chunk(head, 5, number(&head[16..24]), &[1; 12]), "unknown type 5"),
        // C17: a length of 2^63.
        (
            |head| {
                let mut chunk = long_chunk(head, 1, number(&head[16..24]), &[]);
                chunk[24] = 0x80;
                chunk
            },
            "a chunk of 9223372036854775808 bytes",
        ),
    ];
    for (lie, told) in lies {
        scene.volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
        lie_at_length(&scene, lie);
        let before = scene.told();
        // What it missed is written to it, and it lies about that.
        scene.client.pwrite(4096, &pattern(4096, 65536));
        scene.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
        scene.wait_told(before, told);
        assert_eq!(scene.client.pread(4096, 65536), pattern(4096, 65536), "{told}");
        scene.fake.be_honest();
        // At once, without the pause.
        scene.volume.mirrord(&["resync", "vol", "far"]);
        scene.volume.wait_synced();
    }
    scene.ends_well();
}

/// Status flags beyond the lowest 32 bits, and an extent that runs far past the request: neither makes a hole of data
/// nor data of a hole.
#[test]
fn c8_c9_high_bits_of_a_status_change_nothing() {
    const HOLE: u64 = 3;
    let dir = Dir::new();
    let fake = Fake::start(&dir, SIZE);
    fake.on_connect(|peer, _| {
        peer.greet()?;
        loop {
            match peer.option()?.0 {
                11 => peer.option_reply(11, 1, &[])?,
                10 => {
                    peer.option_reply(10, 4, b"\0\0\0\x07base:allocation")?;
                    peer.option_reply(10, 1, &[])?;
                }
                7 => {
                    let info = [&[0, 0][..], &SIZE.to_be_bytes(), &super::fake::FLAGS.to_be_bytes()].concat();
                    peer.option_reply(7, 3, &info)?;
                    peer.option_reply(7, 1, &[])?;
                    break;
                }
                other => peer.option_reply(other, 1 << 31 | 1, &[])?,
            }
        }
        loop {
            let head = peer.head(32)?;
            let (command, offset, len) =
                (number(&head[6..8]) as u16, number(&head[16..24]), number(&head[24..]));
            let (kind, body) = match command {
                READ => (1, [&offset.to_be_bytes()[..], &vec![0; len as usize]].concat()),
                WRITE => {
                    peer.head(len as usize)?;
                    (0, Vec::new())
                }
                STATUS => {
                    let extents = [
                        (len / 4, HOLE | 1 << 63),
                        (len / 4, 0xffff_ffff << 32),
                        (len / 4, u64::MAX),
                        (1 << 40, 1 << 32),
                    ];
                    let list =
                        extents.iter().flat_map(|(len, flags)| [len.to_be_bytes(), flags.to_be_bytes()]);
                    (6, [vec![0, 0, 0, 7, 0, 0, 0, 4], list.flatten().collect()].concat())
                }
                2 => return Ok(false),
                _ => (0, Vec::new()),
            };
            peer.send(&long_chunk(&head, kind, offset, &body))?;
        }
    });
    // The only leg: it cannot be done without.
    let mut volume = Volume::create(&dir, SIZE, &[&fake.leg("")], &[]);
    volume.serve(&[]);
    volume.wait_synced();
    let before = fake.connections();
    let mut long = Long::open(&At::Unix(volume.socket().to_owned()));
    let quarter = SIZE / 4;
    assert_eq!(long.extents(0, SIZE), [(quarter, HOLE), (quarter, 0), (quarter, HOLE), (quarter, 0)]);
    assert_eq!(fake.connections(), before, "there is nothing wrong with it");
    drop(long);
    volume.stop();
}

/// Random writes of every kind over several blocks, whatever the headers, beside a leg that comes and goes and one that
/// is far.
#[test]
fn s30_reads_and_writes_across_blocks_agree_with_a_model() {
    let (dir, there) = (Dir::new(), Dir::new());
    let leg = format!("far={}", there.image("far.img", SIZE).display());
    let mut far = Volume::create(&there, SIZE, &[&leg], &["--known-zero"]);
    far.serve(&[]);
    far.wait_synced();
    let legs = ["a.img", "b.img"].map(|name| format!("{}={}", &name[..1], dir.image(name, SIZE).display()));
    let third = format!("far={}", far.uri());
    let mut volume =
        Volume::create(&dir, SIZE, &[&legs[0], &legs[1], &third], &["--known-zero", "--map-block", "4K"]);
    volume.serve(&["--read-policy", "round-robin"]);
    volume.wait_synced();
    let at = At::Unix(volume.socket().to_owned());
    let (mut simple, mut chunked, mut long) =
        (Raw::simple(&at), Raw::structured(&at, &["base:allocation"]), Long::open(&at));
    let mut model = vec![0u8; SIZE as usize];
    let mut random = crate::support::Random(30);
    for step in 0..600u64 {
        if step % 100 == 50 {
            volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
        } else if step % 100 == 90 {
            volume.mirrord(&["leg", "attach", "vol", "b"]).expect(0);
        }
        let len = 1 + random.below(40_000);
        let offset = random.below(SIZE - len);
        let range = offset as usize..(offset + len) as usize;
        let zeroes = random.below(4) == 0;
        let bytes = if zeroes { vec![0; len as usize] } else { pattern(offset ^ step << 20, len as u32) };
        match (step % 3, zeroes) {
            (0, false) => assert_eq!(simple.outcome(0, WRITE, offset, len as u32, &bytes), 0),
            (0, true) => assert_eq!(simple.outcome(2, ZEROES, offset, len as u32, &[]), 0),
            (1, false) => assert_eq!(chunked.outcome(1, WRITE, offset, len as u32, &bytes), 0),
            (1, true) => assert_eq!(chunked.outcome(0, TRIM, offset, len as u32, &[]), 0),
            (_, false) => assert_eq!(long.outcome(PAYLOAD_LEN, WRITE, offset, len, &bytes), 0),
            (_, true) => assert_eq!(long.outcome(0, ZEROES, offset, len, &[]), 0),
        }
        model[range].copy_from_slice(&bytes);
        // What is read begins and ends in other blocks than what was written.
        let from = offset.saturating_sub(random.below(9000));
        let upto = (offset + len + random.below(9000)).min(SIZE);
        let read = match step % 3 {
            0 => chunked.pread(from, (upto - from) as u32),
            1 => long.pread(from, upto - from),
            _ => simple.pread(from, (upto - from) as u32),
        };
        assert!(read == model[from as usize..upto as usize], "step {step}: {from}..{upto}");
    }
    volume.wait_synced();
    assert_eq!(simple.outcome(0, FLUSH, 0, 0, &[]), 0);
    volume.stop();
    far.stop();
    for leg in [dir.path("a.img"), dir.path("b.img"), there.path("far.img")] {
        assert!(bytes_of(&leg, 0, SIZE as usize) == model, "{}", leg.display());
    }
}

#[test]
fn s32_an_error_with_a_message_is_exact_bytes() {
    let dir = Dir::new();
    let place = Place::new(&dir, 8 * MIB);
    for at in place.both() {
        let mut raw = Raw::structured(&at, &[]);
        let cookie = raw.ask_for(0, READ, 8 * MIB, 512);
        let message = b"invalid request";
        let mut expected = vec![0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1];
        expected.extend(cookie.to_be_bytes());
        expected.extend((6 + message.len() as u32).to_be_bytes());
        expected.extend(EINVAL.to_be_bytes());
        expected.extend((message.len() as u16).to_be_bytes());
        expected.extend(message);
        assert_eq!(raw.read(expected.len()), expected);
        // Nothing behind it: the next reply begins at once.
        assert_eq!(raw.pread(2 * MIB, 512), [0; 512]);
    }
    place.ends_well();
}
