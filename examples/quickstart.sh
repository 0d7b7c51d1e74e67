#!/bin/sh
# A mirrored volume from nothing, an outage of its far leg, and back.
#
#     sh examples/quickstart.sh
#
# Two images; the far one behind a plain nbdkit. A file system on the volume, a real tree on it; the far leg is
# killed, more is written, it comes back, and only what it missed travels. In the end both images are equal.
# As root with FUSE and loop devices the file system is mounted through nbdfuse; otherwise it is made in an image
# and copied onto the volume. Everything happens in a temporary directory that is removed in the end.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh
need cargo gcc pkg-config openssl.pc nbdkit nbdinfo nbdcopy mkfs.ext4 fsck.ext4
PATH=$PATH:/usr/sbin:/sbin

say() { printf '\n== %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

say "building"
cargo build --release --locked
tree=$PWD
PATH=${CARGO_TARGET_DIR:-$tree/target}/release:$PATH
started=$(date +%s)

dir=$(mktemp -d "${TMPDIR:-/tmp}/quickstart.XXXXXX")
export MIRROR_STATE_DIR="$dir/state"
loop='' fuse='' mounted='' far='' daemon=''
clean_up() {
    status=$?
    trap '' EXIT INT TERM
    [ -z "$mounted" ] || umount "$dir/mnt" || true
    [ -z "$loop" ] || losetup -d "$loop" || true
    [ -z "$fuse" ] || fusermount3 -u "$dir/disk" 2>/dev/null || true
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    [ -z "$far" ] || kill "$far" 2>/dev/null || true
    wait
    rm -rf "$dir"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until a command works, ten seconds at most.
until_works() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || die "timed out waiting for: $*"
        sleep 0.1
    done
}

start_far() {
    rm -f "$dir/far.sock"
    nbdkit --foreground --unix "$dir/far.sock" --filter=stats file "$dir/far.img" "statsfile=$dir/stats.$1" &
    far=$!
    until_works nbdinfo --size "nbd+unix:///?socket=$dir/far.sock"
}

# The volume is as large as the checkout asks for, at least 64 MiB.
kib=$(du -sk --exclude=target . | cut -f1)
mib=$((kib * 2 / 1024 + 32))
[ "$mib" -ge 64 ] || mib=64

say "two images of $mib MiB, the far one behind nbdkit, and a mirror over both"
truncate -s "${mib}M" "$dir/near.img" "$dir/far.img"
start_far first
mirrord create demo --size "${mib}M" --leg "near=$dir/near.img" \
    --leg "far=nbd+unix:///?socket=$dir/far.sock" --known-zero
mirrord serve demo --unix "$dir/demo.sock" &
daemon=$!
uri="nbd+unix:///demo?socket=$dir/demo.sock"
until_works nbdinfo --size "$uri"
mirrord wait demo --until synced --timeout 10s

road="ext4 mounted through nbdfuse and a loop device"
if [ "$(id -u)" = 0 ] && [ -w /dev/fuse ] && command -v nbdfuse >/dev/null 2>&1 &&
    losetup -f >/dev/null 2>&1; then
    : >"$dir/disk"
    nbdfuse "$dir/disk" --unix "$dir/demo.sock" &
    fuse=$!
    until_works test -s "$dir/disk"
    if loop=$(losetup -f --show "$dir/disk"); then
        mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$loop"
        mkdir "$dir/mnt"
        if mount "$loop" "$dir/mnt"; then mounted=yes; fi
    else
        loop=''
    fi
fi
if [ -z "$mounted" ]; then
    road="ext4 made in an image and copied with nbdcopy (no root, FUSE or loop device here)"
    [ -z "$fuse" ] || { fusermount3 -u "$dir/disk" || true; fuse=''; }
fi

# Copies a directory onto the volume.
put() {
    if [ -n "$mounted" ]; then
        (cd "$1" && tar --exclude=./target -cf - .) | tar -xf - -C "$dir/mnt"
        sync -f "$dir/mnt"
    else
        mkdir -p "$dir/tree"
        (cd "$1" && tar --exclude=./target -cf - .) | tar -xf - -C "$dir/tree"
        rm -f "$dir/fs.img"
        mkfs.ext4 -q -d "$dir/tree" "$dir/fs.img" "${mib}M"
        nbdcopy --flush "$dir/fs.img" "$uri"
    fi
}

say "copying the checkout onto it ($road)"
put "$tree"
mirrord status demo

say "the far leg dies; more is written"
kill -9 "$far"
wait "$far" 2>/dev/null || true
far=''
mkdir "$dir/more"
head -c 3000000 /dev/urandom >"$dir/more/written-during-the-outage"
put "$dir/more"
if [ -n "$mounted" ]; then
    umount "$dir/mnt"
    mounted=''
    losetup -d "$loop"
    loop=''
    fusermount3 -u "$dir/disk"
    wait "$fuse" 2>/dev/null || true
    fuse=''
fi
mirrord status demo
echo
echo "what the far leg misses, as a client sees it:"
nbdinfo --map=x-mirror:dirty/far "$uri" | tail -n 5

say "the far leg comes back: only what it missed travels"
dirty=$(mirrord status demo --json | tr ',{}[]' '\n' | sed -n 's/^ *"dirty" *: *\([0-9]*\).*/\1/p' | tail -n 1)
start_far second
mirrord wait demo --until synced --timeout 60s
mirrord status demo

say "stop, compare, check"
kill "$daemon"
wait "$daemon"
daemon=''
kill "$far"
wait "$far" 2>/dev/null || true
far=''
# nbdkit prints "write: N ops, T s, 12.34 MiB, …"; two digits tell blocks of 64 KiB apart.
travelled=$(sed -n 's/^write: [^,]*, [^,]*, \([^,]*\),.*/\1/p' "$dir/stats.second")
missed=$(awk -v n="$dirty" 'BEGIN {
    split("KiB MiB GiB TiB", unit); u = 0
    while (n >= 1024 && u < 4) { n /= 1024; u++ }
    if (u == 0) printf "%d bytes", n; else printf "%.2f %s", n, unit[u] }')
cmp "$dir/near.img" "$dir/far.img" || die "the images differ"
fsck.ext4 -fn "$dir/far.img" >"$dir/fsck" 2>&1 || { cat "$dir/fsck"; die "the file system of the far image is damaged"; }

cat <<SUMMARY

The mirror worked.
  volume        $mib MiB, two legs: a file here, and a file behind nbdkit
  road          $road
  far leg       killed, missed $missed ($dirty bytes), came back
  resync        wrote $travelled to it (counted by nbdkit)
  images        equal, byte for byte
  far leg       its file system is clean (fsck.ext4 -fn)
  time          $(($(date +%s) - started)) seconds
SUMMARY
[ "$missed" = "$travelled" ] || die "the resync wrote $travelled, but the map had $missed"
