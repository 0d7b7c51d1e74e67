use super::*;
use crate::base::BlockSize;

const GENERATION: Id = Id([3; 16]);

fn identity() -> Identity {
    let size = 1000 * 65536 + 5;
    Identity { volume: Id([1; 16]), leg: Id([2; 16]), size, block: BlockSize::DEFAULT }
}

fn expect(boot: u8) -> Expect {
    let (Identity { volume, leg, .. }, boot) = (identity(), Id([boot; 16]));
    Expect { volume, leg, generation: GENERATION, boot, durability: Durability::Process }
}

fn create(dir: &tempfile::TempDir, fill: Fill) -> MapFile {
    MapFile::create(&dir.path().join("m"), &identity(), GENERATION, fill).expect("create")
}

#[test]
fn marks_survive_the_death_of_the_process_and_a_reboot_makes_all_dirty() {
    let dir = tempfile::tempdir().expect("dir");
    let mut map = create(&dir, Fill::Clear);
    let path = map.path().to_owned();
    assert_eq!(map.begin_use(&expect(1)).expect("begin"), Belief::Believed);
    map.mark(7..8);
    map.mark(60..130);
    map.mark(1000..1001);
    map.clear(100..101);
    map.clear(0..0);
    let marked = map.load();
    assert_eq!(marked.count(), 71);
    drop(map);
    let mut map = MapFile::open(&path).expect("open");
    let (set, belief, widened) = map.load_believed(&expect(1));
    assert_eq!((set, belief, widened), (marked.clone(), Belief::Believed, 0));
    let (set, belief, widened) = map.load_believed(&expect(2));
    assert!(set.is_full() && belief == Belief::NotBelieved(Doubt::NotClosed));
    let identity = identity();
    assert_eq!(widened, identity.size - marked.bytes(identity.size, identity.block));
    map.begin_use(&expect(2)).expect("begin");
    assert!(map.load().is_full(), "what is not believed is all dirty before it is used");
    map.close_clean().expect("close");
    let (header, set) = MapFile::read(&path).expect("read");
    assert!(header.clean && set.is_full());
}

#[test]
fn a_closed_map_is_believed_in_any_boot_with_its_exact_bits() {
    let dir = tempfile::tempdir().expect("dir");
    let mut map = create(&dir, Fill::Dirty);
    assert!(map.load().is_full());
    map.begin_use(&expect(1)).expect("begin");
    let mut set = BlockSet::new(identity().blocks());
    set.insert_range(900..1001);
    map.clear(0..900);
    map.syncer().expect("syncer").sync().expect("sync");
    let path = map.path().to_owned();
    map.close_clean().expect("close");
    let map = MapFile::open(&path).expect("open");
    assert_eq!(map.load_believed(&expect(9)), (set, Belief::Believed, 0));
}

#[test]
fn a_map_in_use_is_busy_and_an_existing_one_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("dir");
    let map = create(&dir, Fill::Clear);
    assert_eq!(MapFile::open(map.path()).expect_err("second").class, Class::Busy);
    assert_eq!(MapFile::read(map.path()).expect_err("reader").class, Class::Busy);
    let again = MapFile::create(map.path(), &identity(), GENERATION, Fill::Clear);
    assert_eq!(again.expect_err("exists").class, Class::Refused);
}

#[test]
fn the_map_of_another_leg_is_left_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let mut map = create(&dir, Fill::Clear);
    let other = Expect { leg: Id([9; 16]), ..expect(1) };
    assert_eq!(map.begin_use(&other).expect_err("leg").class, Class::Damaged);
    assert!(map.load().is_empty() && map.header().clean);
}

#[test]
fn damaged_and_short_files_are_refused_with_both_values() {
    let dir = tempfile::tempdir().expect("dir");
    let path = create(&dir, Fill::Clear).path().to_owned();
    let good = std::fs::read(&path).expect("read");
    assert_eq!(good.len() as u64, identity().file_len());
    for len in [0, 100, 512, 4096, good.len() - 1] {
        std::fs::write(&path, &good[..len]).expect("write");
        let error = MapFile::open(&path).expect_err("short");
        assert!(error.class == Class::Damaged && error.message.contains(&format!("{len} bytes")), "{error}");
    }
    std::fs::write(&path, vec![0; good.len()]).expect("write");
    assert_eq!(MapFile::open(&path).expect_err("zeroes").class, Class::Damaged);
}

#[test]
fn after_a_failed_sync_nothing_is_believed_until_every_bit_is_written_again() {
    let dir = tempfile::tempdir().expect("dir");
    let mut map = create(&dir, Fill::Clear);
    map.begin_use(&expect(1)).expect("begin");
    map.mark(3..4);
    let syncer = map.syncer().expect("syncer");
    map.seal.store.failed.store(true, Ordering::Release);
    assert!(syncer.sync().is_err() && map.sync().is_err() && syncer.sync().is_err());
    assert!(map.prepare_relabel(GENERATION, Id([4; 16])).is_err());
    let set = map.load();
    map.rewrite(&set).expect("rewrite");
    syncer.sync().expect("sync");
    assert_eq!(map.load(), set);
    map.close_clean().expect("close");
}

#[test]
fn a_relabelled_map_is_believed_before_and_after_the_record_changes() {
    let dir = tempfile::tempdir().expect("dir");
    let mut map = create(&dir, Fill::Clear);
    let next = Expect { generation: Id([4; 16]), ..expect(1) };
    map.prepare_relabel(GENERATION, next.generation).expect("prepare");
    assert_eq!((map.verify(&expect(1)), map.verify(&next)), (Belief::Believed, Belief::Believed));
    map.finish_relabel(next.generation).expect("finish");
    assert!(matches!(map.verify(&expect(1)), Belief::NotBelieved(Doubt::Generation { .. })));
    assert_eq!(map.verify(&next), Belief::Believed);
}
