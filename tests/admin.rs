//! What an administrator asks of a running daemon.

mod legs; // legs come, go, take each other's place, are set anew
mod pause;
mod resize; // a volume grows // a resync held back, and why it does not move
