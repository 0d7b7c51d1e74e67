//! What a stream may say, and what of it is refused.

use super::*;
use crate::base::Id;
use crate::fslog::index::tests::tree;
use crate::fslog::sent::{Raw, encode};
use Kind::{Dir, File, Symlink};

const PARENT: Moment = Moment { uuid: Id([7; 16]), ctransid: 9 };
const B: u64 = limits::CONTENT_BLOCK;

/// `d/f` of three blocks, an empty `e`, a link `l`.
fn base() -> Index {
    let objects = [(1, Dir), (2, Dir), (3, File), (4, Dir), (5, Symlink)];
    let mut base = tree(&objects, &[(1, "d", 2), (2, "f", 3), (1, "e", 4), (1, "l", 5)]);
    let file = base.objects.get_mut(&ObjectId(3)).expect("file");
    file.meta.size = 3 * B - 7;
    (0..3).for_each(|number| file.content.push(number, crate::fslog::Digest([1; 32])));
    base
}

fn n(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// An increment with these commands, followed.
fn follow<'a>(base: &'a Index, commands: &[Raw<'_>]) -> Result<Received<'a>> {
    within(limits::SENT_PIECES, base, commands)
}

fn within<'a>(pieces: usize, base: &'a Index, commands: &[Raw<'_>]) -> Result<Received<'a>> {
    let (nine, ten) = (n(9), n(10));
    let begin: Raw<'_> = (2, &[(15, b"s"), (1, &[8; 16]), (2, &ten), (20, &[7; 16]), (21, &nine)]);
    let all = [&[begin], commands, &[(21, &[])]].concat();
    let stream = encode(1, &all);
    let followed = Received::follow_within(pieces, "x", &stream[..], base, Some(PARENT), || Ok(()))?;
    followed.ok_or_else(|| Error::new(Class::Internal, "held"))
}

#[test]
fn names_move_aside_and_what_has_none_is_gone() {
    let base = base();
    let (mode, uid) = (n(0o4755), n(3));
    let commands: &[Raw<'_>] = &[
        (9, &[(15, b"d"), (16, b"o257-7-0")]),
        (4, &[(15, b"o300-9-0")]),
        (9, &[(15, b"o300-9-0"), (16, b"d")]),
        (9, &[(15, b"o257-7-0/f"), (16, b"d/g")]),
        (10, &[(15, b"h"), (17, b"d/g")]),
        (12, &[(15, b"o257-7-0")]),
        (11, &[(15, b"l")]),
        (18, &[(15, b"h"), (5, &mode)]),
        (19, &[(15, b""), (6, &uid), (7, &uid)]),
        (13, &[(15, b"d/g"), (13, b"btrfs.compression"), (14, b"zstd")]),
        (13, &[(15, b"d/g"), (13, b"system.posix_acl_access"), (14, b"\x02\0\0\0")]),
        (13, &[(15, b"d/g"), (13, b"user.x"), (14, b"y")]),
    ];
    let received = follow(&base, commands).expect("followed");
    let index = &received.index;
    index.check("x").expect("a tree");
    assert_eq!((find(index, b"d/g"), find(index, b"h")), (Some(ObjectId(3)), Some(ObjectId(3))));
    assert!(!index.objects.contains_key(&ObjectId(2)) && !index.objects.contains_key(&ObjectId(5)));
    let file = &index.objects[&ObjectId(3)].meta;
    assert_eq!((file.mode, file.size), (0o4755, 3 * B - 7));
    assert_eq!(file.xattrs.keys().collect::<Vec<_>>(), [b"user.x"], "and none that only btrfs has");
    assert_eq!(index.objects[&ObjectId::ROOT].meta.uid, 3);
    assert!(received.files.is_empty());
}

#[test]
fn clones_take_the_bytes_as_they_are_at_that_point() {
    let base = base();
    let (zero, block, ten, nine) = (n(0), n(B), n(10), n(9));
    let clone_from_parent: Raw<'_> = (
        16,
        &[(15, b"new"), (18, &block), (24, &block), (20, &[7; 16]), (21, &nine), (22, b"d/f"), (23, &block)],
    );
    let clone_from_self: Raw<'_> = (
        16,
        &[(15, b"new"), (18, &zero), (24, &block), (20, &[8; 16]), (21, &ten), (22, b"g"), (23, &block)],
    );
    let commands: &[Raw<'_>] = &[
        (9, &[(15, b"d/f"), (16, b"g")]),
        (15, &[(15, b"g"), (18, &block), (19, b"other")]),
        (3, &[(15, b"new")]),
        clone_from_self,
        clone_from_parent,
    ];
    let received = follow(&base, commands).expect("followed");
    let new = find(&received.index, b"new").expect("new");
    let pieces = received.files[&new].clone_within(&(0..2 * B));
    let file = ObjectId(3);
    assert!(matches!(pieces[0], (Range { start: 0, end: 5 }, Source::Stream(_))), "{pieces:?}");
    assert_eq!(pieces[1..], [(5..B, Source::Base(file, B + 5)), (B..2 * B, Source::Base(file, B))]);
    assert_eq!(received.index.objects[&new].meta.size, 2 * B);
}

#[test]
fn what_the_kernel_would_not_do_is_refused() {
    let base = base();
    let (zero, far, huge, nine) = (n(0), n(3 * B), n(u64::MAX - 9), n(9));
    let clone = |uuid: &'static [u8], from: &'static [u8]| -> Vec<(u16, &[u8])> {
        vec![(15, b"d/f"), (18, &zero), (24, &far), (20, uuid), (21, &nine), (22, from), (23, &zero)]
    };
    let (past, other, nowhere) = (clone(&[7; 16], b"d/f"), clone(&[6; 16], b"d/f"), clone(&[7; 16], b"d/g"));
    let table: &[(Raw<'_>, &str)] = &[
        ((3, &[(15, b"d")]), "it is there already"),
        ((3, &[(15, b"x/y")]), "it is not there"),
        ((3, &[(15, b"d/f/y")]), "it is no directory"),
        ((3, &[(15, b"l/y")]), "it is no directory"),
        ((3, &[(15, b"../y")]), "leads elsewhere"),
        ((9, &[(15, b"d"), (16, b"e")]), "it is there already"),
        ((9, &[(15, b"d"), (16, b"d/x")]), "beneath itself"),
        ((9, &[(15, b"x"), (16, b"y")]), "it is not there"),
        ((10, &[(15, b"x"), (17, b"d")]), "a second name of a directory"),
        ((11, &[(15, b"e")]), "it is a directory"),
        ((12, &[(15, b"d")]), "it is no empty directory"),
        ((12, &[(15, b"d/f")]), "it is no empty directory"),
        ((15, &[(15, b"d"), (18, &zero), (19, b"x")]), "it is no file"),
        ((15, &[(15, b"l"), (18, &zero), (19, b"x")]), "it is no file"),
        ((15, &[(15, b"d/f"), (18, &huge), (19, b"x")]), "larger than any"),
        ((15, &[(15, b"d/f"), (18, &huge), (19, b"0123456789")]), "past the end of all files"),
        ((17, &[(15, b"d/f"), (4, &huge)]), "larger than any"),
        ((18, &[(15, b"l"), (5, &zero)]), "permissions of a symbolic link"),
        ((13, &[(15, b"d/f"), (13, b""), (14, b"y")]), "without a name"),
        ((22, &[(15, b"d/f"), (18, &zero), (4, &nine)]), "--no-data"),
        ((2, &[(15, b"s"), (1, &[8; 16]), (2, &nine), (20, &[7; 16]), (21, &nine)]), "begins twice"),
        ((16, &past), "it is cloned up to"),
        ((16, &other), "which this standby does not have"),
        ((16, &nowhere), "it is not in the parent"),
    ];
    for (command, why) in table {
        let error = follow(&base, &[*command]).expect_err(why);
        assert_eq!(error.class, Class::Damaged, "{error}");
        assert!(error.message.contains(why), "{why}: {error}");
    }
}

#[test]
fn clones_onto_themselves_do_not_take_any_amount_of_memory() {
    let base = base();
    let (ten, zero) = (n(10), n(0));
    let powers: Vec<_> = (0..45).map(|power| n(1 << power)).collect();
    let doubled: Vec<Vec<(u16, &[u8])>> = powers
        .iter()
        .map(|at| {
            let of: [(u16, &[u8]); 2] = [(20, &[8; 16]), (21, &ten)];
            let to: [(u16, &[u8]); 3] = [(15, b"e/x"), (18, at), (24, at)];
            [&to[..], &of, &[(22, b"e/x"), (23, &zero)]].concat()
        })
        .collect();
    let byte: &[(u16, &[u8])] = &[(15, b"e/x"), (18, &zero), (19, b"x")];
    let mut all: Vec<Raw<'_>> = vec![(3, &[(15, b"e/x")]), (15, byte)];
    all.extend(doubled.iter().map(|attributes| (16, &attributes[..])));
    let error = within(10_000, &base, &all).expect_err("too many");
    assert!(error.message.contains("too many pieces"), "{error}");
    // Writes of any number are the stream's own.
    let offsets: Vec<_> = (0..100).map(|at| n(2 * at)).collect();
    let writes: Vec<[(u16, &[u8]); 3]> =
        offsets.iter().map(|at| [(15, &b"d/f"[..]), (18, &at[..]), (19, b"x")]).collect();
    let writes: Vec<Raw<'_>> = writes.iter().map(|attributes| (15, &attributes[..])).collect();
    within(0, &base, &writes).expect("a hundred writes");
}

#[test]
fn a_snapshot_is_known_by_uuid_and_transaction() {
    let base = base();
    let other = |uuid, ctransid| Moment { uuid: Id([uuid; 16]), ctransid };
    let empty = Index::empty(Id([1; 16]));
    let (some, none) = (Some(PARENT), None);
    for (base, held, parent, fits) in [
        (&base, some, some, true),
        (&base, some, Some(other(7, 8)), false),
        (&base, some, Some(other(6, 9)), false),
        (&base, some, none, false),
        (&base, none, some, false),
        (&base, none, none, false),
        (&empty, none, none, true),
        (&empty, none, some, false),
    ] {
        let checked = check_parent("x", base, held, parent);
        assert_eq!(checked.is_ok(), fits, "{held:?} {parent:?}");
    }
}
