#!/bin/sh
# Makes the good and the simplest bad files of the corpus: sh tests/corpus/make.sh, with dirtymap in PATH.
set -eu
cd "$(dirname "$0")"
map=$(mktemp -u)
dirtymap create --size 1000000 --block 4K "$map"
dirtymap set "$map" 0+1 64K+12K 999999+1
for format in map extents list bitmap-le bitmap-be ddrescue bmap era thin-delta rbd nbdinfo qemu-map qemu-bitmap; do
    mkdir -p "$format"
    rm -f "$format/good"
    dirtymap convert --from map --to "$format" "$map" "$format/good"
    : > "$format/empty"
done
rm "$map"
printf '0 1\n5\n' > list/odd
printf '18446744073709551615 1\n' > list/past
printf '# x\n0x0 ?\n0x0 0x10000 +\n0x20000 0x1 -\n' > ddrescue/gap
printf '0x0 ? 1\n0x0 0xffffffffffffffff ?\n0xffffffffffffffff 0xffffffffffffffff -\n' > ddrescue/past
printf '[{"offset":0,"length":4194304,"exists":"true"},{"offset":8388608,"length":65536,"exists":"false"}]' > rbd/discard
printf '[[[[[[[[[[' > rbd/deep
printf '<bmap version="2.0"><ImageSize>4096</ImageSize><BlockSize>0</BlockSize></bmap>' > bmap/zero
printf '<blocks><range begin="9" end = "3"/></blocks>' > era/backwards
printf '<superblock uuid="" block_size="128" nr_blocks="64" current_era="5"><era_array><era block="3" era="4"/></era_array></superblock>' > era/dump
printf '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "&a;&a;">]><diff>&a;</diff>' > thin-delta/entity
printf '[{"offset":0,"length":-1,"type":1}]' > nbdinfo/negative
printf '[{"start":0,"length":65536,"depth":0,"present":true,"zero":false,"data":true,"offset":0},{"start":1,"length":1,"data":0}]' > qemu-map/overlap
