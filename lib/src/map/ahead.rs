//! Reading ahead of whoever works: the kernel's copy of a map goes on while the piece before is combined.

use super::format::Header;
use super::stream::{CHUNK, Source};
use crate::base::{Class, Error, Result};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;

/// Pieces that wait for the reader: one more than is being looked at.
const PIECES: usize = 2;

/// A source that another thread reads.
pub struct Ahead {
    header: Header,
    /// Taken away first when this is dropped, so that the thread ends.
    pieces: Option<Receiver<Result<Vec<u64>>>>,
    /// Buffers go back, so that their pages are not made anew.
    used: Sender<Vec<u64>>,
    thread: Option<JoinHandle<()>>,
    piece: Vec<u64>,
    at: usize,
    /// Pieces that are still to come.
    left: u64,
}

impl Ahead {
    /// Begins to read. The source is let go of when this is dropped, not later.
    pub fn new(mut source: super::ops::Boxed) -> Self {
        let header = source.header().clone();
        let (sender, pieces) = sync_channel(PIECES);
        let (used, free) = channel();
        let left = (header.identity.bits_len() / 8).div_ceil(CHUNK as u64);
        let thread = std::thread::spawn(move || {
            for _ in 0..left {
                let mut words = free.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
                let read = source.fill(&mut words);
                let ended = read.is_err();
                if sender.send(read.map(|()| words)).is_err() || ended {
                    break;
                }
            }
        });
        Self { header, pieces: Some(pieces), used, thread: Some(thread), piece: Vec::new(), at: 0, left }
    }
}

impl Source for Ahead {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, mut words: &mut [u64]) -> Result<()> {
        while !words.is_empty() {
            if self.at == self.piece.len() {
                if self.left == 0 {
                    // What lies past the volume is zero.
                    words.fill(0);
                    return Ok(());
                }
                let piece = self.pieces.as_ref().and_then(|pieces| pieces.recv().ok());
                let ended = || Error::new(Class::Internal, "a reading thread has ended");
                let piece = piece.ok_or_else(ended)??;
                // A thread that has ended needs no more buffers.
                let last = std::mem::replace(&mut self.piece, piece);
                if !last.is_empty() {
                    let _ = self.used.send(last);
                }
                self.left -= 1;
                self.at = 0;
            }
            let here = words.len().min(self.piece.len() - self.at);
            let (now, later) = words.split_at_mut(here);
            now.copy_from_slice(&self.piece[self.at..self.at + here]);
            self.at += here;
            words = later;
        }
        Ok(())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }
}
