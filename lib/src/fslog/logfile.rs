//! A log file: a header and frames that are appended, one for each record. It has no digest at its end, because it
//! has no end: a torn tail is found by the checksum of its frame and cut, and then a scan is owed.

use super::frame::{FRAME_HEAD, HEADER_LEN, Header, Magic, Round, frame_ends};
use super::record::{Lost, Record};
use super::state::State;
use crate::base::{Class, Error, Id, Result, limits};
use crate::device::durable::{Draft, replace};
use crate::device::fields::get_u32;
use crate::device::lock::open_locked;
use std::io::Write;
use std::path::Path;

/// What a log file holds.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its header.
    pub header: Header,
    /// Its records, folded up.
    pub state: State,
    /// How many generations it has, open or closed.
    pub generations: u64,
    /// How many records.
    pub records: u64,
    /// The generation that is open: its recorder runs, or died.
    pub open: Option<u64>,
    /// Bytes at its end that are no whole record.
    pub torn: u64,
}

/// Reads a log from its bytes. Fails only if its header is damaged; everything behind is believed up to the first
/// bad frame, and what is missing is [`Lost`] in the state.
pub fn decode(object: &str, bytes: &[u8]) -> Result<Log> {
    let Some((header, mut rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(Magic::Log.cut(object, bytes));
    };
    let header = Header::decode(object, Magic::Log, header)?;
    let mut log = Log { header, state: State::default(), generations: 0, records: 0, open: None, torn: 0 };
    while !rest.is_empty() {
        let Some((kind, payload, more)) = next(rest) else { break };
        let Ok(record) = Record::unpack(object, kind, payload) else { break };
        match record {
            Record::Open { generation } => {
                // One that died before left the last generation open: what came after it is not known.
                if log.open.replace(generation).is_some() {
                    log.state.add(&Record::Lost { why: Lost::NotClosed });
                }
                log.generations += 1;
            }
            Record::Close { .. } => log.open = None,
            _ => log.state.add(&record),
        }
        log.records += 1;
        rest = more;
    }
    log.torn = rest.len() as u64;
    if log.torn > 0 {
        log.state.add(&Record::Lost { why: Lost::Torn });
    }
    Ok(log)
}

/// The next whole frame: kind, payload, and what follows.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let head = bytes.get(..FRAME_HEAD)?;
    let len = get_u32(head, 0) as usize;
    if len > limits::FSLOG_FRAME {
        return None;
    }
    let payload = bytes.get(FRAME_HEAD..FRAME_HEAD + len)?;
    let crc = bytes.get(FRAME_HEAD + len..FRAME_HEAD + len + 4)?;
    let (expected_head, expected_crc) = frame_ends(head[4], &[payload]);
    (head == expected_head && crc == expected_crc).then_some((
        head[4],
        payload,
        &bytes[FRAME_HEAD + len + 4..],
    ))
}

/// The bytes of records.
pub fn encode(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let (kind, pack) = record.pack();
        let (head, crc) = frame_ends(kind, &[&pack.0]);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&pack.0);
        bytes.extend_from_slice(&crc);
    }
    bytes
}

/// The records of bytes that [`encode`] made, all of them. Errors: class `Damaged`.
pub fn records(object: &str, mut bytes: &[u8]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let damaged = || Error::new(Class::Damaged, format!("{object}: reading records: a frame is damaged"));
        let (kind, payload, rest) = next(bytes).ok_or_else(damaged)?;
        records.push(Record::unpack(object, kind, payload)?);
        bytes = rest;
    }
    Ok(records)
}

/// Reads a log file. A generation that is still open is not held against it.
pub fn read(path: &Path) -> Result<Log> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path.display(), "reading it", e))?;
    decode(&path.display().to_string(), &bytes)
}

/// The header of a new log of a tree.
pub const fn header(tree: Id, base: Round) -> Header {
    Header { magic: Magic::Log, options: 0, tree, base, round: 0, time: 0 }
}

/// The bytes of a log with one generation, closed or left open.
pub fn whole(header: &Header, generation: u64, state: &State, closed: bool) -> Vec<u8> {
    let mut records = vec![Record::Open { generation }];
    records.extend(state.records());
    if closed {
        records.extend([Record::Barrier { generation }, Record::Close { generation }]);
    }
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&encode(&records));
    bytes
}

