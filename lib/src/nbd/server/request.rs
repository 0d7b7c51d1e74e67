//! Which requests are legal in a session: a pure table (`proto.md`, "Request types", "Command flags", "Size
//! constraints"; `nbd.md` sections 2.4 and 2.8).

use super::handshake::Session;
use crate::base::limits;
use crate::nbd::wire::{Command, CommandFlags, Errno, Request, TransmissionFlags};

/// Whether a request may be carried out; otherwise the error to answer, *after* its payload
/// ([`payload_len`]) has been drained. DISC is always legal and never answered.
///
/// A request of length zero that is legal is answered with success and without work; only `BLOCK_STATUS`, whose
/// answer holds at least one extent, is then EINVAL (as qemu-nbd does).
pub fn check(req: &Request, session: &Session) -> Result<(), Errno> {
    if req.command == Command::Disc {
        return Ok(());
    }
    check_flags(req, session)?;
    check_command(req.command, session)?;
    if req.command == Command::Flush {
        // Offset and length should be zero, but clients exist that send others.
        return Ok(());
    }
    check_range(req, session)
}

/// Bytes of payload that follow the header of a request, legal or not ("Request message"). With extended headers
/// the flag tells; but a WRITE has a payload even without it: qemu up to 10.0 forgets the flag that MUST be set, and
/// its own server forgives that too. Past [`limits::NBD_DRAIN`] the connection is closed instead ([`drainable`]).
pub fn payload_len(req: &Request, extended: bool) -> u64 {
    let flagged = extended && req.flags.has(CommandFlags::PAYLOAD_LEN);
    if flagged || req.command == Command::Write { req.length } else { 0 }
}

/// Whether the payload of a request that is refused may be read and thrown away, to keep the connection.
pub fn drainable(req: &Request, extended: bool) -> bool {
    payload_len(req, extended) <= u64::from(limits::NBD_DRAIN)
}

/// Unknown flags, flags of another command and flags that were not offered are EINVAL.
fn check_flags(req: &Request, session: &Session) -> Result<(), Errno> {
    let offered = session.info.flags;
    let mut legal = match req.command {
        Command::Read if offered.has(TransmissionFlags::SEND_DF) && session.structured => CommandFlags::DF,
        Command::WriteZeroes if offered.has(TransmissionFlags::SEND_FAST_ZERO) => {
            CommandFlags::NO_HOLE.with(CommandFlags::FAST_ZERO)
        }
        Command::WriteZeroes => CommandFlags::NO_HOLE,
        Command::BlockStatus => CommandFlags::REQ_ONE,
        _ => CommandFlags::NONE,
    };
    if offered.has(TransmissionFlags::SEND_FUA) {
        legal = legal.with(CommandFlags::FUA);
    }
    if session.extended && req.command == Command::Write {
        legal = legal.with(CommandFlags::PAYLOAD_LEN);
    }
    if legal.has(req.flags) { Ok(()) } else { Err(Errno::Inval) }
}

/// Commands that the export does not take. CACHE is a hint that some clients send without being offered it.
fn check_command(command: Command, session: &Session) -> Result<(), Errno> {
    let offered = session.info.flags;
    let read_only = offered.has(TransmissionFlags::READ_ONLY);
    match command {
        Command::Write | Command::Trim | Command::WriteZeroes if read_only => Err(Errno::Perm),
        Command::Trim if !offered.has(TransmissionFlags::SEND_TRIM) => Err(Errno::Inval),
        Command::WriteZeroes if !offered.has(TransmissionFlags::SEND_WRITE_ZEROES) => Err(Errno::Inval),
        Command::Flush if !offered.has(TransmissionFlags::SEND_FLUSH) => Err(Errno::Inval),
        Command::BlockStatus if !session.structured || session.contexts.is_empty() => Err(Errno::Inval),
        Command::Other(_) => Err(Errno::Inval),
        _ => Ok(()),
    }
}

fn check_range(req: &Request, session: &Session) -> Result<(), Errno> {
    let payload = matches!(req.command, Command::Read | Command::Write);
    if payload && req.length > u64::from(session.max_payload()) {
        return Err(Errno::Inval);
    }
    let past = match req.command {
        Command::Write | Command::WriteZeroes => Errno::NoSpc,
        _ => Errno::Inval,
    };
    let end = req.offset.checked_add(req.length).ok_or(past)?;
    if end > session.info.size {
        return Err(past);
    }
    if req.length == 0 {
        return if req.command == Command::BlockStatus { Err(Errno::Inval) } else { Ok(()) };
    }
    // Clients that did not ask for the minimum are held to it too: the specification lets the server choose.
    let min = u64::from(session.info.min_block.max(1));
    let tail = end == session.info.size;
    if req.offset.is_multiple_of(min) && (tail || req.length.is_multiple_of(min)) {
        Ok(())
    } else {
        Err(Errno::Inval)
    }
}

