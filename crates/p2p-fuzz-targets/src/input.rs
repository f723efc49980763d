/// A fuzzer's bytes, read as decisions from the front. At their end every decision is 0, so that
/// each prefix of an input is an input as well.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = match end {
            0..=0x100 => u32::from(self.byte()),
            0x101..=0x1_0000 => u32::from(self.u16()),
            _ => self.u32(),
        };
        number as usize % end
    }

    /// At least 1: small, middling or large, so that all are common.
    pub(crate) fn len(&mut self, max: usize) -> usize {
        let scale = [20, 500, 5000, max][self.below(4)];
        1 + self.below(scale.min(max))
    }

    /// At most `max` of the bytes that follow.
    pub(crate) fn take(&mut self, max: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(max.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A byte with a length, and so many bytes.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.take(len.into())
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// Cuts `whole` into pieces: one, single bytes, or as the input says.
    pub(crate) fn cut<'b>(&mut self, mut whole: &'b [u8]) -> Vec<&'b [u8]> {
        let way = self.below(8);
        if way == 4 && whole.len() <= 2048 {
            return whole.chunks(1).collect();
        }
        let mut pieces = Vec::new();
        while !whole.is_empty() {
            let count = match way {
                0..=3 => whole.len(),
                _ if self.is_empty() => whole.len(),
                _ => self.len(whole.len()),
            };
            let (piece, rest) = whole.split_at(count.min(whole.len()));
            pieces.push(piece);
            whole = rest;
        }
        pieces
    }
}
