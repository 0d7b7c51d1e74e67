#!/bin/sh
# A nightly off-site copy of an image over SSH, with a key that may do nothing else.
#
#     sh examples/offsite.sh
#
# The other machine is an sshd of this script's own on loopback, with its own keys. A night whose copy is killed in
# the middle is made up for by the next one; then the disk is lost, and comes back from there. Everything happens in
# a temporary directory that is removed in the end.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh
need cargo gcc pkg-config openssl.pc sshd ssh-keygen mkfs.ext4 fsck.ext4
PATH=$PATH:/usr/sbin:/sbin

say() { printf '\n== %s\n' "$*"; }
die() { printf 'offsite: %s\n' "$*" >&2; exit 1; }

say "building"
cargo build --release --locked --bin mirror-sync
programs=${CARGO_TARGET_DIR:-$PWD/target}/release
PATH=$programs:$PATH

dir=$(mktemp -d "${TMPDIR:-/tmp}/offsite.XXXXXX")
server=''
clean_up() {
    status=$?
    trap '' EXIT INT TERM
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$dir"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Nothing of the user's own SSH is used or changed.
mkdir -p "$dir/home/.ssh" "$dir/backup"
export HOME="$dir/home" MIRROR_STATE_DIR="$dir/state"
unset SSH_AUTH_SOCK

say "the other machine: an sshd, and one line in authorized_keys"
ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
ssh-keygen -q -t ed25519 -N '' -C nightly -f "$HOME/.ssh/id_ed25519"
printf 'restrict,command="%s --serve --root %s" %s\n' "$programs/mirror-sync" "$dir/backup" \
    "$(cat "$HOME/.ssh/id_ed25519.pub")" >"$dir/authorized_keys"
cat "$dir/authorized_keys"
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
# Somebody else may have a port: another one is taken.
port=$((20000 + $$ % 20000))
for try in 1 2 3 4 5 6 7 8 9 10; do
    port=$((port + 97))
    cat >"$dir/sshd_config" <<CONFIG
Port $port
ListenAddress 127.0.0.1
HostKey $dir/host
AuthorizedKeysFile $dir/authorized_keys
StrictModes no
PidFile none
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv MIRROR_STATE_DIR=$dir/backup-state
CONFIG
    : >"$dir/sshd.log"
    "$(command -v sshd)" -D -e -f "$dir/sshd_config" 2>"$dir/sshd.log" &
    server=$!
    waited=0
    until grep -q "Server listening" "$dir/sshd.log" || ! kill -0 "$server" 2>/dev/null; do
        waited=$((waited + 1))
        [ "$waited" -lt 200 ] || die "sshd does not start: $(cat "$dir/sshd.log")"
        sleep 0.1
    done
    ! kill -0 "$server" 2>/dev/null || break
    server=''
done
[ -n "$server" ] || die "sshd does not start after $try attempts: $(cat "$dir/sshd.log")"
# An alias, as in a real configuration; its key stands in known_hosts under the address that it leads to.
printf 'Host backup\n  HostName 127.0.0.1\n  Port %s\n' "$port" >"$HOME/.ssh/config"
printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$dir/host.pub")" >"$HOME/.ssh/known_hosts"

say "an image of 64 MiB with a file system, and the first copy, read back"
truncate -s 64M "$dir/disk.img" "$dir/backup/disk"
mkfs.ext4 -q "$dir/disk.img"
# Data that does not pack, past the file system's own first blocks.
head -c 24000000 /dev/urandom | dd of="$dir/disk.img" bs=1M seek=36 conv=notrunc status=none
mirror-sync --full --verify "$dir/disk.img" ssh://backup/disk
cmp "$dir/disk.img" "$dir/backup/disk" || die "the copy differs"

# One night: what differs travels.
night() { mirror-sync -q --json --compress zstd "$dir/disk.img" ssh://backup/disk >"$dir/summary"; }
change() { head -c 3000000 /dev/urandom | dd of="$dir/disk.img" bs=1M seek="$1" conv=notrunc status=none; }

say "the next night: 3 MB have changed"
change 40
night
written=$(tr ',{}' '\n' <"$dir/summary" | sed -n 's/^"written": *\([0-9]*\)$/\1/p')
echo "written over there: $written bytes"
[ "$written" -ge 3000000 ] && [ "$written" -le 3400000 ] || die "expected about 3000000 bytes"
cmp "$dir/disk.img" "$dir/backup/disk" || die "the copy differs"

say "a night that is killed in the middle, and the one that makes up for it"
change 45
change 50
mirror-sync -q --bwlimit 4M "$dir/disk.img" ssh://backup/disk &
victim=$!
sleep 1
kill -9 "$victim" 2>/dev/null || true
wait "$victim" 2>/dev/null || true
tries=0
while :; do
    status=0
    night || status=$?
    [ "$status" != 0 ] || break
    # The far end of the killed one may still hold the copy for a moment.
    tries=$((tries + 1))
    [ "$status" = 75 ] && [ "$tries" -lt 100 ] || die "the next night ended with $status"
    sleep 0.1
done
cmp "$dir/disk.img" "$dir/backup/disk" || die "the copy differs"

say "the key opens nothing else"
mirror-sync -q "$dir/disk.img" ssh://backup/../authorized_keys && die "it led out of its directory" || echo "refused with $?"

say "the disk is lost, and comes back"
rm "$dir/disk.img"
truncate -s 64M "$dir/disk.img"
mirror-sync --full --verify ssh://backup/disk "$dir/disk.img"
cmp "$dir/disk.img" "$dir/backup/disk" || die "the restored disk differs"

printf '\nThe off-site copy worked: equal after every night, and after the restore.\n'
