//! Which option the client sends next, and what it believes of the replies (`proto.md`, "Option types",
//! "Option reply types"). Order: TLS where it is wanted, extended headers where they are wanted, else structured replies, contexts, GO, and `EXPORT_NAME` where there is no GO.

use super::handshake::{ClientOptions, ServerInfo, check_size, refused};
use crate::base::{Result, limits};
use crate::nbd::fields::Fields;
use crate::nbd::text;
use crate::nbd::wire::{self, TransmissionFlags, info, option, reply};

/// What follows a reply.
#[derive(Debug)]
pub(super) enum Step {
    /// The next reply.
    Wait,
    /// The server waits for TLS to begin.
    StartTls,
    /// There is no GO: open the export the old way.
    ExportName,
    /// The export is open.
    Ready(ServerInfo),
}

/// What was agreed so far.
#[derive(Debug)]
pub(super) struct Negotiation {
    pub(super) options: ClientOptions,
    /// The option whose final reply is awaited.
    pending: u32,
    /// Replies to it that were not final.
    replies: u32,
    /// Extended headers are asked for.
    pub(super) try_extended: bool,
    structured: bool,
    extended: bool,
    contexts: Vec<(u32, String)>,
    export: Option<(u64, TransmissionFlags)>,
    blocks: Option<(u32, u32, u32)>,
}

