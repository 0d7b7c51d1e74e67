//! Which system calls change a file or a tree: as a classic BPF program for `seccomp(2)`.
//!
//! For a recorder that sees the calls of one command by user notification. Pure: a program is made here, nothing is
//! loaded. Four rules:
//!
//! - A call that may change something is notified, whatever its arguments in memory say: the filter sees registers
//!   only. Where registers tell (flags of `open`, `mmap`; the type of an `ioctl`), what only reads passes.
//! - What the table cannot know is notified too: calls of another architecture (32-bit programs, x32) and numbers
//!   newer than [`NEWEST`]. Whoever is told of them writes LOST; nobody is killed, and nothing passes in silence.
//! - `io_uring` would change files without a call to see: its calls are answered with `ENOSYS`, as by a kernel built
//!   without it, and programs fall back.
//! - For what passes regardless of its arguments none is loaded, so that the kernel (5.11 and later) answers out of
//!   its bitmap of constant actions, and does not run the program.
//!
//! `mprotect` passes: a shared mapping of a file is notified when it is made, also when it may only be read then.
//! Not a call of the command, and so not seen: core dumps, and rings of `io_uring` with a polling thread that were
//! made before.

use libc::{c_long, sock_filter};

/// The last system call that was looked at for the table: `file_setattr` (Linux 6.17). From 424 on a number means
/// the same on every architecture.
pub const NEWEST: u32 = 469;

/// `AUDIT_ARCH_*` of this program's own calls (linux/audit.h). Elsewhere none is known, and every call is notified.
pub const NATIVE: u32 = if cfg!(target_arch = "x86_64") {
    0xC000_003E
} else if cfg!(target_arch = "aarch64") {
    0xC000_00B7
} else {
    0
};

/// Flags with which an `open` may change something.
const OPENS: u32 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC).cast_unsigned();

/// Types of `ioctl` numbers (bits 8 to 15) that file systems use: ext4 and flags of inodes, XFS and extended flags,
/// btrfs and clones, versions of inodes, F2FS. Some of them only read; they are rare.
const TYPES: [u32; 5] = [0x66, 0x58, 0x94, 0x76, 0xF5];

/// `setxattrat` and `removexattrat` (Linux 6.13), `fchmodat2` (6.6), `file_setattr` (6.17).
const LATE: [c_long; 4] = [463, 466, 452, 469];

/// When a call is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// One of these bits is set in an argument.
    Any { arg: u32, bits: u32 },
    /// A `mmap` of a file, shared.
    Shared,
    /// An `ioctl` of a file system.
    FileSystem,
}

/// Calls whose registers tell. They come first: most calls that are looked at are among them.
const SOMETIMES: &[(c_long, When)] = &[
    (libc::SYS_openat, When::Any { arg: 2, bits: OPENS }),
    (libc::SYS_mmap, When::Shared),
    (libc::SYS_ioctl, When::FileSystem),
    (libc::SYS_open_by_handle_at, When::Any { arg: 2, bits: OPENS }),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, When::Any { arg: 1, bits: OPENS }),
];

/// Calls that do not happen.
const REFUSED: &[c_long] = &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Calls that are always notified. `openat2` has its flags in memory; `io_submit` writes; `bind` makes sockets that
/// have a name; what `swapon` and `acct` are given, the kernel writes to from then on.
const ALWAYS: &[c_long] = &[
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_io_submit,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_openat2,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_bind,
    libc::SYS_swapon,
    libc::SYS_acct,
];

/// The same, in the forms that only x86-64 still has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_creat,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_symlink,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

// Where things are in struct seccomp_data (linux/seccomp.h); of an argument the low half, on little-endian machines.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const NOTIFY: sock_filter = ret(libc::SECCOMP_RET_USER_NOTIF);
const ALLOW: sock_filter = ret(libc::SECCOMP_RET_ALLOW);
const REFUSE: sock_filter = ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());

/// The codes of `linux/bpf_common.h` are 16 bits wide, its constants are not.
#[expect(clippy::cast_possible_truncation, reason = "all codes are below 0x100")]
const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

const fn ret(k: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k)
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// `test` is one of `BPF_JEQ`, `BPF_JGT`, `BPF_JSET`; so many instructions are left out if it holds, or if not.
const fn jump(test: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, yes, no, k)
}

const fn alu(operation: u32, k: u32) -> sock_filter {
    instruction(libc::BPF_ALU | operation | libc::BPF_K, 0, 0, k)
}

/// What decides about one call; each way through it ends in a return.
fn body(when: When) -> Vec<sock_filter> {
    match when {
        When::Any { arg, bits } => {
            vec![load(ARGS + 8 * arg), jump(libc::BPF_JSET, bits, 1, 0), ALLOW, NOTIFY]
        }
        When::Shared => vec![
            load(ARGS + 8 * 3),
            jump(libc::BPF_JSET, libc::MAP_ANONYMOUS.cast_unsigned(), 1, 0),
            // Also part of MAP_SHARED_VALIDATE, and not of MAP_PRIVATE.
            jump(libc::BPF_JSET, libc::MAP_SHARED.cast_unsigned(), 1, 0),
            ALLOW,
            NOTIFY,
        ],
        When::FileSystem => {
            let mut code = vec![load(ARGS + 8), alu(libc::BPF_RSH, 8), alu(libc::BPF_AND, 0xFF)];
            // From each: over the rest of the comparisons and ALLOW.
            let over = (1..).take(TYPES.len()).collect::<Vec<u8>>();
            code.extend(
                TYPES.iter().zip(over.iter().rev()).map(|(of, over)| jump(libc::BPF_JEQ, *of, *over, 0)),
            );
            code.extend([ALLOW, NOTIFY]);
            code
        }
    }
}

/// The program. Below a hundred calls it is far from the 4096 instructions that the kernel takes.
pub fn program() -> Vec<sock_filter> {
    let mut code = vec![
        load(ARCH),
        jump(libc::BPF_JEQ, NATIVE, 1, 0),
        NOTIFY,
        load(NUMBER),
        // Numbers of x32 have bit 30 set.
        jump(libc::BPF_JGT, NEWEST, 0, 1),
        NOTIFY,
    ];
    let fixed = |numbers: &[c_long], action| {
        numbers.iter().map(move |number| (*number, vec![action])).collect::<Vec<_>>()
    };
    let rules = SOMETIMES
        .iter()
        .map(|(number, when)| (*number, body(*when)))
        .chain(fixed(REFUSED, REFUSE))
        .chain([ALWAYS, OLDER, &LATE].into_iter().flat_map(|numbers| fixed(numbers, NOTIFY)));
    for (number, body) in rules {
        // Numbers are below NEWEST and bodies below 255 instructions: the tests look.
        let (number, over) =
            (u32::try_from(number).unwrap_or(u32::MAX), u8::try_from(body.len()).unwrap_or(0));
        code.push(jump(libc::BPF_JEQ, number, 0, over));
        code.extend(body);
    }
    code.push(ALLOW);
    code
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
