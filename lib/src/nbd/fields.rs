//! Reading big-endian fields from bytes that somebody else wrote.

/// What is left to read. Every method takes from the front, or answers `None` and takes nothing.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(first)
    }

    /// A length and so many bytes, as the protocol writes its strings.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let before = *self;
        let counted = self.u32().and_then(|len| self.bytes(len));
        if counted.is_none() {
            *self = before;
        }
        counted
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Moves bytes from the front of `input` until `buffer` holds `need` of them; says whether it does. The buffer
/// never grows past `need`.
pub(super) fn fill(buffer: &mut Vec<u8>, need: usize, input: &mut &[u8]) -> bool {
    let wanted = need.saturating_sub(buffer.len()).min(input.len());
    let (taken, rest) = input.split_at(wanted);
    buffer.extend_from_slice(taken);
    *input = rest;
    buffer.len() >= need
}
