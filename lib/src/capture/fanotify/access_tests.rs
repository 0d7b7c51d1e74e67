use super::*;

struct Nobody;

impl Caller for Nobody {
    fn descriptor(&self, number: u64) -> Option<Descriptor> {
        match number {
            3 => Some(Descriptor { inode: 7, writable: true }),
            4 => Some(Descriptor { inode: 8, writable: true }),
            5 => Some(Descriptor { inode: 7, writable: false }),
            _ => None,
        }
    }

    fn open_flags(&self, address: u64) -> Option<u64> {
        [(1, 0), (2, libc::O_TRUNC as u64)].into_iter().find(|(at, _)| *at == address).map(|(_, flags)| flags)
    }
}

fn call(number: i64, arguments: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { number, arguments: all, from_program: true }
}

fn bytes(range: Range<u64>) -> Effect {
    Effect::Bytes(Change::range(range))
}

fn from(at: u64) -> Effect {
    Effect::Bytes(Change::from(at))
}

#[test]
fn what_the_kernel_shows_of_a_thread_is_read() {
    let line = "18 0x3 0x5559841f4000 0x64 0x1f40 0x0 0x0 0x7ffe581ed498 0x7f64c3eff483\n";
    let call = call_of(line).expect("a call");
    assert_eq!((call.number, call.arguments[3], call.from_program), (18, 0x1f40, true));
    // A worker of io_uring, and a thread of the kernel: what looks like read(2) is nothing.
    let worker = call_of("426 0x7 0x1 0x0 0x1 0x0 0x0 0x0 0x0").expect("a call");
    assert!(!worker.from_program);
    assert!(!call_of("0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0").expect("a call").from_program);
    for none in ["running\n", "-1 0x7ffe 0x7f64\n", "", "18 0x3 0x4", "x"] {
        assert_eq!(call_of(none), None, "{none}");
    }
    let stack = "[<0>] fanotify_handle_event+0xb93/0x1b70\n[<0>] vfs_write.part.0+0x78/0x450\nnonsense\n";
    assert_eq!(frames_of(stack), ["fanotify_handle_event", "vfs_write"]);
}

const FREE: u64 = 0x03;

/// What it is called, its call, where it waits, the bytes of its range, and what it does.
type Case = (&'static str, Option<Call>, Vec<&'static str>, u64, Effect);

#[test]
fn each_access_changes_what_it_may_and_what_is_not_understood_changes_more() {
    use Effect::{Mapped, Nothing};
    let (write, read) = (call(libc::SYS_pwrite64, &[3]), call(libc::SYS_pread64, &[3]));
    let verify = |who: &'static str| vec!["fanotify_handle_event", "rw_verify_area", who, "do_syscall_64"];
    let allocate = |mode| call(libc::SYS_fallocate, &[3, mode, 8192, 4096]);
    let in_allocate = vec!["fsnotify", "vfs_fallocate", "__x64_sys_fallocate"];
    let map = |flags: i32, fd| call(libc::SYS_mmap, &[0, 4096, 3, flags.unsigned_abs().into(), fd]);
    let in_map = vec!["fsnotify", "vm_mmap_pgoff", "ksys_mmap_pgoff"];
    let copy = |to| call(libc::SYS_copy_file_range, &[3, 0, to]);
    let clone = |to| call(libc::SYS_ioctl, &[to, CLONE_RANGE]);
    let worker = Call { from_program: false, ..call(426, &[]) };
    let table: &[Case] = &[
        ("a write", Some(write.clone()), verify("vfs_write"), 4096, bytes(8192..12288)),
        ("a read", Some(read.clone()), verify("vfs_read"), 4096, Nothing),
        ("a read of io_uring", Some(worker.clone()), verify("io_read"), 4096, Nothing),
        ("a write of io_uring", Some(worker.clone()), verify("io_write"), 4096, bytes(8192..12288)),
        // Work of io_uring that a thread does while it leaves a read.
        ("another's write", Some(read.clone()), verify("io_write"), 4096, bytes(8192..12288)),
        ("nobody knows", None, verify("ovl_splice"), 4096, bytes(8192..12288)),
        ("a read without a stack", Some(read.clone()), vec![], 4096, bytes(8192..12288)),
        ("nothing is shown", None, vec![], 4096, from(8192)),
        ("a thread of the kernel without a stack", Some(worker.clone()), vec![], 4096, from(8192)),
        ("something else", Some(write), vec!["fsnotify", "new_function"], 4096, from(8192)),
        (
            "a clone",
            Some(clone(3)),
            vec!["remap_verify_area", "vfs_clone_file_range"],
            4096,
            bytes(8192..12288),
        ),
        ("a clone to the end", Some(clone(3)), vec!["remap_verify_area", "ioctl_file_clone"], 0, from(8192)),
        ("cloned from", Some(clone(4)), vec!["remap_verify_area", "vfs_clone_file_range"], 0, Nothing),
        ("copied into", Some(copy(3)), verify("vfs_copy_file_range"), 4096, bytes(8192..12288)),
        ("copied from", Some(copy(4)), verify("vfs_copy_file_range"), 4096, Nothing),
        ("copied where?", Some(copy(9)), verify("vfs_copy_file_range"), 4096, bytes(8192..12288)),
        ("a hole", Some(allocate(FREE)), in_allocate.clone(), 4096, bytes(8192..12288)),
        ("collapse", Some(allocate(0x08)), in_allocate.clone(), 4096, from(8192)),
        ("insert", Some(allocate(0x20)), in_allocate.clone(), 4096, from(8192)),
        ("collapse without a stack", Some(allocate(0x08)), vec![], 4096, from(8192)),
        ("allocated by a worker", Some(worker), vec!["vfs_fallocate", "io_fallocate"], 4096, from(8192)),
        ("a size", Some(call(libc::SYS_ftruncate, &[3])), vec!["do_ftruncate"], 4096, from(8192)),
        ("shared", Some(map(libc::MAP_SHARED, 3)), in_map.clone(), 4096, Mapped),
        ("shared, another's", Some(map(libc::MAP_SHARED, 4)), in_map.clone(), 4096, Mapped),
        ("private", Some(map(libc::MAP_PRIVATE, 3)), in_map.clone(), 4096, Nothing),
        ("read-only for good", Some(map(libc::MAP_SHARED, 5)), in_map.clone(), 4096, Nothing),
        ("mapped by somebody", None, in_map, 4096, Mapped),
        ("mapped without a stack", Some(map(libc::MAP_PRIVATE, 3)), vec![], 4096, Mapped),
    ];
    for (what, call, frames, count, effect) in table {
        let access = Access { inode: 7, open: false, range: Some((8192, *count)) };
        assert_eq!(judge(&access, call.as_ref(), frames, &Nobody).effect, *effect, "{what}");
    }
    let access = Access { inode: 7, open: false, range: None };
    assert_eq!(judge(&access, Some(&read), &verify("vfs_read"), &Nobody).effect, from(0), "no range");
}

