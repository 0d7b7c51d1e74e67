//! What a recorder leaves for dumps, in the directory of the source:
//!
//! ```text
//! DIR/live.N           what may have changed since round N was begun to be looked at, a log that grows
//! DIR/recorder.lock    held by the recorder as long as it lives
//! DIR/recorder.sock    where dumps ask it
//! ```
//!
//! 1. A dump of round N asks the recorder to rotate: it empties its queue, closes the log it writes, and begins
//!    `live.N`. Events are queued before system calls return, so that everything done before the question is in the
//!    closed logs, and everything done later in `live.N`; what is done in between may be in both.
//! 2. What changed since round M is in the logs from `live.M` on.
//!
//! A question has a deadline (`rotation`): a recorder that was stopped when it was asked, and goes on later, does not
//! know where the scan began that the dump made instead.
//!
//! Nothing here is ever synced. Recovery: (a) a recorder that died, or a machine that lost its power, leaves a
//! generation that is not closed: a scan is owed; (b) a recorder that starts writes first that it does not know what
//! was before; (c) a dump that fails asks for the same number again: the recorder goes on with the log of that number,
//! which then begins earlier than it need.
//!
//! Both recorders write the log (`Log`) and are asked ([`ask()`]) in the same way; neither they nor dumps know more of
//! each other than this.

mod ask;
mod claim;
mod log;

pub use ask::{Answer, RangesAnswer, ask, rotate};
pub(super) use ask::{SECCOMP, question, reply, rotation};
pub use claim::SOCKET;
pub(super) use claim::{claim, identity, listen};
pub(super) use log::{BLIND, Log, MAPPED, METADATA, WRITTEN, prune};
pub use log::{number_of, since};