#[cfg(test)]
mod tests {
    use super::super::handshake::ExportInfo;
    use super::*;

    fn session() -> Session {
        let flags = [
            TransmissionFlags::SEND_FLUSH,
            TransmissionFlags::SEND_FUA,
            TransmissionFlags::SEND_TRIM,
            TransmissionFlags::SEND_WRITE_ZEROES,
            TransmissionFlags::SEND_DF,
        ];
        Session {
            export: "v".to_owned(),
            info: ExportInfo {
                size: 1 << 30,
                flags: flags.into_iter().fold(TransmissionFlags::HAS_FLAGS, TransmissionFlags::with),
                description: String::new(),
                min_block: 1,
                preferred_block: 4096,
                max_block: 1 << 20,
            },
            structured: true,
            extended: false,
            contexts: vec![(1, "base:allocation".to_owned())],
            enforce_block: false,
        }
    }

    fn request(command: Command, flags: u16, offset: u64, length: u32) -> Request {
        Request { flags: CommandFlags(flags), command, cookie: 7, offset, length: length.into() }
    }

    const ALL: [Command; 8] = [
        Command::Read,
        Command::Write,
        Command::Disc,
        Command::Flush,
        Command::Trim,
        Command::Cache,
        Command::WriteZeroes,
        Command::BlockStatus,
    ];

    #[test]
    fn s22_fua_is_legal_on_every_command_once_offered_and_on_none_before() {
        let mut session = session();
        for command in ALL {
            assert_eq!(check(&request(command, 1, 0, 4096), &session), Ok(()), "{command:?}");
        }
        session.info.flags = session.info.flags.without(TransmissionFlags::SEND_FUA);
        for command in ALL.into_iter().filter(|c| *c != Command::Disc) {
            assert_eq!(check(&request(command, 1, 0, 4096), &session), Err(Errno::Inval), "{command:?}");
        }
    }

    #[test]
    fn s22_unknown_flags_and_flags_of_other_commands_are_einval() {
        let mut session = session();
        let legal = [(Command::Read, 4), (Command::WriteZeroes, 2), (Command::BlockStatus, 8)];
        for command in ALL.into_iter().filter(|c| *c != Command::Disc) {
            for bit in 1..16 {
                let flag = 1 << bit;
                let expected = if legal.contains(&(command, flag)) { Ok(()) } else { Err(Errno::Inval) };
                assert_eq!(check(&request(command, flag, 0, 512), &session), expected, "{command:?} {bit}");
            }
        }
        assert_eq!(check(&request(Command::Other(99), 0, 0, 0), &session), Err(Errno::Inval));
        session.structured = false;
        assert_eq!(check(&request(Command::Read, 4, 0, 512), &session), Err(Errno::Inval));
        session.info.flags = session.info.flags.with(TransmissionFlags::SEND_FAST_ZERO);
        assert_eq!(check(&request(Command::WriteZeroes, 0x12, 0, 512), &session), Ok(()));
    }

    #[test]
    fn s18_payloads_past_the_limit_are_refused_and_huge_ones_not_even_drained() {
        let mut session = session();
        session.info.size = 1 << 40;
        for (length, legal, drained) in [
            (32 << 20, true, true),
            (33 << 20, false, true),
            (129 << 20, false, false),
            (u32::MAX, false, false),
        ] {
            let write = request(Command::Write, 0, 0, length);
            assert_eq!(check(&write, &session).is_ok(), legal);
            assert_eq!(drainable(&write, false), drained);
            assert_eq!(payload_len(&write, false), u64::from(length));
            assert_eq!(check(&request(Command::WriteZeroes, 0, 0, length), &session), Ok(()));
        }
        session.enforce_block = true;
        assert_eq!(check(&request(Command::Read, 0, 0, (1 << 20) + 1), &session), Err(Errno::Inval));
        assert_eq!(payload_len(&request(Command::Read, 0, 0, 512), false), 0);
    }

    #[test]
    fn s20_ranges_past_the_end_are_refused_without_wrapping() {
        let session = session();
        for (offset, length) in [(1 << 63, 1024), (u64::MAX - 511, 1024), (u64::MAX, 1), ((1 << 30) - 1, 2)] {
            for (command, errno) in [
                (Command::Read, Errno::Inval),
                (Command::Write, Errno::NoSpc),
                (Command::WriteZeroes, Errno::NoSpc),
                (Command::Trim, Errno::Inval),
                (Command::Cache, Errno::Inval),
                (Command::BlockStatus, Errno::Inval),
            ] {
                assert_eq!(check(&request(command, 0, offset, length), &session), Err(errno), "{command:?}");
            }
        }
    }

