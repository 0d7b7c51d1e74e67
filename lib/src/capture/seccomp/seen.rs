//! What a call may change: its arguments, looked at. Names are those that will be looked at again.

use super::calls::{Flags, Follow, Touch};
use super::notify::{Notification, read_memory};
use super::tracee::{Failed, Node, Place, Tracee, node};
use crate::fslog::Kind;
use std::os::fd::{AsFd, BorrowedFd};

/// An object that something may happen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its identity.
    pub handle: Box<[u8]>,
    /// What it is.
    pub kind: Kind,
    /// Whether bytes may be written.
    pub written: bool,
    /// A name of it, for people.
    pub hint: Vec<u8>,
}

/// What one call may change in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Names, in directories by their handles.
    pub names: Vec<(Box<[u8]>, Vec<u8>)>,
    /// Objects.
    pub objects: Vec<Object>,
}

struct Looking<'a> {
    tracee: Tracee<'a>,
    args: &'a [u64; 6],
    tree: (u32, u32),
    seen: Seen,
}

/// Looks at what a call may change on the file system of a tree.
pub fn look(
    call: &Notification,
    touches: &[Touch],
    proc: BorrowedFd<'_>,
    tree: (u32, u32),
) -> Result<Seen, Failed> {
    if call.pid == 0 {
        // Of a process that our /proc does not have.
        return Err(Failed::Unseen);
    }
    let tracee = Tracee { proc, tid: call.pid };
    let mut looking = Looking { tracee, args: &call.args, tree, seen: Seen::default() };
    for touch in touches {
        match looking.touch(*touch) {
            // Of two names one may be there.
            Ok(()) | Err(Failed::Nothing) => {}
            Err(Failed::Unseen) => return Err(Failed::Unseen),
        }
    }
    Ok(looking.seen)
}

impl Looking<'_> {
    fn arg(&self, at: u8) -> u64 {
        self.args.get(usize::from(at)).copied().unwrap_or_default()
    }

    fn dir(&self, dir: Option<u8>) -> Option<u64> {
        dir.map(|dir| self.arg(dir))
    }

    fn touch(&mut self, touch: Touch) -> Result<(), Failed> {
        match touch {
            Touch::Entry { dir, path } => {
                let path = self.tracee.path(self.arg(path))?;
                self.entry(self.dir(dir), &path)
            }
            Touch::Open { dir, path, flags } => self.open(dir, path, flags),
            Touch::Object { dir, path, follow, written } => self.object(dir, path, follow, written),
            Touch::Descriptor { fd } => self.descriptor(self.arg(fd), false),
            Touch::Request { fd, number } => {
                if is_of_subvolumes(self.arg(number) as u32) {
                    return Err(Failed::Unseen);
                }
                self.descriptor(self.arg(fd), false)
            }
            Touch::Socket { address, len } => self.socket(self.arg(address), self.arg(len)),
            Touch::SocketCall { args } => {
                let mut words = [0; 12];
                self.memory(self.arg(args), &mut words)?;
                let word = |at: usize| u64::from(crate::device::fields::get_u32(&words, at));
                self.socket(word(4), word(8))
            }
            Touch::Untold => Err(Failed::Unseen),
        }
    }

    fn memory(&self, address: u64, to: &mut [u8]) -> Result<(), Failed> {
        read_memory(self.tracee.tid, address, to).map_err(|e| match e {
            rustix::io::Errno::FAULT | rustix::io::Errno::SRCH => Failed::Nothing,
            _ => Failed::Unseen,
        })
    }

    /// A name that comes or goes.
    fn entry(&mut self, dir: Option<u64>, path: &[u8]) -> Result<(), Failed> {
        match self.tracee.place(dir, path, false)? {
            Place::Name(dir, name) => self.name(dir.as_fd(), &name),
            // `.` and `..` have names of their own elsewhere; nothing can be done to them by these.
            Place::Itself(_) => Ok(()),
        }
    }

    fn name(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failed> {
        if let Some(dir) = node(dir, b"", self.tree)?
            && dir.device == self.tree
            && dir.kind == Kind::Dir
        {
            self.seen.names.push((dir.handle, name.to_vec()));
        }
        Ok(())
    }

    fn found(&mut self, node: Option<Node>, written: bool, hint: &[u8]) {
        if let Some(node) = node
            && node.device == self.tree
        {
            let written = written && node.kind == Kind::File;
            self.seen.objects.push(Object {
                handle: node.handle,
                kind: node.kind,
                written,
                hint: hint.to_vec(),
            });
        }
    }

    fn place(&mut self, dir: Option<u64>, path: &[u8], follow: bool, written: bool) -> Result<(), Failed> {
        match self.tracee.place(dir, path, follow)? {
            Place::Name(dir, name) => {
                let node = node(dir.as_fd(), &name, self.tree)?;
                self.found(node, written, &name);
                self.name(dir.as_fd(), &name)
            }
            Place::Itself(fd) => {
                let node = node(fd.as_fd(), b"", self.tree)?;
                self.found(node, written, b"");
                Ok(())
            }
        }
    }

    fn open(&mut self, dir: Option<u8>, path: u8, flags: Flags) -> Result<(), Failed> {
        let flags = match flags {
            Flags::Arg(at) => self.arg(at) as i32,
            Flags::Fixed(flags) => flags,
            Flags::How(at) => {
                let mut how = [0; 24];
                self.memory(self.arg(at), &mut how)?;
                let resolve = crate::device::fields::get_u64(&how, 16);
                if resolve & RESOLVE_IN_ROOT != 0 {
                    return Err(Failed::Unseen);
                }
                crate::device::fields::get_u64(&how, 0) as i32
            }
        };
        let Some((follow, written)) = opening(flags) else { return Ok(()) };
        let path = self.tracee.path(self.arg(path))?;
        self.place(self.dir(dir), &path, follow, written)
    }

    fn object(&mut self, dir: Option<u8>, path: u8, follow: Follow, written: bool) -> Result<(), Failed> {
        let address = self.arg(path);
        let text = if address == 0 { Vec::new() } else { self.tracee.path(address)? };
        if let (true, Some(dir)) = (text.is_empty(), dir) {
            return self.descriptor(self.arg(dir), written);
        }
        let follow = match follow {
            Follow::Yes => true,
            Follow::No => false,
            Follow::Unless(at) => self.arg(at) as i32 & libc::AT_SYMLINK_NOFOLLOW == 0,
        };
        self.place(self.dir(dir), &text, follow, written)
    }

    fn descriptor(&mut self, fd: u64, written: bool) -> Result<(), Failed> {
        let fd = if fd as i32 == libc::AT_FDCWD {
            match self.tracee.place(None, b".", false)? {
                Place::Itself(fd) | Place::Name(fd, _) => fd,
            }
        } else {
            self.tracee.descriptor(fd)?
        };
        let node = node(fd.as_fd(), b"", self.tree)?;
        self.found(node, written, b"");
        Ok(())
    }

    /// The name of a socket: a `struct sockaddr_un`.
    fn socket(&mut self, address: u64, len: u64) -> Result<(), Failed> {
        let mut bytes = [0; size_of::<libc::sockaddr_un>()];
        let len = bytes.len().min(len as usize);
        self.memory(address, &mut bytes[..len])?;
        if i32::from(u16::from_le_bytes([bytes[0], bytes[1]])) != libc::AF_UNIX {
            return Ok(());
        }
        let path = &bytes[2..len.max(2)];
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        // Without a path, or one that is of no tree.
        if end == 0 { Ok(()) } else { self.entry(None, &path[..end]) }
    }
}