/// Joins logs into one. Errors: class `Damaged` if they are of different trees.
pub fn merge(logs: &[(String, Log)]) -> Result<(Header, State)> {
    let Some((first_name, first)) = logs.first() else {
        return Err(Error::new(Class::Usage, "merging logs: none is given"));
    };
    let mut state = State::default();
    for (name, log) in logs {
        if log.header.tree != first.header.tree {
            let (a, b) = (first.header.tree, log.header.tree);
            return Err(Error::new(
                Class::Damaged,
                format!("{name}: merging it: it is a log of tree {b}, {first_name} is one of tree {a}"),
            ));
        }
        state.join(&log.state);
    }
    let oldest = logs.iter().map(|(_, log)| log.header).min_by_key(|header| header.base.number);
    let newest = logs.iter().map(|(_, log)| log.header.round).max().unwrap_or_default();
    let header = Header { round: newest, ..oldest.unwrap_or(first.header) };
    Ok((header, state))
}

/// Takes the records of a log out, and begins its next generation.
///
/// 1. The log is locked (class `Busy` while a recorder holds it).
/// 2. Its state is written to `out`, closed, and synced.
/// 3. The log is replaced by one that has the next generation open, with the live mappings of the old one.
///
/// Recovery: (a) after a crash before 3 the log is as it was, and `out` a copy: rotating again, or merging both,
/// gives the same state; (b) afterwards both are there.
pub fn rotate(path: &Path, out: &Path) -> Result<Log> {
    let held = open_locked(path, true)?;
    let log = read(path)?;
    let generation = log.open.unwrap_or(log.generations);
    let draft = Draft::new(out)?;
    let mut state = log.state.clone();
    if log.open.is_some() && !log.state.is_clean() {
        state.add(&Record::Lost { why: Lost::NotClosed });
    }
    let write = |mut file: &std::fs::File| file.write_all(&whole(&log.header, generation, &state, true));
    write(draft.file()).map_err(|e| Error::io(out.display(), "writing it", e))?;
    draft.publish(false)?;
    let mut next = log.state.inherited();
    next.lost.clear();
    replace(path, &whole(&log.header, generation + 1, &next, false))?;
    drop(held);
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fslog::ObjectId;

    fn head() -> Header {
        header(Id([3; 16]), Round::default())
    }

    fn data(start: u64) -> Record {
        Record::Data { id: ObjectId(2), range: start..start + 5 }
    }

    #[test]
    fn a_torn_tail_is_cut_and_a_scan_is_owed() {
        let mut bytes = head().encode().to_vec();
        bytes.extend(encode(&[Record::Open { generation: 1 }, data(0)]));
        let whole = bytes.len();
        bytes.extend(encode(&[data(100)]));
        for cut in whole + 1..bytes.len() {
            let log = decode("x", &bytes[..cut]).expect("log");
            assert_eq!((log.records, log.torn, log.open), (2, (cut - whole) as u64, Some(1)));
            assert!(log.state.lost.contains(&Lost::Torn));
        }
        let log = decode("x", &bytes[..whole]).expect("log");
        assert_eq!((log.torn, log.state.lost.len()), (0, 0));
        for at in whole..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode("x", &bad).expect("log").state.lost.contains(&Lost::Torn), "byte {at}");
        }
        assert_eq!(decode("x", &bytes[..100]).expect_err("no header").class, Class::Damaged);
    }

    #[test]
    fn a_generation_that_was_never_closed_owes_a_scan() {
        let mut bytes = head().encode().to_vec();
        let generation = |generation| [Record::Open { generation }, data(generation)];
        bytes.extend(encode(&generation(1)));
        assert!(decode("x", &bytes).expect("log").state.lost.is_empty(), "it may still be recorded");
        bytes.extend(encode(&generation(2)));
        assert!(decode("x", &bytes).expect("log").state.lost.contains(&Lost::NotClosed));
    }

    #[test]
    fn logs_of_different_trees_do_not_merge() {
        let log = |tree| {
            let bytes = whole(&header(Id([tree; 16]), Round::default()), 1, &State::default(), true);
            (format!("log{tree}"), decode("x", &bytes).expect("log"))
        };
        merge(&[log(1), log(1)]).expect("the same tree");
        let error = merge(&[log(1), log(2)]).expect_err("another tree");
        assert!(error.message.contains("0101") && error.message.contains("0202"), "{error}");
    }

    #[test]
    fn rotating_loses_nothing_and_repeats_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, out) = (dir.path().join("log"), dir.path().join("out"));
        let mut state = State::default();
        state.add(&data(0));
        std::fs::write(&path, whole(&head(), 4, &state, true)).expect("write");
        rotate(&path, &out).expect("rotate");
        assert_eq!(read(&out).expect("out").state, state);
        let log = read(&path).expect("log");
        assert!(log.state.is_clean() && log.open.is_some());
        let error = rotate(&path, &out).expect_err("exists");
        assert_eq!(error.class, Class::Refused, "{error}");
    }
}
