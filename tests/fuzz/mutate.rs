//! From one input to the next, by a seed alone.

/// FNV-1a, for names of files and for what was seen.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Numbers at which parsers turn.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    12,
    16,
    20,
    28,
    32,
    64,
    512,
    4096,
    65536,
    1 << 25,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Words that mean something to one of the parsers.
const WORDS: [&[u8]; 24] = [
    b"NBDMAGIC",
    b"IHAVEOPT",
    b"\x00\x03\xe8\x89\x04\x55\x65\xa9",
    b"\x25\x60\x95\x13",
    b"\x67\x44\x66\x98",
    b"\x66\x8e\x33\xef",
    b"\x21\xe4\x1c\x71",
    b"\x6e\x8a\x27\x8c",
    b"base:allocation",
    b"vol",
    b"nbd://",
    b"nbd+unix:///",
    b"?socket=",
    b"%00",
    b"[::1]",
    b",,",
    b"flush=unsafe",
    b"[volume.vol0]\n",
    b"[[volume.vol0.leg]]\n",
    b"name = \"a\"\n",
    b"device = \"/x\"\n",
    b"{\"request\":\"",
    b"\"leg\":\"a\"",
    b"\n",
];

/// A seed, and what is made of it.
pub struct Mutator(u64);

impl Mutator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn random(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.random() >> 16) as usize % end }
    }

    /// One to eight changes to one of the pool.
    pub fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool.get(self.below(pool.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(8) {
            self.change(&mut input, pool);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(10) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.random() as u8,
            2 => {
                let edge = EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as u64).wrapping_sub(1);
                let width = [1, 2, 4, 8][self.below(4)];
                let bytes = edge.to_be_bytes();
                for (to, from) in input[at..].iter_mut().zip(&bytes[8 - width..]) {
                    *to = *from;
                }
            }
            3 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at.min(end)..end);
            }
            4 => {
                let bytes: Vec<u8> = (0..=self.below(16)).map(|_| self.random() as u8).collect();
                input.splice(at..at, bytes);
            }
            5 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            6 => {
                // A piece of it once more.
                let from = self.below(input.len() + 1);
                let end = (from + self.below(64)).min(input.len());
                let piece = input[from..end].to_vec();
                input.splice(at..at, piece);
            }
            7 => {
                // The rest of another.
                let other = pool.get(self.below(pool.len())).cloned().unwrap_or_default();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            8 => input.truncate(at),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = byte.wrapping_add(1).wrapping_sub(2 * (self.random() & 1) as u8);
                }
            }
        }
    }
}