    #[test]
    fn s14_a_block_status_of_almost_4_gib_does_not_wrap() {
        let mut session = session();
        session.info.size = 1 << 40;
        session.info.min_block = 512;
        assert_eq!(check(&request(Command::BlockStatus, 0, 0, 0xffff_fe00), &session), Ok(()));
        assert_eq!(check(&request(Command::BlockStatus, 0, 0, u32::MAX), &session), Err(Errno::Inval));
        // In 32 bits both end inside the export.
        session.info.size = 6 << 30;
        for offset in [5 << 30, (6 << 30) - 512] {
            let long = request(Command::BlockStatus, 0, offset, 0xffff_fe00);
            assert_eq!(check(&long, &session), Err(Errno::Inval), "{offset}");
        }
        let long = request(Command::BlockStatus, 0, (2 << 30) + 512, 0xffff_fe00);
        assert_eq!(check(&long, &session), Ok(()), "to the last byte");
    }

    #[test]
    fn s21_length_zero_is_legal_except_for_block_status() {
        let session = session();
        for command in ALL {
            let expected = if command == Command::BlockStatus { Err(Errno::Inval) } else { Ok(()) };
            assert_eq!(check(&request(command, 0, 0, 0), &session), expected, "{command:?}");
            assert_eq!(check(&request(command, 0, 1 << 30, 0), &session), expected, "{command:?}");
        }
    }

    #[test]
    fn s31_a_read_only_export_answers_eperm() {
        let mut session = session();
        session.info.flags = TransmissionFlags::HAS_FLAGS.with(TransmissionFlags::READ_ONLY);
        for command in [Command::Write, Command::Trim, Command::WriteZeroes] {
            assert_eq!(check(&request(command, 0, 0, 512), &session), Err(Errno::Perm), "{command:?}");
        }
        assert_eq!(check(&request(Command::Read, 0, 0, 512), &session), Ok(()));
    }

    #[test]
    fn with_extended_headers_the_flag_tells_what_is_payload_and_effects_have_64_bits() {
        let mut session = Session { extended: true, ..session() };
        session.info.size = 1 << 50;
        let long = |command, flags, length| Request {
            flags: CommandFlags(flags),
            command,
            cookie: 7,
            offset: 0,
            length,
        };
        let payload = CommandFlags::PAYLOAD_LEN.0;
        for (command, flags, length, legal, drained) in [
            (Command::Write, payload, 512, Ok(()), 512),
            (Command::Write, payload | 1, 512, Ok(()), 512),
            // As qemu sends it.
            (Command::Write, 0, 512, Ok(()), 512),
            (Command::Write, payload, 33 << 20, Err(Errno::Inval), 33 << 20),
            (Command::Read, payload, 512, Err(Errno::Inval), 512),
            (Command::Read, 0, 1 << 40, Err(Errno::Inval), 0),
            (Command::Flush, payload, 1, Err(Errno::Inval), 1),
            // Its payload form is not offered.
            (Command::BlockStatus, payload, 12, Err(Errno::Inval), 12),
            (Command::BlockStatus, 0, 1 << 50, Ok(()), 0),
            (Command::WriteZeroes, 0, 1 << 50, Ok(()), 0),
            (Command::WriteZeroes, 0, (1 << 50) + 1, Err(Errno::NoSpc), 0),
            (Command::Trim, 0, u64::MAX, Err(Errno::Inval), 0),
        ] {
            let request = long(command, flags, length);
            assert_eq!(check(&request, &session), legal, "{request:?}");
            assert_eq!(payload_len(&request, true), drained, "{request:?}");
            assert_eq!(drainable(&request, true), drained <= u64::from(limits::NBD_DRAIN));
        }
        assert!(!drainable(&long(Command::Read, payload, 1 << 63), true));
    }

    #[test]
    fn s35_flush_with_offset_and_disc_with_junk_are_taken() {
        let session = session();
        assert_eq!(check(&request(Command::Flush, 0, u64::MAX, u32::MAX), &session), Ok(()));
        assert_eq!(check(&request(Command::Disc, 0xffff, u64::MAX, u32::MAX), &session), Ok(()));
    }

    #[test]
    fn s23_block_status_needs_structured_replies_and_a_context() {
        let mut session = session();
        assert_eq!(check(&request(Command::BlockStatus, 0, 0, 512), &session), Ok(()));
        session.structured = false;
        assert_eq!(check(&request(Command::BlockStatus, 0, 0, 512), &session), Err(Errno::Inval));
        session.structured = true;
        session.contexts.clear();
        assert_eq!(check(&request(Command::BlockStatus, 0, 0, 512), &session), Err(Errno::Inval));
    }

    #[test]
    fn a_minimum_block_holds_except_at_the_tail() {
        let mut session = session();
        session.info.min_block = 512;
        session.info.size = 1000;
        for (offset, length, legal) in [
            (0, 512, true),
            (512, 488, true),
            (0, 1000, true),
            (0, 100, false),
            (1, 512, false),
            (511, 489, false),
        ] {
            assert_eq!(check(&request(Command::Write, 0, offset, length), &session).is_ok(), legal);
        }
    }
}
