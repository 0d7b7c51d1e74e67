//! Floor 5: the face. Exit status, wording, progress: what the programs in `bins/` share. Only here does the
//! library print, and only here does a process end.

pub mod admin;
pub mod ask;
pub mod barrier;
pub mod check;
pub mod device_map;
pub mod dirtymap;
pub mod far;
pub mod filelog;
pub mod interrupt;
pub mod output;
pub mod parse;
pub mod progress;
pub mod record;
pub mod run;
pub mod serve;
pub mod status;
pub mod sync;
pub mod trackers;
pub mod tree;
pub mod tree_args;
mod tree_far;
pub mod value;
pub mod verify;
pub mod volume;
pub mod wait;
pub mod watching;

pub use clap_complete::Shell;
pub use parse::completion;
pub use progress::{Meter, Progress, ProgressTo};
pub use run::{main, main_with};
