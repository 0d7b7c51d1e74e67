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
