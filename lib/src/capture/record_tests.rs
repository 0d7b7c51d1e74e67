use super::*;
use crate::fslog::State;

fn event(mask: u64, names: &[(&[u8], &[u8])], target: Option<&[u8]>) -> Event {
    let names = names.iter().map(|(dir, name)| ((*dir).into(), (*name).into())).collect();
    Event { mask, pid: 1, names, target: target.map(Into::into), raw: None }
}

fn folded(events: &[Event]) -> State {
    let mut state = State::default();
    events.iter().flat_map(|event| records_of(event, false)).for_each(|record| state.add(&record));
    state
}

#[test]
fn an_event_names_what_is_to_be_looked_at() {
    let (dir, other, file) = (&b"dir"[..], &b"other"[..], &b"file"[..]);
    let name = |dir: &[u8], name: &str| (number_of(dir), name.as_bytes().to_vec());
    let state = folded(&[event(libc::FAN_RENAME, &[(dir, b"a"), (other, b"b")], Some(file))]);
    assert_eq!(state.names, [name(dir, "a"), name(other, "b")].into());
    assert!(state.files[&number_of(file)].meta != 0 && state.files[&number_of(file)].why == 0);

    let state = folded(&[event(libc::FAN_MODIFY, &[(dir, b"a")], Some(file))]);
    assert_eq!(state.files[&number_of(file)].why, WRITTEN);
    assert_eq!(state.identities[&number_of(dir)].first().map(|i| i.handle.clone()), Some(dir.to_vec()));

    let state = folded(&[event(libc::FAN_ATTRIB | libc::FAN_ONDIR, &[(dir, b".")], None)]);
    assert!(state.names.is_empty() && state.files.contains_key(&number_of(dir)), "the directory itself");
    assert_eq!(folded(&[event(libc::FAN_Q_OVERFLOW, &[], None)]).lost, [Lost::Overflow].into());
}

#[test]
fn a_live_log_holds_everything_once_and_knows_its_gaps() {
    let dir = tempfile::tempdir().expect("dir");
    let write = |log: &mut Log, name: &[u8]| {
        log.add(&records_of(&event(libc::FAN_CREATE, &[(b"dir", name)], Some(b"file")), false)).expect("add");
    };
    let mut log = Log::open(dir.path(), 3, true).expect("log");
    write(&mut log, b"a");
    let once = log.bytes;
    write(&mut log, b"a");
    assert_eq!(log.bytes, once, "what is known is not written again");
    log.close().expect("close");
    let since = |from, to| super::super::live::since(dir.path(), from, to);
    assert!(since(3, 4).expect_err("it began late").contains("nobody recorded"));
    let mut log = Log::open(dir.path(), 4, false).expect("log");
    write(&mut log, b"b");
    log.close().expect("close");
    assert!(since(4, 5).is_err(), "no log of round 5");
    let mut last = Log::open(dir.path(), 5, false).expect("log");
    assert_eq!(since(4, 5).expect("whole").names.len(), 1);
    write(&mut last, b"c");
    assert_eq!(since(4, 5).expect("a dump that is tried again").names.len(), 2);
    drop(Log::open(dir.path(), 6, false).expect("log"));
    assert!(since(4, 6).expect_err("5 is open").contains("did not close"));
    assert!(since(0, 5).is_err(), "no round");
    // One that died, and was started again.
    Log::open(dir.path(), 6, true).expect("log").close().expect("close");
    assert!(since(6, 6).is_err());
}
