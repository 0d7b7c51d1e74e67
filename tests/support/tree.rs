//! Random trees: a file system of a test's own, and operations on what is in it.

use super::run::run;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, XattrFlags, ioctl_getflags,
    ioctl_setflags, lsetxattr, makedev, mknodat, renameat_with,
};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A small generator: the same seed, the same history.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let at = self.below(list.len() as u64) as usize;
        list.get(at)
    }
}

/// A file system of a test's own, unmounted when dropped.
pub struct Disk {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    /// `tmpfs`, `ext4`, `xfs` or `btrfs`, mounted; needs root, and loop devices for all but the first.
    pub fn new(kind: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mt").tempdir().expect("temporary directory");
        let at = dir.path().join("mnt");
        fs::create_dir(&at).expect("mkdir");
        let at = at.to_string_lossy().into_owned();
        if kind == "tmpfs" {
            // Room for a larger tree than that of every day.
            let size = if std::env::var_os("MIRROR_CFOR_FILES").is_some() { "3g" } else { "600m" };
            let options = format!("nodev,size={size}");
            run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &at]).expect(0);
        } else {
            let image = dir.path().join("img");
            File::create(&image).and_then(|file| file.set_len(600 << 20)).expect("image");
            let image = image.to_string_lossy().into_owned();
            let force = if kind == "ext4" { "-Fq" } else { "-fq" };
            run(&format!("/usr/sbin/mkfs.{kind}"), &[force, &image]).expect(0);
            run("mount", &["-o", "loop,nodev", &image, &at]).expect(0);
        }
        Self { dir, mounted: true }
    }

    /// A directory on the disk the tests run on.
    pub fn plain() -> Self {
        let dir = tempfile::Builder::new().prefix("mt").tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("mnt")).expect("mkdir");
        Self { dir, mounted: false }
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    /// A path beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = self.dir.path().join("mnt");
        if self.mounted {
            let _ = std::process::Command::new("umount").arg("-l").arg(&at).status();
        }
    }
}

/// Everything in a tree: directories, and the rest.
fn list(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut files) = (vec![root.to_owned()], Vec::new());
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        let mut paths: Vec<_> =
            fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path()).collect();
        paths.sort();
        for path in paths {
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir());
            if is_dir { dirs.push(path) } else { files.push(path) }
        }
        at += 1;
    }
    (dirs, files)
}

fn name(random: &mut Random) -> String {
    const ODD: [&str; 8] = ["new\nline", "-rf", " ", "a*?[b]", "ü\u{202e}x", "\\", "'\"$(x)", "..."];
    match random.below(12) {
        0 => ODD[random.below(8) as usize].to_owned(),
        1 => "long".repeat(60),
        _ => format!("n{}", random.below(40)),
    }
}

fn bytes(random: &mut Random, most: u64) -> Vec<u8> {
    let len = random.below(most) as usize;
    let value = random.below(5) as u8;
    (0..len).map(|at| if value == 0 { 0 } else { value.wrapping_mul(at as u8) ^ random.0 as u8 }).collect()
}

/// Does this many random operations to a tree. One that is not possible here and now is none.
pub fn mutate(root: &Path, random: &mut Random, operations: u32) {
    mutate_some(root, random, operations, true);
}

/// The same without chattr(1), of which no event tells.
pub fn mutate_with_events(root: &Path, random: &mut Random, operations: u32) {
    mutate_some(root, random, operations, false);
}

