#!/bin/sh
# A tree of files and a standby of it: seeded, kept identical by rounds through a pipe, and safe against kill -9.
#
#     sh examples/tree-standby.sh
#
# Everything happens in a temporary directory that is removed in the end.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh
need cargo gcc pkg-config openssl.pc rsync

say() { printf '\n== %s\n' "$*"; }
die() { printf 'tree-standby: %s\n' "$*" >&2; exit 1; }

say "building"
cargo build --release --locked --bin cfor-log
tree=$PWD
PATH=${CARGO_TARGET_DIR:-$tree/target}/release:$PATH

dir=$(mktemp -d "${TMPDIR:-/tmp}/tree-standby.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$dir/home" "$dir/standby"
cp -a lib man tests "$dir/home"

# One round: what changed goes through the pipe; what the standby has now is remembered. Over a network the
# middle part is: ssh far cfor-log apply --root /srv/home
round() {
    cfor-log dump "$dir/source.log" --root "$dir/home" |
        cfor-log apply --root "$dir/standby" --log "$dir/standby.log" |
        cfor-log ack "$dir/source.log" standby
}

say "seed: everything, and then what changed meanwhile"
cfor-log seed --root "$dir/home" --log "$dir/source.log" --target-log "$dir/standby.log" "$dir/standby"

say "a day's work: renames, hard links, a file that grows"
mv "$dir/home/lib" "$dir/home/library"
ln "$dir/home/man/mirrord.8" "$dir/home/page"
seq 100000 >"$dir/home/numbers"
round
cfor-log show "$dir/source.log" | head -n 8

say "the next round is killed in the middle, and finished by the one after it"
seq 900000 >"$dir/home/numbers"
cfor-log dump "$dir/source.log" --root "$dir/home" -o "$dir/dump"
cfor-log apply "$dir/dump" --root "$dir/standby" --log "$dir/standby.log" &
sleep 0.02
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
cfor-log apply "$dir/dump" --root "$dir/standby" --log "$dir/standby.log" | cfor-log ack "$dir/source.log" standby

say "compare"
cfor-log verify --root "$dir/standby" --against "$dir/home"
left=$(rsync -naHAX --checksum --delete --itemize-changes "$dir/home/" "$dir/standby/")
[ -z "$left" ] || die "rsync finds differences: $left"
cfor-log stat "$dir/source.log" "$dir/standby.log"
