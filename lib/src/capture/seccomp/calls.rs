//! The system calls that change a tree of files, and which of their arguments say what. Pure; used twice: [`super::filter`]
//! makes of it which calls are told of, [`super::recorder`] what is looked at then.
//!
//! What is not in it, and why nothing is missed:
//!
//! - `write` and all that changes bytes through a descriptor (`ftruncate`, `fallocate`, `copy_file_range`, `splice`,
//!   `io_submit`, clones, stores into mappings): the descriptor was opened for writing, and that is in it. A file counts
//!   as written from then on, and in each later round as long as some process has it open or mapped
//!   ([`super::opened`]). A program that opens a file once and writes to it a million times waits once.
//! - What only the kernel writes later (`acct`, `swapon`, core dumps, loop devices).

use libc::c_long;

/// Where the directory is that a path begins at: an argument, or the working directory.
type Dir = Option<u8>;

/// The flags of an `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// An argument.
    Arg(u8),
    /// In memory that an argument points to: `struct open_how`.
    How(u8),
    /// Always these.
    Fixed(i32),
}

/// Whether the last component is followed if it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// Unless this argument has `AT_SYMLINK_NOFOLLOW`.
    Unless(u8),
}

/// One thing that a call may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// This name comes or goes.
    Entry {
        /// Where the path begins.
        dir: Dir,
        /// The path.
        path: u8,
    },
    /// A file is opened, perhaps for writing, perhaps a new one.
    Open {
        /// Where the path begins.
        dir: Dir,
        /// The path.
        path: u8,
        /// How.
        flags: Flags,
    },
    /// What a path leads to; without a path, or with an empty one, what the descriptor is.
    Object {
        /// Where the path begins.
        dir: Dir,
        /// The path.
        path: u8,
        /// Whether a link at its end is followed.
        follow: Follow,
        /// Whether it is about bytes, not metadata.
        written: bool,
    },
    /// What a descriptor is.
    Descriptor {
        /// The descriptor.
        fd: u8,
    },
    /// A request to a file system.
    Request {
        /// The descriptor.
        fd: u8,
        /// Its number.
        number: u8,
    },
    /// A socket gets a name.
    Socket {
        /// The address.
        address: u8,
        /// Its length.
        len: u8,
    },
    /// The same, with its arguments in memory (`socketcall(2)`).
    SocketCall {
        /// Where they are.
        args: u8,
    },
    /// What it changes cannot be told.
    Untold,
}

/// When a call is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always: what it changes is in memory, or it changes something whatever its arguments are.
    Always,
    /// One of these bits is set in an argument.
    Any {
        /// The argument.
        arg: u32,
        /// The bits.
        bits: u32,
    },
    /// An argument is this.
    Is {
        /// The argument.
        arg: u32,
        /// The value.
        value: u32,
    },
    /// An `ioctl` of a file system.
    FileSystem,
    /// It does not happen: it is answered with `ENOSYS`.
    Refused,
}

/// A system call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number in programs of this machine.
    pub native: Option<c_long>,
    /// Its number in programs of i386.
    pub i386: Option<c_long>,
    /// When it is told of.
    pub when: When,
    /// What it may change.
    pub touches: &'static [Touch],
}

/// Flags with which an `open` may change something.
const OPENS: u32 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC).cast_unsigned();

const fn entry(dir: Dir, path: u8) -> Touch {
    Touch::Entry { dir, path }
}

const fn object(dir: Dir, path: u8, follow: Follow) -> Touch {
    Touch::Object { dir, path, follow, written: false }
}

const FD: &[Touch] = &[Touch::Descriptor { fd: 0 }];
const PATH: &[Touch] = &[object(None, 0, Follow::Yes)];
const LINK: &[Touch] = &[object(None, 0, Follow::No)];
const FIRST: &[Touch] = &[entry(None, 0)];
const SECOND: &[Touch] = &[entry(None, 1)];
const BOTH: &[Touch] = &[entry(None, 0), entry(None, 1)];
const AT: &[Touch] = &[entry(Some(0), 1)];
const TWICE: &[Touch] = &[entry(Some(0), 1), entry(Some(2), 3)];
const CREATED: i32 = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
const TRUNCATED: &[Touch] = &[Touch::Object { dir: None, path: 0, follow: Follow::Yes, written: true }];

