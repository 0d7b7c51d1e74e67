//! SIGINT and SIGTERM: drafts are removed, a person is told where things stand, and the process dies of the signal,
//! so that a shell sees 128 and its number.

use super::output;
use crate::base::{Class, Error, Result};
use crate::device::durable;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::{Mutex, PoisonError};

/// What a person is told.
static STANDING: Mutex<&str> = Mutex::new("nothing was changed");

/// Where things stand from now on: half a sentence that ends with what to type, if something is to be typed.
pub fn standing(text: &'static str) {
    *STANDING.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// From now on the two signals end the program as the module says.
pub fn arm(tool: &'static str) -> Result<()> {
    let fail = |e| Error::os(Class::Internal, "signals", "setting up their handling", e);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(fail)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                durable::forget_drafts();
                let standing = *STANDING.lock().unwrap_or_else(PoisonError::into_inner);
                output::tell(&format!("{tool}: interrupted: {standing}\n"));
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        })
        .map_err(fail)?;
    Ok(())
}
