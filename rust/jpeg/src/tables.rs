//! The tables in a file: quantization and Huffman codes.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Codes {
    /// Number of codes of 1, 2, … 16 bits.
    pub(super) counts: [u8; 16],
    /// Their symbols, shortest code first. Unused entries are zero.
    pub(super) symbols: [u8; 256],
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    quantization: [Option<[i16; 64]>; 4],
    dc_codes: [Option<Codes>; 4],
    ac_codes: [Option<Codes>; 4],
    /// Units between restarts. 0: no restarts.
    pub(super) restart_interval: usize,
}

/// Row-major index of each coefficient, in file order (zigzag).
pub(super) const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

impl Tables {
    /// Reads a segment with tables. `None` if it is another segment, or damaged.
    pub(super) fn read(&mut self, marker: u8, segment: &[u8]) -> Option<()> {
        match marker {
            0xC4 => self.read_codes(segment),
            0xDB => self.read_quantization(segment),
            0xDD => {
                let &interval = segment.first_chunk::<2>()?;
                self.restart_interval = usize::from(u16::from_be_bytes(interval));
                (segment.len() == 2).then_some(())
            }
            _ => None,
        }
    }

    fn read_codes(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = segment.split_first() {
            let counts = *rest.first_chunk::<16>()?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let given = rest[16..].get(..total)?;
            let mut symbols = [0; 256];
            symbols.get_mut(..total)?.copy_from_slice(given);
            segment = &rest[16 + total..];
            let tables = match kind >> 4 {
                0 => &mut self.dc_codes,
                1 => &mut self.ac_codes,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some(Codes { counts, symbols });
        }
        Some(())
    }

    fn read_quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&number, rest)) = segment.split_first() {
            let steps = rest.first_chunk::<64>()?;
            segment = &rest[64..];
            let mut table = [0; 64];
            for (&place, &step) in NATURAL.iter().zip(steps) {
                table[usize::from(place)] = i16::from(step);
            }
            // A number above 3 would mean 16-bit steps.
            *self.quantization.get_mut(usize::from(number))? = Some(table);
        }
        Some(())
    }

    pub(super) fn quantization(&self, number: u8) -> Option<&[i16; 64]> {
        self.quantization.get(usize::from(number))?.as_ref()
    }

    pub(super) fn dc_codes(&self, number: usize) -> Option<&Codes> {
        self.dc_codes.get(number)?.as_ref()
    }

    pub(super) fn ac_codes(&self, number: usize) -> Option<&Codes> {
        self.ac_codes.get(number)?.as_ref()
    }
}