/// A call that every architecture has; and one that only the older ones have, this machine's perhaps.
macro_rules! call {
    ($name:ident, $i386:expr, $when:expr, $touches:expr) => {
        Call { native: Some(libc::$name), i386: Some($i386), when: $when, touches: $touches }
    };
    (old $name:ident, $i386:expr, $when:expr, $touches:expr) => {
        Call {
            #[cfg(target_arch = "x86_64")]
            native: Some(libc::$name),
            #[cfg(not(target_arch = "x86_64"))]
            native: None,
            i386: Some($i386),
            when: $when,
            touches: $touches,
        }
    };
    (i386 $i386:expr, $when:expr, $touches:expr) => {
        Call { native: None, i386: Some($i386), when: $when, touches: $touches }
    };
    (late $both:expr, $touches:expr) => {
        Call { native: Some($both), i386: Some($both), when: When::Always, touches: $touches }
    };
}

use When::Always;

/// All of them. Those that are looked at most come first. The numbers of i386 are those of the kernel's
/// `arch/x86/entry/syscalls/syscall_32.tbl`.
pub const CALLS: &[Call] = &[
    call!(
        SYS_openat,
        295,
        When::Any { arg: 2, bits: OPENS },
        &[Touch::Open { dir: Some(0), path: 1, flags: Flags::Arg(2) }]
    ),
    call!(SYS_ioctl, 54, When::FileSystem, &[Touch::Request { fd: 0, number: 1 }]),
    call!(old SYS_open, 5, When::Any { arg: 1, bits: OPENS }, &[Touch::Open {
        dir: None,
        path: 0,
        flags: Flags::Arg(1)
    }]),
    call!(SYS_open_by_handle_at, 342, When::Any { arg: 2, bits: OPENS }, &[Touch::Untold]),
    call!(SYS_utimensat, 320, Always, &[object(Some(0), 1, Follow::Unless(3))]),
    call!(SYS_fchownat, 298, Always, &[object(Some(0), 1, Follow::Unless(4))]),
    call!(SYS_fchmodat, 306, Always, &[object(Some(0), 1, Follow::Yes)]),
    call!(SYS_fchmod, 94, Always, FD),
    call!(SYS_fchown, 95, Always, FD),
    call!(SYS_mkdirat, 296, Always, AT),
    call!(SYS_unlinkat, 301, Always, AT),
    call!(SYS_renameat, 302, Always, TWICE),
    call!(SYS_renameat2, 353, Always, TWICE),
    call!(SYS_linkat, 303, Always, &[entry(Some(2), 3)]),
    call!(SYS_symlinkat, 304, Always, &[entry(Some(1), 2)]),
    call!(SYS_mknodat, 297, Always, AT),
    call!(SYS_openat2, 437, Always, &[Touch::Open { dir: Some(0), path: 1, flags: Flags::How(2) }]),
    call!(SYS_truncate, 92, Always, TRUNCATED),
    call!(SYS_setxattr, 226, Always, PATH),
    call!(SYS_lsetxattr, 227, Always, LINK),
    call!(SYS_fsetxattr, 228, Always, FD),
    call!(SYS_removexattr, 235, Always, PATH),
    call!(SYS_lremovexattr, 236, Always, LINK),
    call!(SYS_fremovexattr, 237, Always, FD),
    call!(SYS_bind, 361, Always, &[Touch::Socket { address: 1, len: 2 }]),
    call!(SYS_io_uring_setup, 425, When::Refused, &[]),
    call!(SYS_io_uring_enter, 426, When::Refused, &[]),
    call!(SYS_io_uring_register, 427, When::Refused, &[]),
    // fchmodat2 (Linux 6.6), setxattrat and removexattrat (6.13), file_setattr (6.17).
    call!(late 452, &[object(Some(0), 1, Follow::Unless(3))]),
    call!(late 463, &[object(Some(0), 1, Follow::Unless(2))]),
    call!(late 466, &[object(Some(0), 1, Follow::Unless(2))]),
    call!(late 469, &[object(Some(0), 1, Follow::Unless(4))]),
    call!(old SYS_creat, 8, Always, &[Touch::Open { dir: None, path: 0, flags: Flags::Fixed(CREATED) }]),
    call!(old SYS_rename, 38, Always, BOTH),
    call!(old SYS_link, 9, Always, SECOND),
    call!(old SYS_unlink, 10, Always, FIRST),
    call!(old SYS_rmdir, 40, Always, FIRST),
    call!(old SYS_symlink, 83, Always, SECOND),
    call!(old SYS_mkdir, 39, Always, FIRST),
    call!(old SYS_mknod, 14, Always, FIRST),
    call!(old SYS_chmod, 15, Always, PATH),
    call!(old SYS_chown, 182, Always, PATH),
    call!(old SYS_lchown, 16, Always, LINK),
    call!(old SYS_utime, 30, Always, PATH),
    call!(old SYS_utimes, 271, Always, PATH),
    call!(old SYS_futimesat, 299, Always, &[object(Some(0), 1, Follow::Yes)]),
    // truncate64, lchown32, fchown32, chown32, utimensat_time64, and bind inside socketcall.
    call!(i386 193, Always, TRUNCATED),
    call!(i386 198, Always, LINK),
    call!(i386 207, Always, FD),
    call!(i386 212, Always, PATH),
    call!(i386 412, Always, &[object(Some(0), 1, Follow::Unless(3))]),
    call!(i386 102, When::Is { arg: 0, value: 2 }, &[Touch::SocketCall { args: 1 }]),
];

