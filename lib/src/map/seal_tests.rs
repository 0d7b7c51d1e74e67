use super::super::format::Identity;
use super::*;
use crate::base::BlockSize;
use crate::device::FrozenStore;

const OLD: Id = Id([3; 16]);
const NEW: Id = Id([4; 16]);
const BITS: usize = 4096;

fn identity() -> Identity {
    Identity { volume: Id([1; 16]), leg: Id([2; 16]), size: 64 << 16, block: BlockSize::DEFAULT }
}

fn expect(boot: u8, durability: Durability) -> Expect {
    let Identity { volume, leg, .. } = identity();
    Expect { volume, leg, generation: OLD, boot: Id([boot; 16]), durability }
}

fn image(header: &Header) -> Vec<u8> {
    let mut bytes = vec![0; BITS + 8];
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    bytes
}

fn header_of(image: &[u8]) -> Header {
    let bytes = image[..HEADER_LEN].try_into().expect("length");
    Header::decode("m", bytes).expect("a header is never torn")
}

#[test]
fn a_map_is_believed_by_the_rule_only() {
    use Durability::{Power, Process};
    let clean = Header::new(identity(), OLD);
    let used = |boot: u8, durability| Header {
        clean: false,
        boot: if boot == 0 { Id::NONE } else { Id([boot; 16]) },
        durability,
        ..clean.clone()
    };
    let believes = |header: &Header, expect: &Expect| verify(header, expect) == Belief::Believed;
    assert!(believes(&clean, &expect(1, Process)));
    assert!(believes(&used(1, Process), &expect(1, Process)), "same boot");
    assert!(!believes(&used(1, Process), &expect(2, Process)), "another boot");
    assert!(believes(&used(1, Power), &expect(2, Power)), "power");
    assert!(believes(&used(1, Power), &expect(2, Process)), "it was power when it was used");
    assert!(!believes(&used(1, Process), &expect(2, Power)), "it was not power when it was used");
    let nowhere = Expect { boot: Id::NONE, ..expect(1, Process) };
    assert!(!believes(&used(0, Process), &nowhere), "an unknown boot is not the same boot");
    for other in [
        Expect { volume: NEW, ..expect(1, Process) },
        Expect { leg: NEW, ..expect(1, Process) },
        Expect { generation: NEW, ..expect(1, Process) },
        Expect { generation: Id::NONE, ..expect(1, Process) },
    ] {
        assert!(!believes(&clean, &other));
    }
    let between = Header { next: NEW, ..clean };
    assert!(believes(&between, &expect(1, Process)));
    assert!(believes(&between, &Expect { generation: NEW, ..expect(1, Process) }));
}

/// One life of a map: used with a mark, relabelled, marked again, closed. `written` is what the leg lacks,
/// known only to the test; `record` is what the record says.
struct Life {
    store: FrozenStore,
    header: Header,
    written: u8,
    record: Id,
}

impl Life {
    fn run(&mut self, durability: Durability) -> io::Result<()> {
        begin_use(&self.store, &mut self.header, &expect(1, durability))?;
        self.write(1, durability)?;
        prepare_relabel(&self.store, &mut self.header, OLD, NEW)?;
        self.record = NEW;
        self.write(2, durability)?;
        finish_relabel(&self.store, &mut self.header, NEW)?;
        self.write(4, durability)?;
        close_clean(&self.store, &mut self.header)
    }

    /// Marks, syncs where asked, then writes to the leg.
    fn write(&mut self, block: u8, durability: Durability) -> io::Result<()> {
        let mut bits = [0];
        self.store.read_at(BITS as u64, &mut bits)?;
        self.store.write_at(BITS as u64, &[bits[0] | block])?;
        if durability == Durability::Power {
            self.store.sync()?;
        }
        self.written |= block;
        Ok(())
    }
}

#[test]
fn at_every_sync_a_crash_leaves_a_map_that_tells_the_truth_or_is_not_believed() {
    for durability in [Durability::Process, Durability::Power] {
        let mut believed = 0;
        for fail_at in 0.. {
            let header = Header::new(identity(), OLD);
            let store = FrozenStore::new(image(&header), fail_at);
            let mut life = Life { store, header, written: 0, record: OLD };
            let done = life.run(durability).is_ok();
            let lost_power = life.store.after_crash();
            for (boot, images) in [(2, lost_power), (1, vec![life.store.current()])] {
                for image in images {
                    let found = header_of(&image);
                    let expect = Expect { generation: life.record, ..expect(boot, durability) };
                    let truth = image[BITS] & life.written == life.written;
                    match verify(&found, &expect) {
                        Belief::Believed => {
                            believed += 1;
                            assert!(truth, "sync {fail_at}, boot {boot}, {durability:?}: {found:?}");
                        }
                        Belief::NotBelieved(doubt) => {
                            assert_eq!(doubt, Doubt::NotClosed, "sync {fail_at}");
                            assert!(durability == Durability::Process && boot == 2);
                        }
                    }
                }
            }
            if done {
                assert!(life.header.clean && life.written == 7);
                break;
            }
        }
        assert!(believed > 5, "the test reaches believed maps");
    }
}
