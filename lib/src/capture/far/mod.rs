//! Trees on two machines: what one offers, and what the other asks for.
//!
//! The far end (`mirror-sync --serve`) offers [`Trees`]: a standby takes dumps in, a tree is read and answers questions
//! about its objects. The near end has an [`AfarTree`]. What travels between them is packed and unpacked in `node`; the
//! connection itself is [`crate::remote`].
//!
//! Promised: nothing is touched beyond what the far end was told to offer; a connection that breaks leaves a standby as
//! it was, or at the new round; answers are believed only as far as a tree could be so.

mod afar;
mod node;
mod trees;

pub use afar::AfarTree;
pub use trees::Trees;
