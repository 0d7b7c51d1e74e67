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
fn mappings_of_files_are_told_if_they_are_shared() {
    let table = [
        (libc::MAP_PRIVATE, PASS),
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, PASS),
        (libc::MAP_SHARED | libc::MAP_ANONYMOUS, PASS),
        (libc::MAP_SHARED, TOLD),
        (libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC, TOLD),
        (libc::MAP_SHARED | libc::MAP_FIXED, TOLD),
    ];
    for (bits, expected) in table {
        assert_eq!(native(libc::SYS_mmap, flags(3, bits)), expected, "mmap {bits:#x}");
    }
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
    for number in [ALWAYS, OLDER, &LATE].concat() {
        for args in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(native(number, args), TOLD, "{number}");
        }
    }
    for number in REFUSED {
        assert_eq!(native(*number, [0; 6]), GONE, "{number}");
    }
}

#[test]
fn what_the_table_cannot_know_is_told_and_nothing_is_killed() {
    let i386 = 0x4000_0003;
    let arm = 0x4000_0028;
    let x32 = 0x4000_0000;
    for number in 0..=NEWEST {
        assert_eq!(run(i386, number, [0; 6]).0, TOLD, "i386 {number}");
        assert_eq!(run(arm, number, [0; 6]).0, TOLD, "arm {number}");
        assert_eq!(run(NATIVE, x32 | number, [0; 6]).0, TOLD, "x32 {number}");
    }
    for number in [NEWEST + 1, 512, 1000, u32::MAX] {
        assert_eq!(run(NATIVE, number, [0; 6]).0, TOLD, "{number}");
    }
    for number in 0..=NEWEST {
        assert!([TOLD, PASS, GONE].contains(&run(NATIVE, number, [0; 6]).0), "{number}");
    }
}

#[test]
fn what_passes_whatever_its_arguments_is_decided_without_them() {
    for number in 0..=NEWEST {
        let (_, looked) = run(NATIVE, number, [0; 6]);
        let sometimes = SOMETIMES.iter().any(|(of, _)| *of == c_long::from(number));
        assert_eq!(looked, sometimes, "{number}");
    }
    let reads = [libc::SYS_read, libc::SYS_pread64, libc::SYS_lseek, libc::SYS_close, libc::SYS_newfstatat];
    for number in reads.into_iter().chain([libc::SYS_mprotect, libc::SYS_futex, libc::SYS_fsync]) {
        assert_eq!(native(number, [u64::MAX; 6]), PASS, "{number}");
    }
}

#[test]
fn every_call_stands_in_one_table_and_the_kernel_takes_the_length() {
    let mut numbers: Vec<c_long> = SOMETIMES.iter().map(|(number, _)| *number).collect();
    numbers.extend([REFUSED, ALWAYS, OLDER, &LATE].concat());
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all);
    assert!(numbers.iter().all(|number| (0..=c_long::from(NEWEST)).contains(number)));
    assert!(program().len() < 4096);
    assert!(SOMETIMES.iter().all(|(_, when)| body(*when).len() < 255));
}
