//! Which system calls change a file or a tree: as a classic BPF program for `seccomp(2)`.
//!
//! For a recorder that sees the calls of one command by user notification. Pure: a program is made here, nothing is
//! loaded. Four rules:
//!
//! - A call that may change something is notified, whatever its arguments in memory say: the filter sees registers
//!   only. Where registers tell (flags of `open`, the type of an `ioctl`), what only reads passes.
//! - What the table ([`super::calls`]) cannot know is notified too: calls of architectures other than this machine's and
//!   i386, x32, and numbers newer than [`NEWEST`]. Whoever is told of them writes LOST; nobody is killed, and nothing
//!   passes in silence.
//! - `io_uring` would change files without a call to see: its calls are answered with `ENOSYS`, as by a kernel built
//!   without it, and programs fall back.
//! - For what passes regardless of its arguments none is loaded, so that the kernel (5.11 and later) answers out of
//!   its bitmap of constant actions, and does not run the program.

use super::calls::{CALLS, Call, I386, NATIVE, NEWEST, When};
use libc::{c_long, sock_filter};

/// Types of `ioctl` numbers (bits 8 to 15) that file systems use: ext4 and flags of inodes, XFS and extended flags,
/// btrfs and clones, versions of inodes, F2FS. Some of them only read; they are rare.
const TYPES: [u32; 5] = [0x66, 0x58, 0x94, 0x76, 0xF5];

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
        When::Always => vec![NOTIFY],
        When::Refused => vec![REFUSE],
        When::Any { arg, bits } => {
            vec![load(ARGS + 8 * arg), jump(libc::BPF_JSET, bits, 1, 0), ALLOW, NOTIFY]
        }
        When::Is { arg, value } => {
            vec![load(ARGS + 8 * arg), jump(libc::BPF_JEQ, value, 1, 0), ALLOW, NOTIFY]
        }
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

/// What decides about the calls of one architecture.
fn section(number_of: impl Fn(&Call) -> Option<c_long>) -> Vec<sock_filter> {
    let mut code = vec![
        load(NUMBER),
        // Numbers of x32 have bit 30 set.
        jump(libc::BPF_JGT, NEWEST, 0, 1),
        NOTIFY,
    ];
    for call in CALLS {
        let Some(number) = number_of(call) else { continue };
        let body = body(call.when);
        // Numbers are below NEWEST and bodies below 255 instructions: the tests look.
        let (number, over) =
            (u32::try_from(number).unwrap_or(u32::MAX), u8::try_from(body.len()).unwrap_or(0));
        code.push(jump(libc::BPF_JEQ, number, 0, over));
        code.extend(body);
    }
    code.push(ALLOW);
    code
}

/// The program. Below a hundred calls it is far from the 4096 instructions that the kernel takes.
pub fn program() -> Vec<sock_filter> {
    let (native, i386) = (section(|call| call.native), section(|call| call.i386));
    let mut code = vec![load(ARCH)];
    // A jump of its own, because those that compare reach 255 instructions.
    let to = |over: usize| instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, over as u32);
    code.extend([jump(libc::BPF_JEQ, NATIVE, 0, 1), to(3)]);
    code.extend([jump(libc::BPF_JEQ, I386, 0, 1), to(1 + native.len()), NOTIFY]);
    code.extend(native);
    code.extend(i386);
    code
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
