//! Floor 2: the daemon's control socket: one JSON object a line over a Unix socket, both ways.
//!
//! The client sends one [`Request`] a line. The daemon answers each with one [`Reply`]; after the reply to
//! [`Request::Events`] come [`Event`]s, one a line. The socket is `DIR/NAME/control.sock`, mode 0600 in a
//! directory of mode 0700. Lines are at most [`crate::base::limits::CONTROL_LINE`] bytes.
//! Marks of maps come in pages ([`tracker`]).

pub mod client;
pub mod event;
pub mod line;
pub mod metrics;
pub mod paths;
pub mod request;
pub mod status;
pub mod tracker;
pub mod verdict;
pub mod verify;

pub use client::Barrier;
pub use event::{Event, EventKind};
pub use line::Lines;
pub use paths::{StateDir, VolumeDir};
pub use request::{LegAction, MapOf, Reply, Request, TrackerAction};
pub use status::{AddressStatus, LegStatus, ResyncStatus, Status, TrackerStatus};
pub use tracker::{Marks, Taken};
pub use verdict::{Judgement, Thresholds, Verdict, judge};
pub use verify::VerifyResult;
