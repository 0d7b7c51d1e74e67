//! What a stream of `btrfs send` says, and what is not believed of one.

use super::*;

/// `btrfs send --no-data -p s1 s2` of Linux 6.18: `d` became `e`, a byte of `e/f` was written at 70000, `g` is one
/// more name of it, and `new` was made and got a flag of chattr(1).
const STREAM: &str = "\
62747266732d73747265616d0001000000460000000200d147c6580f00020073320100100045727ba5950f164d8b3cbe0b96e1c3f30200\
0800090000000000000014001000ed3274445ac7034e9a668688260a0c981500080007000000000000000a0000000900c81151990f0001\
006410000100650c0000000a00c0dc2ebb0f0001006711000300652f661f00000016008bc23c120f000300652f66120008000010010000\
0000000400080000100000000000003700000014000dc00d330f000300652f660b000c000c3f016b00000000455b18190a000c000c3f01\
6b0000000045d0311c09000c000c3f016b0000000045d96e1c180000000300e72f62c60f0008006f3235392d392d300300080003010000\
0000000013000000090001296a3b0f0008006f3235392d392d30100003006e65771f0000001300444a0bac0f0003006e65770600080000\
000000000000000700080000000000000000001300000012008e89aa710f0003006e657705000800a4010000000000003700000014003d\
de91fc0f0003006e65770b000c000c3f016b0000000045ebe81c0a000c000c3f016b0000000045ebe81c09000c000c3f016b0000000045\
f4251d3400000014005be916e50f0000000b000c000c3f016b000000004552db180a000c000c3f016b0000000045ebe81c09000c000c3f\
016b0000000045ebe81c350000001400cad9b9670f000100650b000c000c3f016b000000004552db180a000c000c3f016b00000000455b\
181909000c000c3f016b0000000045d0311c000000001500506cc99d";

fn stream() -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&STREAM[at..at + 2], 16).expect("digits");
    (0..STREAM.len() / 2).map(|at| digit(at * 2)).collect()
}

fn all(bytes: &[u8]) -> Result<Vec<Change>> {
    let mut sent = Sent::new("x", bytes)?;
    let mut changes = Vec::new();
    while let Some(change) = sent.next_change()? {
        changes.push(change);
    }
    Ok(changes)
}

#[test]
fn a_stream_of_the_kernel_is_read() {
    let path = |text: &str| text.as_bytes().to_vec();
    let meta = |text: &str, mask| Change::Meta { path: path(text), mask };
    let orphan = "o259-9-0";
    let expected = [
        Change::Begin { path: path("s2"), parent: true },
        Change::Rename { from: path("d"), to: path("e") },
        Change::Link { path: path("g"), of: path("e/f") },
        Change::Data { path: path("e/f"), range: 69_632..73_728 },
        meta("e/f", differs::TIMES),
        Change::Make { path: path(orphan), kind: Kind::File },
        Change::Rename { from: path(orphan), to: path("new") },
        meta("new", differs::OWNER),
        meta("new", differs::MODE),
        meta("new", differs::TIMES),
        meta("", differs::TIMES),
        meta("e", differs::TIMES),
        Change::End,
    ];
    assert_eq!(all(&stream()).expect("stream"), expected);
}

#[test]
fn a_stream_that_ends_early_or_was_changed_is_damaged() {
    let whole = stream();
    for len in 0..whole.len() {
        assert_eq!(all(&whole[..len]).expect_err("cut").class, Class::Damaged, "{len}");
    }
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x41;
        assert!(all(&bad).is_err(), "byte {at}");
    }
    let mut more = whole;
    more.extend(b"whatever follows its end");
    assert!(all(&more).is_ok());
}

#[test]
fn what_is_not_right_in_itself_is_damaged() {
    let number = |n: u64| n.to_le_bytes();
    let (at, len) = (number(u64::MAX - 1), number(8));
    let bad: &[Raw<'_>] = &[
        (3, &[(15, b"../x")]),
        (3, &[(15, b"/x")]),
        (3, &[(15, b"a//b")]),
        (3, &[(15, b"a\0b")]),
        (3, &[(15, b"")]),
        (3, &[]),
        (3, &[(15, b"x"), (15, b"y")]),
        (3, &[(15, b"x"), (99, b"y")]),
        (3, &[(15, &[b'x'; 256])]),
        (22, &[(15, b"x"), (18, &at), (4, &len)]),
        (22, &[(15, b"x"), (18, &at[..7]), (4, &len)]),
        (77, &[(15, b"x")]),
        (0, &[]),
    ];
    for command in bad {
        let error = all(&encode(1, &[*command, (21, &[])])).expect_err("bad");
        assert_eq!(error.class, Class::Damaged, "{command:?}");
    }
    let mut long = encode(1, &[]);
    long.extend((limits::SENT_COMMAND as u32 + 1).to_le_bytes());
    long.extend([0; 6]);
    assert!(all(&long).expect_err("long").message.contains("a command of"), "refused before it is read");
    let version = encode(4, &[(21, &[])]);
    assert!(all(&version).expect_err("version").message.contains("version 4"));
}

#[test]
fn data_of_later_versions_has_no_length() {
    let at = 4096u64.to_le_bytes();
    let data = vec![7; 70_000];
    let write: Raw<'_> = (15, &[(15, b"f"), (18, &at), (19, &data)]);
    let changes = all(&encode(2, &[write, (21, &[])])).expect("stream");
    assert_eq!(changes[0], Change::Data { path: b"f".to_vec(), range: 4096..74_096 });
}

#[test]
fn a_packed_write_names_the_range_of_the_file_not_of_the_extent() {
    let number = |n: u64| n.to_le_bytes();
    let (at, file, extent, skip) = (number(4096), number(9), number(8192), number(5));
    let write: Raw<'_> = (
        25,
        &[(15, b"f"), (18, &at), (27, &file), (28, &extent), (29, &skip), (30, &[2, 0, 0, 0]), (19, b"z")],
    );
    let bytes = encode(2, &[write, (21, &[])]);
    assert_eq!(all(&bytes).expect("stream")[0], Change::Data { path: b"f".to_vec(), range: 4096..4105 });
    let mut sent = Sent::new("x", &bytes[..]).expect("stream");
    let command = sent.next_command().expect("command").expect("not the end");
    let Command::Unpack { range, packed, skip, .. } = command else { panic!("{command:?}") };
    assert_eq!((range, skip, packed.len, packed.unpacked, packed.method), (4096..4105, 5, 1, 8192, 2));
    assert_eq!(bytes[packed.at as usize], b'z', "its place in the stream");
}
