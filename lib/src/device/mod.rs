//! Floor 1: things with bytes. Files and block devices that hold a leg, the one way to replace a small file, the
//! fields that every fixed header is built from, and the store that crash tests freeze.

pub mod beneath;
pub mod boot;
pub mod durable;
pub mod fault;
pub mod fields;
pub mod file;
pub mod identity;
pub mod in_use;
pub mod lock;
pub mod output;
pub mod window;
pub mod writers;

pub use beneath::Confined;
pub use boot::boot_id;
pub use fault::{FileSlots, FrozenStore, SlotStore};
pub use fields::Features;
pub use file::{Extent, FileDevice};
pub use identity::identity_of;
pub use in_use::check_not_in_use;
pub use output::Output;
pub use window::Window;
pub use writers::is_open_for_writing;
