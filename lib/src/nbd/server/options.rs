//! The answer to each option (`proto.md`, "Option types"; the table of `nbd.md` section 2.2).

use super::handshake::{ExportInfo, Exports, Handshake, Progress, Session};
use crate::base::limits;
use crate::nbd::fields::Fields;
use crate::nbd::text;
use crate::nbd::wire::{self, TransmissionFlags, info, option, reply};

/// Answers an option whose data is complete.
pub(super) fn answer(
    shake: &mut Handshake,
    option: u32,
    data: &[u8],
    exports: &dyn Exports,
    out: &mut Vec<u8>,
) -> Progress {
    match option {
        option::EXPORT_NAME => export_name(shake, data, exports, out),
        option::ABORT => {
            put_reply(out, option, reply::ACK, &[]);
            Progress::Close
        }
        // Asked only where it is offered.
        option::STARTTLS => {
            put_reply(out, option, reply::ACK, &[]);
            shake.secure();
            Progress::StartTls
        }
        option::LIST => {
            for name in exports.list() {
                let mut server = Vec::with_capacity(4 + name.len());
                wire::put_counted(&mut server, name.as_bytes());
                put_reply(out, option, reply::SERVER, &server);
            }
            put_reply(out, option, reply::ACK, &[]);
            Progress::More
        }
        option::STRUCTURED_REPLY if shake.extended => {
            refuse(out, option, reply::ERR_EXT_HEADER_REQD, "extended headers were negotiated")
        }
        option::EXTENDED_HEADERS if shake.extended => {
            refuse(out, option, reply::ERR_INVALID, "extended headers were negotiated before")
        }
        option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => {
            shake.extended |= option == option::EXTENDED_HEADERS;
            shake.structured = true;
            put_reply(out, option, reply::ACK, &[]);
            Progress::More
        }
        option::INFO | option::GO => info_or_go(shake, option, data, exports, out),
        option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
            meta_context(shake, option, data, exports, out)
        }
        _ => refuse(out, option, reply::ERR_UNSUP, "the option is not known"),
    }
}

/// Answers with an error; the connection stays.
pub(super) fn refuse(out: &mut Vec<u8>, option: u32, kind: u32, message: &str) -> Progress {
    put_reply(out, option, kind, text::cut(message, limits::NBD_STRING).as_bytes());
    Progress::More
}

fn put_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&wire::MAGIC_OPTION_REPLY.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    wire::put_counted(out, data);
}

fn unknown(out: &mut Vec<u8>, option: u32, name: &str) -> Progress {
    refuse(out, option, reply::ERR_UNKNOWN, &format!("export '{}' is not known", text::shown(name)))
}

