use super::*;

/// A record as the kernel lays it out.
fn info(kind: u8, handle: &[u8], name: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![9; 8];
    body.extend((handle.len() as u32).to_le_bytes());
    body.extend(1i32.to_le_bytes());
    body.extend(handle);
    if let Some(name) = name {
        body.extend(name);
        body.push(0);
    }
    body.resize(body.len().next_multiple_of(4), 0);
    let mut info = vec![kind, 0];
    info.extend((body.len() as u16 + 4).to_le_bytes());
    info.extend(body);
    info
}

fn event(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
    let infos = infos.concat();
    let mut event = (EVENT_HEAD as u32 + infos.len() as u32).to_le_bytes().to_vec();
    event.extend([libc::FANOTIFY_METADATA_VERSION, 0, EVENT_HEAD as u8, 0]);
    event.extend(mask.to_le_bytes());
    event.extend((-1i32).to_le_bytes());
    event.extend(77i32.to_le_bytes());
    event.extend(infos);
    event
}

fn identity(handle: &[u8]) -> Box<[u8]> {
    [&1i32.to_le_bytes(), handle].concat().into()
}

fn samples() -> Vec<u8> {
    let create = [info(2, b"dirdirdi", Some(b"name")), info(1, b"filefile", None)];
    let rename =
        [info(10, b"olddir_1", Some(b"a")), info(12, b"newdir_2", Some(b"b")), info(1, b"filefile", None)];
    [
        event(libc::FAN_CREATE | libc::FAN_MODIFY, &create),
        event(libc::FAN_RENAME, &rename),
        event(libc::FAN_Q_OVERFLOW, &[]),
    ]
    .concat()
}

#[test]
fn events_are_read_as_the_kernel_lays_them_out() {
    let events = parse(&samples()).expect("events");
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].names, [(identity(b"dirdirdi"), b"name"[..].into())]);
    assert_eq!((events[0].pid, events[0].target.clone()), (77, Some(identity(b"filefile"))));
    assert!(events[0].is_write() && !events[0].is_dir() && !events[0].is_overflow());
    let names = [(identity(b"olddir_1"), b"a"[..].into()), (identity(b"newdir_2"), b"b"[..].into())];
    assert_eq!(events[1].names, names);
    assert!(events[2].is_overflow() && events[2].names.is_empty());
}

#[test]
fn no_length_is_believed() {
    let whole = samples();
    for cut in 1..whole.len() {
        // Whole events before the cut, or an error: never a panic, never bytes from beyond.
        if let Ok(events) = parse(&whole[..cut]) {
            assert!(events.len() < 3);
        }
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = whole.clone();
            bad[at] = value;
            let _ = parse(&bad);
        }
    }
}
