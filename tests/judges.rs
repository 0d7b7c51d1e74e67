//! Maps judged by the programs whose formats they are translated to and from.

use crate::support::{Dir, Server, Tool, bin, need};
use std::process::Command;

/// A shell script in a test's directory, with `dirtymap` in its PATH; what it prints.
#[track_caller]
fn sh(dir: &Dir, script: &str) -> String {
    sh_ends(dir, 0, script)
}

#[track_caller]
fn sh_ends(dir: &Dir, code: i32, script: &str) -> String {
    let programs = bin("dirtymap").parent().expect("directory").to_str().expect("path").to_owned();
    let path = format!("{programs}:{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let out = Tool::new("sh").args(&["-euc", script]).dir(&dir.path("")).env("PATH", path).run().expect(code);
    out.stdout
}

/// Two maps of 10 MiB, each also as a mapfile whose finished blocks are the dirty ones.
fn two_maps(dir: &Dir) {
    sh(
        dir,
        "
        dirtymap create --size 10M a; dirtymap set a 0+1 1M+192K 3M..5M 9M..10M
        dirtymap create --size 10M b; dirtymap set b 1M+64K 4M+2M 9984K..10M
        for m in a b; do dirtymap convert --from map --to ddrescue --statuses + $m $m.dd; done",
    );
}

#[test]
fn done_ddrescuelog_agrees_on_every_operation_it_has() {
    if !need(&["ddrescuelog"]) {
        return;
    }
    let dir = Dir::new();
    two_maps(&dir);
    let same = |theirs: &str, ours: &str| {
        let back = "dirtymap convert --from ddrescue --to list --statuses + --size 10M theirs";
        let theirs = sh(&dir, &format!("ddrescuelog {theirs} > theirs; {back}"));
        let ours = sh(&dir, &format!("dirtymap {ours} | dirtymap show - --list"));
        assert_eq!(theirs, ours);
        assert!(!ours.is_empty());
    };
    same("--or-mapfile=b.dd a.dd", "or a b");
    same("--and-mapfile=b.dd a.dd", "and a b");
    same("--xor-mapfile=b.dd a.dd", "xor a b");
    same("--invert-mapfile a.dd", "invert a");
    // What is beyond the end is not finished for ddrescuelog, and cut off by --size here.
    let back = "dirtymap convert --from ddrescue --to list --statuses +";
    let theirs = sh(&dir, &format!("ddrescuelog --shift -i 0 -o 1Mi a.dd > theirs; {back} theirs"));
    assert_eq!(theirs, sh(&dir, "dirtymap shift a +1M | dirtymap show - --list"));
    let theirs = sh(&dir, &format!("ddrescuelog --shift -i 1Mi -o 0 b.dd > theirs; {back} theirs"));
    assert_eq!(theirs, sh(&dir, "dirtymap shift b -1M | dirtymap show - --list"));
    // A domain is what both have; completing is what resizing does with what is new.
    let theirs = sh(&dir, "ddrescuelog -b 65536 -l + -m b.dd a.dd");
    assert_eq!(
        theirs,
        sh(
            &dir,
            "dirtymap and a b | dirtymap show - --bitmap | fold -w 1 | grep -n '#' |
        while IFS=: read n x; do echo $((n - 1)); done"
        )
    );
    // Finished, and equal or not.
    sh(&dir, "dirtymap invert a -o done; dirtymap or a done | dirtymap invert - | dirtymap check -
        dirtymap create --size 10M --all all; dirtymap convert --from map --to ddrescue --statuses + all all.dd
        ddrescuelog -D all.dd; ddrescuelog -p a.dd a.dd; dirtymap xor a a | dirtymap check -");
    sh_ends(&dir, 1, "ddrescuelog -D a.dd");
    sh_ends(&dir, 1, "dirtymap invert a | dirtymap check -");
    sh_ends(&dir, 1, "ddrescuelog -q -P b.dd a.dd");
    sh_ends(&dir, 1, "dirtymap xor a b | dirtymap check -");
    let status = sh(&dir, "ddrescuelog -t a.dd | grep rescued:");
    let stat = sh(&dir, "dirtymap stat a --json");
    let stat: serde_json::Value = serde_json::from_str(&stat).expect("json");
    let kilobytes = stat["dirty"].as_u64().expect("bytes") / 1000;
    assert!(status.contains(&format!("{kilobytes} kB")), "{status} {stat}");
    assert!(status.contains(&format!("in {:>6} area(s)", stat["runs"].as_u64().expect("runs"))), "{status}");
}

#[test]
fn done_ddrescuelog_reads_and_writes_the_same_lists_and_bitmaps() {
    if !need(&["ddrescuelog"]) {
        return;
    }
    let dir = Dir::new();
    two_maps(&dir);
    for format in ["bitmap-le", "bitmap-be"] {
        sh(
            &dir,
            &format!(
                "
            ddrescuelog -b 65536 -l + -F {format} a.dd > theirs
            dirtymap convert --from map --to {format} a ours
            cmp ours theirs
            dirtymap convert --from {format} --to map --size 10M theirs back; cmp a back
            ddrescuelog -b 512 -l + -F {format} a.dd > sectors
            dirtymap convert --from {format} --to map --size 10M --unit 512 sectors fine; cmp a fine
            rm back fine ours"
            ),
        );
    }
    let blocks = sh(&dir, "ddrescuelog -b 65536 -l + a.dd");
    let ours = sh(
        &dir,
        "dirtymap show a --list | while read o l; do seq $((o / 65536)) $(((o + l) / 65536 - 1)); done",
    );
    assert_eq!(blocks, ours);
    // What it has not finished is dirty by default, whatever the reason.
    sh(
        &dir,
        "printf '0x0 ?\n0 0x10000 +\n0x10000 0x10000 -\n0x20000 0x10000 */\n' | tr -d / > log
        dirtymap convert --from ddrescue --to list log > list; echo '65536 131072' | cmp - list",
    );
}

#[test]
fn bmaptool_copies_what_is_dirty_and_nothing_else() {
    if !need(&["bmaptool"]) {
        return;
    }
    let dir = Dir::new();
    sh(
        &dir,
        "
        truncate -s 10M image; for at in 1 5; do
            dd if=/dev/urandom of=image bs=1M count=1 seek=$at conv=notrunc status=none; done
        bmaptool -q create -o their.bmap image
        dirtymap convert --from bmap --to list their.bmap > list
        printf '1048576 1048576\n5242880 1048576\n' | cmp - list
        dirtymap create --like image --block 4K map; dirtymap set map 5M+8K
        dirtymap convert --from map --to bmap map our.bmap
        truncate -s 10M copy; bmaptool -q copy --bmap our.bmap image copy
        dd if=image of=expected bs=4K skip=1280 seek=1280 count=2 status=none; truncate -s 10M expected
        cmp copy expected",
    );
}

#[test]
fn a_qemu_bitmap_is_the_same_by_every_way() {
    if !need(&["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    sh(
        &dir,
        "
        qemu-img create -q -f qcow2 disk 16M; qemu-io -c 'write 12M 1M' disk > /dev/null
        qemu-img bitmap --add -g 65536 disk day
        qemu-io -c 'write 1M 4k' -c 'write 5M 200k' disk > /dev/null",
    );
    let socket = dir.path("q.sock");
    let mut command = Command::new("qemu-nbd");
    command.args(["-t", "-r", "-f", "qcow2", "-B", "day", "-k"]).arg(&socket).arg(dir.path("disk"));
    let _server = Server::start_on(&mut command, &dir.path("log"), &socket);
    sh(
        &dir,
        "
        uri='nbd+unix:///?socket=q.sock'
        dirtymap fetch \"$uri\" --context qemu:dirty-bitmap:day -o fetched
        nbdinfo --map=qemu:dirty-bitmap:day --json \"$uri\" > nbdinfo.json
        dirtymap convert --from nbdinfo --to map nbdinfo.json from-nbdinfo
        qemu-img map --output=json --image-opts \
            driver=nbd,server.type=unix,server.path=q.sock,x-dirty-bitmap=qemu:dirty-bitmap:day > qemu.json
        dirtymap convert --from qemu-bitmap --to map qemu.json from-qemu
        cmp fetched from-nbdinfo; cmp fetched from-qemu
        dirtymap show fetched --list > list; printf '1048576 65536\n5242880 262144\n' | cmp - list
        dirtymap fetch \"$uri\" -o allocated
        qemu-img map --output=json -f raw \"nbd+unix:///?socket=q.sock\" > map.json
        dirtymap convert --from qemu-map --to map map.json from-map; cmp allocated from-map
        nbdinfo --map --json \"$uri\" > nbdinfo2.json
        dirtymap convert --from nbdinfo --to map nbdinfo2.json from-nbdinfo2; cmp allocated from-nbdinfo2
        dirtymap check allocated > /dev/null && exit 1 || true",
    );
}

#[test]
fn era_and_thin_tools_are_understood() {
    if !need(&["era_restore", "era_dump", "era_invalidate", "thin_restore", "thin_delta"]) {
        return;
    }
    let dir = Dir::new();
    sh(
        &dir,
        r#"
        { echo '<superblock uuid="" block_size="128" nr_blocks="64" current_era="5"><era_array>'
          for i in $(seq 0 63); do echo "<era block=\"$i\" era=\"$((i / 7 % 5))\"/>"; done
          echo '</era_array></superblock>'; } > era.xml
        truncate -s 4M era.meta; era_restore -i era.xml -o era.meta > /dev/null
        era_invalidate --written-since 3 era.meta > invalidate.xml
        dirtymap convert --from era --to map --size 4M --unit 64K invalidate.xml a
        era_dump era.meta > dump.xml
        dirtymap convert --from era --to map --size 4M --since 3 dump.xml b
        cmp a b; dirtymap show a --list > list
        printf '1376256 917504\n3670016 524288\n' | cmp - list
        dirtymap convert --from map --to era a back.xml; tr -d ' ' < back.xml > x; tr -d ' ' < invalidate.xml | cmp - x
        cat > thin.xml <<END
<superblock uuid="" time="1" transaction="2" flags="0" version="2" data_block_size="128" nr_data_blocks="100">
  <device dev_id="1" mapped_blocks="10" transaction="0" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="10" time="0"/>
  </device>
  <device dev_id="2" mapped_blocks="11" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="3" time="0"/>
    <range_mapping origin_begin="3" data_begin="20" length="2" time="1"/>
    <range_mapping origin_begin="5" data_begin="5" length="3" time="0"/>
    <range_mapping origin_begin="20" data_begin="30" length="3" time="1"/>
  </device>
</superblock>
END
        truncate -s 4M thin.meta; thin_restore -i thin.xml -o thin.meta > /dev/null
        for verbose in "" --verbose; do
            thin_delta $verbose --snap1 1 --snap2 2 thin.meta > delta.xml
            dirtymap convert --from thin-delta --to list --size 1500000 delta.xml > list
            printf '196608 131072\n524288 131072\n1310720 189280\n' | cmp - list
        done"#,
    );
}

/// As `rbd diff --from-snap monday --format json pool/image` prints it (ceph 18, `src/tools/rbd/action/Diff.cc`:
/// an array, "exists" as a string); no ceph here to ask.
#[test]
fn an_rbd_diff_marks_what_was_written_and_what_was_discarded() {
    let dir = Dir::new();
    let diff = r#"[{"offset":0,"length":4194304,"exists":"true"},{"offset":8388608,"length":65536,"exists":"false"}]"#;
    std::fs::write(dir.path("rbd.json"), diff).expect("write");
    let list = sh(&dir, "dirtymap convert --from rbd --to list --size 16M rbd.json");
    assert_eq!(list, "0 4194304\n8388608 65536\n");
}
