//! What an administrator asks of a running daemon.

mod pause; // a resync held back, and why it does not move