impl Negotiation {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self {
            options,
            pending: 0,
            replies: 0,
            try_extended: false,
            structured: false,
            extended: false,
            contexts: Vec::new(),
            export: None,
            blocks: None,
        }
    }

    /// Sends the first option.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        if self.try_extended {
            self.send(out, option::EXTENDED_HEADERS, &[]);
        } else if self.options.structured {
            self.send(out, option::STRUCTURED_REPLY, &[]);
        } else {
            self.go(out);
        }
    }

    /// Asks for TLS, before anything else.
    pub(super) fn start_tls(&mut self, out: &mut Vec<u8>) {
        self.send(out, option::STARTTLS, &[]);
    }

    fn send(&mut self, out: &mut Vec<u8>, option: u32, data: &[u8]) {
        self.pending = option;
        self.replies = 0;
        wire::put_option(out, option, data);
    }

    fn go(&mut self, out: &mut Vec<u8>) {
        let mut data = Vec::with_capacity(8 + self.options.export.len());
        wire::put_counted(&mut data, self.options.export.as_bytes());
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
        self.send(out, option::GO, &data);
    }

    fn set_contexts(&mut self, out: &mut Vec<u8>) {
        let mut data = Vec::new();
        wire::put_counted(&mut data, self.options.export.as_bytes());
        data.extend_from_slice(&(self.options.contexts.len() as u32).to_be_bytes());
        for context in &self.options.contexts {
            wire::put_counted(&mut data, context.as_bytes());
        }
        self.send(out, option::SET_META_CONTEXT, &data);
    }

    /// Whether a reply to `option` is awaited.
    pub(super) fn expects(&self, option: u32) -> Result<()> {
        if option == self.pending {
            return Ok(());
        }
        Err(refused(format_args!("reply to option {option} while option {} was asked", self.pending)))
    }

    /// Takes one reply to the pending option.
    pub(super) fn reply(&mut self, option: u32, kind: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step> {
        if kind & reply::ERROR != 0 {
            return self.error(option, kind, data, out);
        }
        if kind == reply::ACK {
            if !data.is_empty() {
                return Err(refused(format_args!("an acknowledgement with {} bytes of data", data.len())));
            }
            return self.acknowledged(option, out);
        }
        self.replies += 1;
        if self.replies > limits::NBD_REPLIES {
            return Err(refused(format_args!(
                "more than {} replies to option {option}",
                limits::NBD_REPLIES
            )));
        }
        match (option, kind) {
            (option::GO, reply::INFO) => self.information(data)?,
            (option::SET_META_CONTEXT, reply::META_CONTEXT) => self.context(data)?,
            _ => return Err(refused(format_args!("reply of type {kind} to option {option}"))),
        }
        Ok(Step::Wait)
    }

    fn acknowledged(&mut self, option: u32, out: &mut Vec<u8>) -> Result<Step> {
        match option {
            option::STARTTLS => {
                // Nothing more is believed of what comes in the clear.
                self.pending = 0;
                Ok(Step::StartTls)
            }
            option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => {
                self.extended = option == option::EXTENDED_HEADERS;
                self.structured = true;
                if self.options.contexts.is_empty() {
                    self.go(out);
                } else {
                    self.set_contexts(out);
                }
                Ok(Step::Wait)
            }
            option::SET_META_CONTEXT => {
                self.go(out);
                Ok(Step::Wait)
            }
            _ => {
                let Some((size, flags)) = self.export else {
                    return Err(refused("the server opened the export without telling its size"));
                };
                self.info(size, flags).map(Step::Ready)
            }
        }
    }

    /// An error is final for the option. Only GO, when it is known, is final for all.
    fn error(&mut self, option: u32, kind: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step> {
        let leaving = kind == reply::ERR_SHUTDOWN || kind == reply::ERR_TLS_REQD;
        match option {
            option::EXTENDED_HEADERS if !leaving => {
                self.try_extended = false;
                self.start(out);
            }
            option::STRUCTURED_REPLY if !leaving => self.go(out),
            option::SET_META_CONTEXT if !leaving => {
                self.contexts.clear();
                self.go(out);
            }
            // With extended headers the old way is closed.
            option::GO if kind == reply::ERR_UNSUP && !self.extended => return Ok(Step::ExportName),
            _ => {
                wire::put_option(out, option::ABORT, &[]);
                return Err(if option == option::STARTTLS { no_tls(data) } else { self.failure(kind, data) });
            }
        }
        Ok(Step::Wait)
    }

    fn failure(&self, kind: u32, data: &[u8]) -> crate::base::Error {
        let why = match kind {
            reply::ERR_POLICY => "forbidden by the server's policy",
            reply::ERR_INVALID => "the server calls the request invalid",
            reply::ERR_PLATFORM => "not supported on the server's platform",
            reply::ERR_TLS_REQD => "the server talks over TLS only, write nbds:",
            reply::ERR_UNKNOWN => "no such export",
            reply::ERR_SHUTDOWN => "the server is shutting down",
            reply::ERR_BLOCK_SIZE_REQD => "the server requires its block size to be obeyed",
            reply::ERR_TOO_BIG => "the server calls the request too big",
            _ => "the server refused",
        };
        let export = text::shown(&self.options.export);
        let said = text::clean(data);
        let mut line = format!("export '{export}': {why}");
        if !said.is_empty() {
            line.push_str(": ");
            line.push_str(&said);
        }
        let mut error = refused(line);
        text::truncate(&mut error.message, limits::NBD_STRING);
        error
    }

    /// One information about the export; types that are not known are ignored.
    fn information(&mut self, data: &[u8]) -> Result<()> {
        let mut fields = Fields::new(data);
        let wrong = |kind: &str| refused(format_args!("{kind} information of {} bytes", data.len()));
        match fields.u16().ok_or_else(|| wrong("unnamed"))? {
            info::EXPORT => {
                let (Some(size), Some(flags), true) = (fields.u64(), fields.u16(), fields.is_empty()) else {
                    return Err(wrong("export"));
                };
                let told = (size, TransmissionFlags(flags));
                if self.export.is_some_and(|earlier| earlier != told) {
                    return Err(refused("the server told two different sizes or flags"));
                }
                self.export = Some(told);
            }
            info::BLOCK_SIZE => {
                let (Some(min), Some(preferred), Some(max), true) =
                    (fields.u32(), fields.u32(), fields.u32(), fields.is_empty())
                else {
                    return Err(wrong("block size"));
                };
                if possible(min, preferred, max) {
                    self.blocks = Some((min, preferred, max));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// One selected context. Those that were not asked for are ignored.
    fn context(&mut self, data: &[u8]) -> Result<()> {
        let mut fields = Fields::new(data);
        let id = fields.u32().ok_or_else(|| refused("a metadata context without a number"))?;
        let asked = |name: &&str| self.options.contexts.iter().any(|context| context == name);
        let Some(name) = text::string(fields.rest()).filter(asked) else {
            return Ok(());
        };
        if self.contexts.iter().any(|(other, known)| *other == id || known == name) {
            return Err(refused(format_args!("metadata context {id} told twice")));
        }
        self.contexts.push((id, name.to_owned()));
        Ok(())
    }

    /// The end: what was agreed, checked.
    pub(super) fn info(&mut self, size: u64, flags: TransmissionFlags) -> Result<ServerInfo> {
        let (min_block, preferred_block, max) = self.blocks.unwrap_or((1, 4096, limits::NBD_PAYLOAD));
        Ok(ServerInfo {
            size: check_size(size)?,
            flags: flags.consistent(self.structured),
            structured: self.structured,
            extended: self.extended,
            contexts: std::mem::take(&mut self.contexts),
            min_block,
            preferred_block,
            max_payload: max.min(limits::NBD_PAYLOAD),
        })
    }
}

/// Whoever wants TLS goes nowhere without (`proto.md`, "Downgrade attacks").
fn no_tls(data: &[u8]) -> crate::base::Error {
    let said = text::clean(data);
    let said = if said.is_empty() { said } else { format!(": it says: {said}") };
    let mut error = refused(format_args!("TLS is wanted, and the server does not agree to it{said}"));
    text::truncate(&mut error.message, limits::NBD_STRING);
    error
}

/// Whether block sizes make sense ("Size constraints"); impossible ones are ignored, as libnbd does (C19).
const fn possible(min: u32, preferred: u32, max: u32) -> bool {
    min.is_power_of_two()
        && min <= 65536
        && preferred.is_power_of_two()
        && preferred >= 512
        && preferred >= min
        && max >= preferred
        && (max == u32::MAX || max.is_multiple_of(min))
}