fn mutate_some(root: &Path, random: &mut Random, operations: u32, chattr: bool) {
    for _ in 0..operations {
        let (dirs, files) = list(root);
        let dir = random.pick(&dirs).expect("the root").clone();
        let file = random.pick(&files).cloned().unwrap_or_else(|| dir.join("first"));
        let new = dir.join(name(random));
        let any = if random.below(3) == 0 { random.pick(&dirs[1..]).unwrap_or(&file) } else { &file }.clone();
        // An operation that the file system, its flags or the place forbid leaves things as they are.
        let _ = match random.below(36) {
            0..4 => create(&new, random),
            4 | 5 => fs::create_dir(&new),
            6 => write(&file, random),
            7 => append(&file, random),
            8 => writing(&file).and_then(|f| f.set_len(random.below(400_000))),
            9 => allocate(&file, random),
            10 => copy(&file, &new, random),
            11 | 12 => fs::rename(&any, &new),
            13 => {
                let other = random.pick(&files).unwrap_or(&new);
                renameat_with(CWD, &any, CWD, other, RenameFlags::EXCHANGE).map_err(Into::into)
            }
            14 => fs::rename(&file, random.pick(&files).unwrap_or(&new)),
            15 | 16 => fs::hard_link(&file, &new),
            17 | 18 => fs::remove_file(&file),
            19 => fs::remove_dir_all(random.pick(&dirs[1..]).unwrap_or(&new)),
            20 => symlink(PathBuf::from(name(random)), &new),
            21 => temporary(&dir, &new, random),
            22 => attribute(&any, random),
            23 => acl(&any, random),
            24 if chattr => flags(&any, random),
            25 => special(&new, random),
            26 => {
                fs::set_permissions(&any, fs::Permissions::from_mode(random.below(0o10_000) as u32 | 0o400))
            }
            27 => std::os::unix::fs::lchown(&any, Some(random.below(3) as u32), Some(random.below(3) as u32)),
            28 => deep(&dir, random),
            29 | 30 => mapped(&file, random),
            31 => orphan(&file, random),
            32 => cycle(&files, random),
            33 => wide(&dir, random),
            34 => fs::rename(&any, &new).and_then(|()| create(&any, random)),
            _ => reading(&any).and_then(|f| {
                f.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(random.next() >> 2))
            }),
        };
    }
}

/// Opens a regular file, and nothing else: a pipe would wait, and a device must not be touched.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_file() || data.is_dir() => options.open(path),
        Ok(_) => Err(io::ErrorKind::InvalidInput.into()),
        Err(_) => options.open(path),
    }
}

fn reading(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().read(true), path)
}

fn writing(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().write(true), path)
}

/// What has this name may be a pipe by now.
fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open(OpenOptions::new().write(true).create(true).truncate(true), path)?.write_all_at(bytes, 0)
}

fn create(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = open(OpenOptions::new().write(true).create(true).truncate(true), path)?;
    file.write_all_at(&bytes(random, 300_000), 0)
}

fn write(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = writing(path)?;
    let at = random.below(300_000);
    file.write_all_at(&bytes(random, 50_000), at)
}

fn append(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = open(OpenOptions::new().append(true), path)?;
    io::Write::write_all(&mut &file, &bytes(random, 9000))
}

fn allocate(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = writing(path)?;
    let mode = match random.below(4) {
        0 => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        1 => FallocateFlags::COLLAPSE_RANGE,
        2 => FallocateFlags::INSERT_RANGE,
        _ => FallocateFlags::ZERO_RANGE,
    };
    let (at, len) = (random.below(60) * 4096, (1 + random.below(40)) * 4096);
    Ok(rustix::fs::fallocate(&file, mode, at, len)?)
}

fn copy(from: &Path, to: &Path, random: &mut Random) -> io::Result<()> {
    let (from, to) = (reading(from)?, File::create_new(to)?);
    if random.below(2) == 0 {
        return Ok(rustix::fs::ioctl_ficlone(&to, &from)?);
    }
    rustix::fs::copy_file_range(&from, None, &to, Some(&mut random.below(9000)), 200_000)?;
    Ok(())
}

