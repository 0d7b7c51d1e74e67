#!/bin/sh
# The test command: installs what is missing, builds, tests, and lists what was skipped.
#
#     sh tests/all.sh
#
# After one run with a network it works without. MIRROR_SKIP="fuse loop …" names what may be missing;
# MIRROR_CHECK=1 (or CI) also checks formatting and lints.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh
need cargo gcc pkg-config nbdkit nbdinfo nbdcopy nbdsh nbdfuse python3-libnbd qemu-img qemu-io qemu-nbd \
    qemu-storage-daemon mkfs.ext4 fsck.ext4 fio nbd-server fusermount3 losetup ddrescuelog bmaptool \
    era_restore thin_restore mkfs.xfs mkfs.btrfs xfs_io rsync setfacl setfattr strace tar sqlite3 git \
    stress-ng perl fsfreeze systemd-analyze systemd-socket-activate promtool openssl.pc sshd ssh ssh-keygen ssh-agent \
    flock addpart mkswap swapon script

# Without a network what an earlier run fetched is used.
cargo fetch --locked || export CARGO_NET_OFFLINE=true
cargo build --release --locked
# The checks of style depend on the version of their tools: for those who change the code.
if [ -n "${CI-}${MIRROR_CHECK-}" ]; then
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
fi

skipped=$(mktemp)
trap 'rm -f "$skipped"' EXIT
status=0
MIRROR_SKIPPED=$skipped cargo test --workspace --locked --all-features --no-fail-fast || status=$?
if [ -s "$skipped" ]; then
    echo
    sort -u "$skipped"
fi
exit "$status"
