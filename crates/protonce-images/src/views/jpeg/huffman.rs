//! Entropy-coded bytes → the coefficients of a block.

use super::blocks::NATURAL_ORDER;

/// Bits that a table is indexed with. Most codes together with the bits of their value fit in.
const LOOK: u32 = 10;

/// A Huffman table of coefficients.
#[derive(Debug)]
pub(super) struct Table {
    /// What the next [`LOOK`] bits mean.
    look: Box<[Entry; 1 << LOOK]>,
    /// Codes longer than that: the end of the codes of each length, left-aligned in 16 bits.
    ends: [u32; 17],
    /// What to add to a code of a length to get the position of its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
    is_ac: bool,
    /// What the table was made from, so that defining it once more costs nothing.
    definition: Vec<u8>,
}

/// A decoded symbol; four bytes, since decoding is bound by the latency of looking up the next.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(4))]
struct Entry {
    /// Bits of the code and the value; 0 when the code is longer than the table is wide, or none at
    /// all.
    bits: u8,
    /// Bits of the code.
    length: u8,
    /// Bits of the value that follows.
    size: u8,
    /// How many coefficients this one is after the last; [`END`] at the end of a block.
    step: u8,
}

/// A step past the end of any block.
const END: u8 = 0xff;

impl Entry {
    fn new(symbol: u8, length: u32, is_ac: bool) -> Entry {
        let step = match symbol {
            0 if is_ac => END,
            symbol => (symbol >> 4) + 1,
        };
        let (length, size) = (length as u8, symbol & 15);
        Entry { bits: length + size, length, size, step }
    }
}

impl Default for Table {
    fn default() -> Table {
        Table {
            look: Box::new([Entry::default(); 1 << LOOK]),
            ends: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
            is_ac: false,
            definition: Vec::new(),
        }
    }
}

impl Table {
    /// Builds the table from a definition: sixteen counts, then the symbols.
    pub(super) fn define(&mut self, definition: &[u8], is_ac: bool) -> Option<()> {
        if self.definition == definition {
            return Some(());
        }
        self.definition.clear();
        let (counts, symbols) = definition.split_first_chunk::<16>()?;
        if symbols.len() > 256 {
            return None;
        }
        // A DC symbol is a size of at most 11 bits, an AC symbol a run and a size of at most 10.
        let most = if is_ac { 10 } else { 11 };
        if symbols.iter().any(|symbol| symbol & 15 > most || (!is_ac && *symbol > most)) {
            return None;
        }
        self.symbols[..symbols.len()].copy_from_slice(symbols);
        self.look.fill(Entry::default());
        let (mut code, mut position) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize - 1]);
            self.offsets[length as usize] = position as i32 - code as i32;
            for code in code..code + count {
                if code >= 1 << length {
                    return None;
                }
                if let Some(free) = LOOK.checked_sub(length) {
                    // Every look-up that begins with the code.
                    let first = (code << free) as usize;
                    self.look[first..first + (1 << free)].fill(Entry::new(
                        symbols[position],
                        length,
                        is_ac,
                    ));
                }
                position += 1;
            }
            code += count;
            self.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        self.is_ac = is_ac;
        self.definition.extend_from_slice(definition);
        Some(())
    }

    /// The long code at the top of `window`.
    #[cold]
    #[inline(never)]
    fn long(&self, window: u64) -> Option<Entry> {
        let code = (window >> 48) as u32;
        let length = (LOOK + 1..=16).find(|&length| code < self.ends[length as usize])?;
        let position = (code >> (16 - length)) as i32 + self.offsets[length as usize];
        let symbol = *self.symbols.get(usize::try_from(position).ok()?)?;
        Some(Entry::new(symbol, length, self.is_ac))
    }
}

/// A position in the bits of a scan.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bits {
    /// The next `count` bits, from the top.
    window: u64,
    count: u32,
    /// The first byte that is not, or not wholly, in the window.
    position: usize,
}

impl Bits {
    pub(super) fn at(position: usize) -> Bits {
        Bits { position, ..Bits::default() }
    }

    /// Whether no more was consumed than there is before `end`.
    pub(super) fn within(&self, end: usize) -> bool {
        self.position * 8 <= end * 8 + self.count as usize
    }

    /// Refills the window to at least 56 bits, more than two codes and their values have.
    ///
    /// Without checking whether they are there already: an unpredictable branch costs more.
    #[inline(always)]
    fn fill(&mut self, bytes: &[u8]) -> Option<()> {
        // Past the end of the scan there are sixteen bytes of zeros and then nothing.
        let next = bytes.get(self.position..)?.first_chunk::<8>()?;
        self.window |= u64::from_be_bytes(*next) >> self.count;
        self.position += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
        Some(())
    }