fn temporary(dir: &Path, to: &Path, random: &mut Random) -> io::Result<()> {
    let fd = rustix::fs::openat(CWD, dir, OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o640))?;
    let file = File::from(fd);
    file.write_all_at(&bytes(random, 20_000), 0)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    Ok(rustix::fs::linkat(CWD, path, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

fn attribute(path: &Path, random: &mut Random) -> io::Result<()> {
    let name = format!("user.{}", random.below(3));
    if random.below(3) == 0 {
        return Ok(rustix::fs::lremovexattr(path, name)?);
    }
    if random.below(4) == 0 {
        // cap_net_raw, permitted and effective, as setcap(8) writes it.
        let value = [1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        return Ok(lsetxattr(path, "security.capability", &value, XattrFlags::empty())?);
    }
    Ok(lsetxattr(path, name, &bytes(random, 300), XattrFlags::empty())?)
}

fn acl(path: &Path, random: &mut Random) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Ok(());
    }
    let name = if random.below(2) == 0 { "system.posix_acl_access" } else { "system.posix_acl_default" };
    if random.below(3) == 0 {
        return Ok(rustix::fs::lremovexattr(path, name)?);
    }
    let permission = random.below(8) as u16;
    let none = u32::MAX;
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permission, id) in
        [(1u16, 7u16, none), (2, permission, 1), (4, 5, none), (16, permission, none), (32, 4, none)]
    {
        value.extend(tag.to_le_bytes());
        value.extend(permission.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Ok(lsetxattr(path, name, &value, XattrFlags::empty())?)
}

fn flags(path: &Path, random: &mut Random) -> io::Result<()> {
    let data = fs::symlink_metadata(path)?;
    if !data.is_file() && !data.is_dir() {
        return Ok(());
    }
    let file = reading(path)?;
    let some = [IFlags::IMMUTABLE, IFlags::APPEND, IFlags::NODUMP, IFlags::NOATIME, IFlags::SYNC];
    let now = ioctl_getflags(&file)?;
    let flag = some[random.below(5) as usize];
    let next = if random.below(2) == 0 { now - IFlags::IMMUTABLE - IFlags::APPEND } else { now ^ flag };
    Ok(ioctl_setflags(&file, next)?)
}

fn special(path: &Path, random: &mut Random) -> io::Result<()> {
    let kind = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice];
    let device = makedev(240 + random.below(2) as u32, random.below(9) as u32);
    Ok(mknodat(CWD, path, kind[random.below(4) as usize], Mode::from_raw_mode(0o640), device)?)
}

/// A store through a shared mapping. Not on tmpfs, which changes no time for it (cfor-log(1), BUGS).
fn mapped(path: &Path, random: &mut Random) -> io::Result<()> {
    const TMPFS: i64 = 0x0102_1994;
    let size = fs::symlink_metadata(path)?.len();
    let (at, len) = (random.below(size), 1 + random.below(6000));
    let value = random.below(256);
    if size < 2 || rustix::fs::statfs(path)?.f_type == TMPFS || writing(path).is_err() {
        return Ok(());
    }
    let map = format!("mmap -rw 0 {size}");
    let store = format!("mwrite -S {value} {at} {}", len.min(size - at));
    run("xfs_io", &["-c", &map, "-c", &store, &path.to_string_lossy()]);
    Ok(())
}

/// Written to after its name is gone.
fn orphan(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = writing(path)?;
    fs::remove_file(path)?;
    file.write_all_at(&bytes(random, 9000), 100)?;
    file.sync_all()
}

/// Three names change places in a circle.
fn cycle(files: &[PathBuf], random: &mut Random) -> io::Result<()> {
    let mut pick = || random.pick(files).cloned().ok_or(io::ErrorKind::NotFound);
    let (a, b, c) = (pick()?, pick()?, pick()?);
    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE)?;
    Ok(renameat_with(CWD, &b, CWD, &c, RenameFlags::EXCHANGE)?)
}

fn wide(dir: &Path, random: &mut Random) -> io::Result<()> {
    let below = dir.join(format!("wide{}", random.below(3)));
    fs::create_dir_all(&below)?;
    (0..120).try_for_each(|at| fill(&below.join(format!("{at}")), &[at; 3]))
}

fn deep(dir: &Path, random: &mut Random) -> io::Result<()> {
    let depth = random.below(12);
    let below = (0..depth).fold(dir.to_owned(), |path, _| path.join("deep"));
    fs::create_dir_all(&below)?;
    fill(&below.join("bottom"), &bytes(random, 5000))
}
