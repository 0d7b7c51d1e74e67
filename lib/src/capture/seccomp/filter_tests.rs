use super::*;

const TOLD: u32 = libc::SECCOMP_RET_USER_NOTIF;
const PASS: u32 = libc::SECCOMP_RET_ALLOW;
const GONE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// Runs the program as the kernel does. Returns its answer, and whether an argument was loaded on the way.
fn run(arch: u32, number: u32, args: [u64; 6]) -> (u32, bool) {
    let code = program();
    let (mut at, mut value, mut looked) = (0, 0_u32, false);
    loop {
        let now = &code[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { now.jt } else { now.jf });
        match now.code {
            0x20 => {
                value = match now.k {
                    0 => number,
                    4 => arch,
                    offset => {
                        looked = true;
                        assert!(offset >= 16 && offset % 8 == 0, "offset {offset}");
                        u32::try_from(args[(offset as usize - 16) / 8] & 0xFFFF_FFFF).expect("low half")
                    }
                }
            }
            0x05 => at += now.k as usize,
            0x15 => branch(value == now.k),
            0x25 => branch(value > now.k),
            0x45 => branch(value & now.k != 0),
            0x74 => value >>= now.k,
            0x54 => value &= now.k,
            0x06 => return (now.k, looked),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn native(number: c_long, args: [u64; 6]) -> u32 {
    run(NATIVE, u32::try_from(number).expect("a number"), args).0
}

fn flags(at: usize, bits: i32) -> [u64; 6] {
    let mut args = [0; 6];
    args[at] = u64::from(bits.cast_unsigned());
    args
}

#[test]
fn what_opens_for_reading_passes_and_what_may_change_is_told() {
    let table = [
        (libc::O_RDONLY, PASS),
        (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY | libc::O_NOFOLLOW, PASS),
        (libc::O_PATH, PASS),
        (libc::O_WRONLY, TOLD),
        (libc::O_RDWR, TOLD),
        (libc::O_RDONLY | libc::O_CREAT, TOLD),
        (libc::O_RDONLY | libc::O_TRUNC, TOLD),
        (libc::O_TMPFILE | libc::O_WRONLY, TOLD),
    ];
    for (bits, expected) in table {
        assert_eq!(native(libc::SYS_openat, flags(2, bits)), expected, "openat {bits:#o}");
        assert_eq!(native(libc::SYS_open_by_handle_at, flags(2, bits)), expected, "by handle {bits:#o}");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(native(libc::SYS_open, flags(1, bits)), expected, "open {bits:#o}");
    }
    assert_eq!(native(libc::SYS_openat2, [0; 6]), TOLD);
}

#[test]
fn requests_to_file_systems_are_told_and_those_to_terminals_pass() {
    let table = [
        (0x5401, PASS),      // TCGETS
        (0x541B, PASS),      // FIONREAD
        (0x4008_6602, TOLD), // FS_IOC_SETFLAGS
        (0x401C_5820, TOLD), // FS_IOC_FSSETXATTR
        (0x4004_9409, TOLD), // FICLONE
        (0x4020_940D, TOLD), // FICLONERANGE
        (0xC018_9436, TOLD), // FIDEDUPERANGE
        (0x4030_582A, TOLD), // FS_IOC_RESVSP64
        (0x4028_5881, TOLD), // XFS_IOC_EXCHANGE_RANGE
        (0x4008_7602, TOLD), // FS_IOC_SETVERSION
        (0xF502, TOLD),      // F2FS_IOC_COMMIT_ATOMIC_WRITE
    ];
    for (request, expected) in table {
        assert_eq!(native(libc::SYS_ioctl, [3, request, 0, 0, 0, 0]), expected, "ioctl {request:#x}");
        // The kernel takes an unsigned int; what a program leaves above it does not hide the request.
        let wide = [3, request | 0xDEAD_0000_0000, 0, 0, 0, 0];
        assert_eq!(native(libc::SYS_ioctl, wide), expected, "ioctl {request:#x}, wide");
    }
}

#[test]
fn what_always_changes_is_told_and_io_uring_is_not_there() {
    for (arch, of) in
        [(NATIVE, (|call| call.native) as fn(&Call) -> Option<c_long>), (I386, |call| call.i386)]
    {
        for call in CALLS {
            let Some(number) = of(call) else { continue };
            let number = u32::try_from(number).expect("a number");
            for args in [[0; 6], [u64::MAX; 6]] {
                match call.when {
                    When::Always => assert_eq!(run(arch, number, args).0, TOLD, "{arch:#x} {number}"),
                    When::Refused => assert_eq!(run(arch, number, args).0, GONE, "{arch:#x} {number}"),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn programs_of_32_bits_have_a_table_of_their_own() {
    let table = [
        (5, [0, 0, 0, 0, 0, 0], PASS),
        (5, [0, 0o101, 0, 0, 0, 0], TOLD),
        (295, [0, 0, 0o2, 0, 0, 0], TOLD),
        (39, [0; 6], TOLD), // mkdir; getppid on x86-64
        (83, [0; 6], TOLD), // symlink; mkdir on x86-64
        (3, [0; 6], PASS),  // read
        (4, [0; 6], PASS),  // write
        (102, [2, 0, 0, 0, 0, 0], TOLD),
        (102, [1, 0, 0, 0, 0, 0], PASS),
        (425, [0; 6], GONE),
        (NEWEST + 1, [0; 6], TOLD),
    ];
    for (number, args, expected) in table {
        assert_eq!(run(I386, number, args).0, expected, "{number} {args:?}");
    }
}

#[test]
fn what_the_table_cannot_know_is_told_and_nothing_is_killed() {
    let arm = 0x4000_0028;
    let x32 = 0x4000_0000;
    for number in 0..=NEWEST {
        assert_eq!(run(arm, number, [0; 6]).0, TOLD, "arm {number}");
        assert_eq!(run(NATIVE, x32 | number, [0; 6]).0, TOLD, "x32 {number}");
    }
    for number in [NEWEST + 1, 512, 1000, u32::MAX] {
        assert_eq!(run(NATIVE, number, [0; 6]).0, TOLD, "{number}");
        assert_eq!(run(I386, number, [0; 6]).0, TOLD, "i386 {number}");
    }
    for number in 0..=NEWEST {
        assert!([TOLD, PASS, GONE].contains(&run(NATIVE, number, [0; 6]).0), "{number}");
        assert!([TOLD, PASS, GONE].contains(&run(I386, number, [0; 6]).0), "i386 {number}");
    }
}

#[test]
fn what_passes_whatever_its_arguments_is_decided_without_them() {
    for number in 0..=NEWEST {
        let (_, looked) = run(NATIVE, number, [0; 6]);
        let call = CALLS.iter().find(|call| call.native == Some(c_long::from(number)));
        let sometimes = call.is_some_and(|call| !matches!(call.when, When::Always | When::Refused));
        assert_eq!(looked, sometimes, "{number}");
    }
    let reads = [libc::SYS_read, libc::SYS_pread64, libc::SYS_lseek, libc::SYS_close, libc::SYS_newfstatat];
    let writes =
        [libc::SYS_write, libc::SYS_pwrite64, libc::SYS_mmap, libc::SYS_fallocate, libc::SYS_mprotect];
    for number in reads.into_iter().chain(writes).chain([libc::SYS_futex, libc::SYS_fsync]) {
        assert_eq!(native(number, [u64::MAX; 6]), PASS, "{number}");
    }
}

#[test]
fn the_kernel_takes_the_length() {
    assert!(program().len() < 4096);
    assert!(CALLS.iter().all(|call| body(call.when).len() < 255));
}