#[test]
fn only_what_truncates_changes_a_file_that_is_opened() {
    let flag = libc::O_TRUNC as u64;
    let frames = ["do_dentry_open", "do_sys_openat2"];
    let access = Access { inode: 7, open: true, range: None };
    let effect = |call: Option<&Call>, frames: &[&str]| judge(&access, call, frames, &Nobody).effect;
    for (call, expected) in [
        (call(libc::SYS_openat, &[0, 0, 0]), Effect::Nothing),
        (call(libc::SYS_openat, &[0, 0, 2]), Effect::Nothing),
        (call(libc::SYS_openat, &[0, 0, flag | 1]), from(0)),
        (call(libc::SYS_openat2, &[0, 0, 1]), Effect::Nothing),
        (call(libc::SYS_openat2, &[0, 0, 2]), from(0)),
        (call(libc::SYS_openat2, &[0, 0, 9]), from(0)),
        (call(libc::SYS_open_by_handle_at, &[0, 0, flag]), from(0)),
        (call(426, &[]), from(0)),
    ] {
        assert_eq!(effect(Some(&call), &frames), expected, "{call:?}");
    }
    assert_eq!(effect(None, &frames), from(0));
    assert_eq!(effect(Some(&call(libc::SYS_openat, &[])), &[]), from(0), "no stack");
    let by_ring = ["do_dentry_open", "io_openat2", "task_work_run"];
    assert_eq!(effect(Some(&call(libc::SYS_openat, &[])), &by_ring), from(0));
    assert_eq!(
        effect(Some(&call(libc::SYS_execve, &[])), &["do_open_execat", "__x64_sys_execve"]),
        Effect::Nothing
    );
}

#[test]
fn what_a_thread_does_itself_ends_with_its_call() {
    let access = Access { inode: 7, open: false, range: Some((0, 1)) };
    let lasting = |call: &Call, frames: &[&str]| judge(&access, Some(call), frames, &Nobody).lasting;
    let write = call(libc::SYS_write, &[3]);
    assert!(!lasting(&write, &["rw_verify_area", "vfs_write"]));
    assert!(lasting(&write, &[]), "nobody knows whose the call is");
    assert!(lasting(&call(libc::SYS_io_submit, &[3]), &["rw_verify_area", "aio_write", "io_submit_one"]));
    assert!(lasting(&write, &["rw_verify_area", "io_write", "io_issue_sqe", "task_work_run"]));
    assert!(lasting(&Call { from_program: false, ..write }, &["rw_verify_area", "vfs_write"]));
}