/// The last system call that was looked at for the table: `file_setattr` (Linux 6.17). From 424 on a number means
/// the same on every architecture.
pub const NEWEST: u32 = 469;

/// `AUDIT_ARCH_*` of this program's own calls (linux/audit.h). Elsewhere none is known, and every call is told of.
pub const NATIVE: u32 = if cfg!(target_arch = "x86_64") {
    0xC000_003E
} else if cfg!(target_arch = "aarch64") {
    0xC000_00B7
} else {
    0
};

/// `AUDIT_ARCH_I386`.
pub const I386: u32 = 0x4000_0003;

/// What a call that was told of may change. Calls that are not in the table are told of because nobody knows what they
/// change: of other architectures, x32, newer than the table.
pub fn touches(arch: u32, number: i32) -> &'static [Touch] {
    let of = |call: &&Call| {
        let known = match arch {
            NATIVE => call.native,
            I386 => call.i386,
            _ => None,
        };
        known == Some(c_long::from(number))
    };
    CALLS.iter().find(of).map_or(&[Touch::Untold], |call| call.touches)
}

/// Whether calls of a number, of either architecture, are told of at times.
pub fn is_told(number: i32) -> bool {
    let number = c_long::from(number);
    let told = |call: &Call| {
        call.when != When::Refused && (call.native == Some(number) || call.i386 == Some(number))
    };
    number > c_long::from(NEWEST) || CALLS.iter().any(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_for_one_call() {
        for of in [|call: &Call| call.native, |call: &Call| call.i386] {
            let mut numbers: Vec<c_long> = CALLS.iter().filter_map(of).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all);
            assert!(numbers.iter().all(|number| (0..=c_long::from(NEWEST)).contains(number)));
        }
    }

    #[test]
    fn what_a_call_touches_is_found_by_architecture() {
        let native = |number: c_long| touches(NATIVE, i32::try_from(number).expect("a number"));
        assert_eq!(native(libc::SYS_mkdirat), [entry(Some(0), 1)]);
        assert_eq!(native(libc::SYS_renameat2).len(), 2);
        assert_eq!(touches(I386, 39), [entry(None, 0)], "mkdir");
        assert_eq!(touches(I386, 5), touches(I386, 5));
        for (arch, number) in [(NATIVE, 470), (NATIVE, 0x4000_0053), (I386, 470), (0x4000_0028, 39)] {
            assert_eq!(touches(arch, number), [Touch::Untold], "{arch:#x} {number}");
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(native(libc::SYS_mkdir), touches(I386, 39));
    }

    #[test]
    fn arguments_are_numbered_from_zero_to_five() {
        for touch in CALLS.iter().flat_map(|call| call.touches) {
            let args = match *touch {
                Touch::Entry { dir, path } => vec![dir.unwrap_or(0), path],
                Touch::Open { dir, path, flags } => {
                    let at = match flags {
                        Flags::Arg(at) | Flags::How(at) => at,
                        Flags::Fixed(_) => 0,
                    };
                    vec![dir.unwrap_or(0), path, at]
                }
                Touch::Object { dir, path, follow, .. } => {
                    vec![dir.unwrap_or(0), path, if let Follow::Unless(at) = follow { at } else { 0 }]
                }
                Touch::Descriptor { fd } => vec![fd],
                Touch::Request { fd, number } => vec![fd, number],
                Touch::Socket { address, len } => vec![address, len],
                Touch::SocketCall { args } => vec![args],
                Touch::Untold => Vec::new(),
            };
            assert!(args.iter().all(|arg| *arg < 6), "{touch:?}");
        }
    }
}