/// `EXPORT_NAME` cannot be refused but by closing, and its answer has no header.
fn export_name(shake: &mut Handshake, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Progress {
    let Some((name, export)) = text::string(data).and_then(|name| Some((name, exports.find(name)?))) else {
        return Progress::Close;
    };
    let session = open(shake, name, export, false);
    out.extend_from_slice(&session.info.size.to_be_bytes());
    out.extend_from_slice(&session.info.flags.0.to_be_bytes());
    if !shake.no_zeroes {
        out.resize(out.len() + wire::ZEROES, 0);
    }
    Progress::Transmission(session)
}

fn info_or_go(
    shake: &mut Handshake,
    option: u32,
    data: &[u8],
    exports: &dyn Exports,
    out: &mut Vec<u8>,
) -> Progress {
    let Some((name, wanted)) = parse_info(data) else {
        return refuse(out, option, reply::ERR_INVALID, "the option's data is malformed");
    };
    let Some(export) = exports.find(name) else {
        return unknown(out, option, name);
    };
    let asked = |kind: u16| wanted.chunks_exact(2).any(|w| w == kind.to_be_bytes());
    let session = open(shake, name, export, asked(info::BLOCK_SIZE));
    let mut put = |kind: u16, parts: &[&[u8]]| {
        let mut data = kind.to_be_bytes().to_vec();
        data.extend(parts.concat());
        put_reply(out, option, reply::INFO, &data);
    };
    let export = &session.info;
    put(info::EXPORT, &[&export.size.to_be_bytes(), &export.flags.0.to_be_bytes()]);
    if asked(info::NAME) {
        put(info::NAME, &[name.as_bytes()]);
    }
    if asked(info::DESCRIPTION) && !export.description.is_empty() {
        put(info::DESCRIPTION, &[text::cut(&export.description, limits::NBD_STRING).as_bytes()]);
    }
    if session.enforce_block {
        let max = export.max_block.min(limits::NBD_PAYLOAD);
        let sizes = [export.min_block, export.preferred_block, max].map(u32::to_be_bytes);
        put(info::BLOCK_SIZE, &[&sizes[0], &sizes[1], &sizes[2]]);
    }
    put_reply(out, option, reply::ACK, &[]);
    if option == option::GO { Progress::Transmission(session) } else { Progress::More }
}

/// Name and information requests, if they fill the data exactly (CVE-2022-26496).
fn parse_info(data: &[u8]) -> Option<(&str, &[u8])> {
    let mut fields = Fields::new(data);
    let name = text::string(fields.counted()?)?;
    let count = fields.u16()?;
    let wanted = fields.bytes(u32::from(count) * 2)?;
    fields.is_empty().then_some((name, wanted))
}

/// What the client gets if it opens `name` now. Contexts count only for the export they were selected for.
fn open(shake: &Handshake, name: &str, mut export: ExportInfo, enforce_block: bool) -> Session {
    let mut flags = export.flags.with(TransmissionFlags::HAS_FLAGS);
    if shake.structured {
        flags = flags.with(TransmissionFlags::SEND_DF);
    }
    export.flags = flags.consistent(shake.structured);
    let contexts = match &shake.selected {
        Some((export, contexts)) if export == name => contexts.clone(),
        _ => Vec::new(),
    };
    let (structured, extended) = (shake.structured, shake.extended);
    Session { export: name.to_owned(), info: export, structured, extended, contexts, enforce_block }
}

/// LIST and `SET_META_CONTEXT`. SET replaces the earlier selection even when it fails.
fn meta_context(
    shake: &mut Handshake,
    option: u32,
    data: &[u8],
    exports: &dyn Exports,
    out: &mut Vec<u8>,
) -> Progress {
    let set = option == option::SET_META_CONTEXT;
    if set {
        shake.selected = None;
        if !shake.structured {
            return refuse(out, option, reply::ERR_INVALID, "structured replies must be negotiated first");
        }
    }
    let (name, queries) = match parse_queries(data) {
        Ok(parsed) => parsed,
        Err((kind, message)) => return refuse(out, option, kind, message),
    };
    if exports.find(name).is_none() {
        return unknown(out, option, name);
    }
    let mut contexts = exports.contexts(name);
    contexts.retain(|context| {
        if set {
            queries.contains(&context.as_str())
        } else {
            queries.is_empty() || queries.iter().any(|query| lists(query, context))
        }
    });
    if set && contexts.len() > limits::NBD_CONTEXTS {
        return refuse(out, option, reply::ERR_TOO_BIG, "too many contexts");
    }
    let first = u32::from(set);
    let mut selected = Vec::with_capacity(contexts.len());
    for (context, id) in contexts.into_iter().zip(first..) {
        let id = if set { id } else { 0 };
        let mut data = id.to_be_bytes().to_vec();
        data.extend_from_slice(context.as_bytes());
        put_reply(out, option, reply::META_CONTEXT, &data);
        selected.push((id, context));
    }
    put_reply(out, option, reply::ACK, &[]);
    if set {
        shake.selected = Some((name.to_owned(), selected));
    }
    Progress::More
}

/// Whether LIST shows `context` to somebody who asks for `query`: its name, or a namespace that ends in a
/// colon, like `base:` or `qemu:dirty-bitmap:`.
fn lists(query: &str, context: &str) -> bool {
    query == context || (query.ends_with(':') && context.starts_with(query))
}

/// Export name and queries, if they fill the data exactly. Unknown namespaces are no error.
fn parse_queries(data: &[u8]) -> Result<(&str, Vec<&str>), (u32, &'static str)> {
    let malformed = (reply::ERR_INVALID, "the option's data is malformed");
    let mut fields = Fields::new(data);
    let name = fields.counted().and_then(text::string).ok_or(malformed)?;
    let count = fields.u32().ok_or(malformed)?;
    // A query takes at least its length: what cannot fit is malformed, what could is bounded.
    if u64::from(count) * 4 > fields.rest().len() as u64 {
        return Err(malformed);
    }
    if count > limits::NBD_QUERIES {
        return Err((reply::ERR_TOO_BIG, "too many queries"));
    }
    let mut queries = Vec::with_capacity(count as usize);
    for _ in 0..count {
        queries.push(fields.counted().and_then(text::string).ok_or(malformed)?);
    }
    if fields.is_empty() { Ok((name, queries)) } else { Err(malformed) }
}