const RESOLVE_IN_ROOT: u64 = 0x10;

/// What an open may do: whether a link at the end of its path is followed, and whether it is for writing. `None`:
/// nothing that has a name.
fn opening(flags: i32) -> Option<(bool, bool)> {
    let has = |flag: i32| flags & flag == flag;
    if has(libc::O_PATH) || has(libc::O_TMPFILE) {
        return None;
    }
    let written = flags & libc::O_ACCMODE != libc::O_RDONLY || has(libc::O_TRUNC);
    let new = has(libc::O_CREAT) && has(libc::O_EXCL);
    let follow = !has(libc::O_NOFOLLOW) && !new;
    (written || has(libc::O_CREAT)).then_some((follow, written))
}

/// Requests to btrfs that make or remove subvolumes, whose names are in memory: create, destroy, snapshot, and their
/// second versions.
const fn is_of_subvolumes(request: u32) -> bool {
    request >> 8 & 0xFF == 0x94 && matches!(request & 0xFF, 1 | 14 | 15 | 23 | 24 | 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_open_may_do_is_in_its_flags() {
        let table = [
            (libc::O_RDONLY, None),
            (libc::O_PATH | libc::O_RDWR, None),
            (libc::O_TMPFILE | libc::O_RDWR, None),
            (libc::O_RDONLY | libc::O_CREAT, Some((true, false))),
            (libc::O_RDONLY | libc::O_TRUNC, Some((true, true))),
            (libc::O_WRONLY, Some((true, true))),
            (libc::O_RDWR | libc::O_NOFOLLOW, Some((false, true))),
            (libc::O_WRONLY | libc::O_CREAT, Some((true, true))),
            (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, Some((false, true))),
            (libc::O_ACCMODE, Some((true, true))),
        ];
        for (flags, expected) in table {
            assert_eq!(opening(flags), expected, "{flags:#o}");
        }
    }

    #[test]
    fn requests_that_make_subvolumes_are_told_from_clones() {
        for request in [0x5000_940e, 0x5000_940f, 0x5000_9401, 0x5000_9417, 0x5000_9418, 0x5000_943f] {
            assert!(is_of_subvolumes(request), "{request:#x}");
        }
        for request in [0x4004_9409, 0x4020_940d, 0xc018_9436, 0x4008_6602] {
            assert!(!is_of_subvolumes(request), "{request:#x}");
        }
    }
}