    /// The next coefficient, of at most 28 bits: how many it is after the last one, and its value.
    #[inline(always)]
    fn coefficient(&mut self, table: &Table) -> Option<(usize, i32)> {
        let mut entry = table.look[(self.window >> (64 - LOOK)) as usize];
        if entry.bits == 0 {
            entry = table.long(self.window)?;
        }
        let Entry { bits, length, size, step } = entry;
        // What follows from here on for the value delays no later coefficient.
        let value = extend(self.window << length, size.into());
        self.window <<= bits;
        self.count -= u32::from(bits);
        Some((step.into(), value))
    }

    #[inline(always)]
    fn difference(&mut self, bytes: &[u8], table: &Table, previous: &mut i32) -> Option<i32> {
        self.fill(bytes)?;
        let (_, difference) = self.coefficient(table)?;
        *previous = previous.wrapping_add(difference);
        Some(*previous)
    }

    /// Reads a block into `block`, which is all zeros, dequantised and in natural order.
    ///
    /// Returns the zigzag position of the last coefficient that is not zero.
    #[inline]
    pub(super) fn block(
        &mut self,
        bytes: &[u8],
        dc: &Table,
        ac: &Table,
        quantisation: &[u16; 64],
        previous: &mut i32,
        block: &mut [i16; 64],
    ) -> Option<usize> {
        let mut bits = *self;
        let value = bits.difference(bytes, dc, previous)?;
        block[0] = value.wrapping_mul(i32::from(quantisation[0])) as i16;
        let mut position = 0;
        'block: loop {
            bits.fill(bytes)?;
            for _ in 0..2 {
                let (step, value) = bits.coefficient(ac)?;
                let next = position + step;
                if next > 63 {
                    if step != usize::from(END) {
                        return None;
                    }
                    break 'block;
                }
                position = next;
                let scaled = value.wrapping_mul(i32::from(quantisation[position]));
                block[usize::from(NATURAL_ORDER[position])] = scaled as i16;
                if position == 63 {
                    break 'block;
                }
            }
        }
        *self = bits;
        Some(position)
    }

    /// Reads past a block.
    #[inline]
    pub(super) fn skip_block(
        &mut self,
        bytes: &[u8],
        dc: &Table,
        ac: &Table,
        previous: &mut i32,
    ) -> Option<()> {
        let mut bits = *self;
        bits.difference(bytes, dc, previous)?;
        let mut position = 0;
        'block: loop {
            bits.fill(bytes)?;
            for _ in 0..2 {
                let (step, _) = bits.coefficient(ac)?;
                position += step;
                if position >= 63 {
                    if position > 63 && step != usize::from(END) {
                        return None;
                    }
                    break 'block;
                }
            }
        }
        *self = bits;
        Some(())
    }
}

/// The number that the first `size` of `bits` stand for: with a leading zero it is negative.
#[inline(always)]
fn extend(bits: u64, size: u32) -> i32 {
    // Twice, since a shift by 64 is none.
    let number = (bits >> 1 >> (63 - size)) as i32;
    let negative = !(bits as i64 >> 63) as i32;
    number + (negative & (1 - (1 << size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_zero_makes_a_number_negative() {
        let number = |bits: u64, size: u32| extend(bits << 1 << (63 - size), size);
        assert_eq!([number(0, 0), number(0, 1), number(1, 1)], [0, -1, 1]);
        assert_eq!([number(0, 3), number(3, 3), number(4, 3), number(7, 3)], [-7, -4, 4, 7]);
    }

    #[test]
    fn codes_of_every_length_are_found() {
        // One code of each length: 0, 10, 110, … with one symbol each, and none that is all ones.
        let mut definition = vec![1u8; 16];
        definition.extend((0..16).map(|i| i % 10 + 1));
        let mut table = Table::default();
        table.define(&definition, true).unwrap();
        for length in 1..=16u32 {
            let size = (length - 1) % 10 + 1;
            // The code, then a value of all ones.
            let code = ((1u64 << length) - 2) << (64 - length);
            let value = ((1u64 << size) - 1) << (64 - length - size);
            let mut bytes = (code | value).to_be_bytes().to_vec();
            bytes.extend([0; 16]);
            let mut bits = Bits::at(0);
            bits.fill(&bytes).unwrap();
            assert_eq!(bits.coefficient(&table), Some((1, (1 << size) - 1)), "{length}");
            assert_eq!(bits.position * 8 - bits.count as usize, (length + size) as usize);
        }
        let mut ones = Bits::at(0);
        ones.fill(&[0xff; 16]).unwrap();
        assert_eq!(ones.coefficient(&table), None);
    }
}
