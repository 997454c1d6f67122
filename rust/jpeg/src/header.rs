//! Parses the marker segments before the data of a JPEG file.

/// One of the colour planes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Component {
    id: u8,
    sampling: u8,
    quantization: u8,
    pub(super) dc_table: u8,
    pub(super) ac_table: u8,
}

/// Chroma subsampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// No chroma.
    Gray,
    /// 4:4:4.
    Full,
    /// 4:2:2: half the columns.
    HalfColumns,
    /// 4:2:0: half the columns and half the rows.
    Quarter,
}

impl Sampling {
    /// Luma blocks per unit (MCU): across, down.
    pub(super) fn luma_blocks(self) -> (usize, usize) {
        match self {
            Self::Gray | Self::Full => (1, 1),
            Self::HalfColumns => (2, 1),
            Self::Quarter => (2, 2),
        }
    }

    pub(super) fn components(self) -> usize {
        if self == Self::Gray { 1 } else { 3 }
    }
}

/// A Huffman table as stored in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Codes {
    /// Number of codes of 1, 2, … 16 bits.
    pub(super) counts: [u8; 16],
    /// Their symbols, shortest code first. Unused entries are zero.
    pub(super) symbols: [u8; 256],
}

/// What stands before the data of a file: everything needed to decode them.
#[derive(Debug, Clone)]
pub struct JpegHeader {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    pub(super) sampling: Sampling,
    pub(super) components: [Component; 3],
    quantization: [Option<[i16; 64]>; 4],
    dc_codes: [Option<Codes>; 4],
    ac_codes: [Option<Codes>; 4],
    /// Units between restarts. 0: no restarts.
    pub(super) restart_interval: usize,
    /// Start of the entropy-coded data.
    pub(super) samples: usize,
}

/// Row-major index of each coefficient, in file order (zigzag).
pub(super) const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

impl JpegHeader {
    /// Parses up to the data. `None` for every file that this decoder does not support, valid or not.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = Self {
            width: 0,
            height: 0,
            sampling: Sampling::Gray,
            components: [Component::default(); 3],
            quantization: [None; 4],
            dc_codes: [None; 4],
            ac_codes: [None; 4],
            restart_interval: 0,
            samples: 0,
        };
        bytes.starts_with(&[0xFF, 0xD8, 0xFF]).then_some(())?;
        let mut colour = Colour::default();
        let mut at = 2;
        let mut count = 0;
        loop {
            let &[0xFF, marker, high, low] = bytes.get(at..)?.first_chunk::<4>()? else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = bytes.get(at + 4..at + 2 + length)?;
            at += 2 + length;
            match marker {
                // There must be only one frame header.
                0xC0 | 0xC1 if count == 0 => count = header.read_frame(segment)?,
                0xC4 => header.read_codes(segment)?,
                0xDB => header.read_quantization(segment)?,
                0xDD => {
                    let &interval = segment.first_chunk::<2>()?;
                    (segment.len() == 2).then_some(())?;
                    header.restart_interval = usize::from(u16::from_be_bytes(interval));
                }
                0xE0 => colour.jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
                0xEE if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    colour.adobe = Some(segment[11]);
                }
                0xE1..=0xEF | 0xFE => {}
                0xDA if count > 0 => {
                    header.read_scan(segment, count)?;
                    header.samples = at;
                    break;
                }
                _ => return None,
            }
        }
        header.sampling = header.find_sampling(count)?;
        let ids = header.components.map(|component| component.id);
        // With so few columns of chroma, libjpeg's smooth upsampling differs.
        let few = header.sampling.luma_blocks().0 == 2 && header.width <= 4;
        (!few && (count == 1 || colour.is_ycc(ids))).then_some(header)
    }

    /// The number of components.
    fn read_frame(&mut self, segment: &[u8]) -> Option<usize> {
        let &[8, h1, h0, w1, w0, count] = segment.first_chunk::<6>()? else {
            return None;
        };
        self.height = u32::from(u16::from_be_bytes([h1, h0]));
        self.width = u32::from(u16::from_be_bytes([w1, w0]));
        let count = usize::from(count);
        let sizes = 1..=65500;
        let usual = (count == 1 || count == 3) && segment.len() == 6 + 3 * count;
        if !usual || !sizes.contains(&self.width) || !sizes.contains(&self.height) {
            return None;
        }
        for (component, own) in self.components.iter_mut().zip(segment[6..].chunks_exact(3)) {
            (component.id, component.sampling, component.quantization) = (own[0], own[1], own[2]);
        }
        Some(count)
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

    /// The only scan must contain all components, in order, and all of their coefficients.
    fn read_scan(&mut self, segment: &[u8], count: usize) -> Option<()> {
        let (&number, rest) = segment.split_first()?;
        if usize::from(number) != count || rest.len() != 2 * count + 3 {
            return None;
        }
        let (own, rest) = rest.split_at(2 * count);
        for (component, own) in self.components.iter_mut().zip(own.chunks_exact(2)) {
            (own[0] == component.id).then_some(())?;
            (component.dc_table, component.ac_table) = (own[1] >> 4, own[1] & 15);
        }
        (rest == [0, 63, 0]).then_some(())
    }

    fn find_sampling(&self, count: usize) -> Option<Sampling> {
        let [luma, blue, red] = self.components.map(|component| component.sampling);
        if count == 1 {
            // In a scan with one component, a unit is one block, whatever the sampling factors are.
            return (luma >> 4 != 0 && luma & 15 != 0 && luma >> 4 <= 4 && luma & 15 <= 4)
                .then_some(Sampling::Gray);
        }
        if (blue, red) != (0x11, 0x11) {
            return None;
        }
        match luma {
            0x11 => Some(Sampling::Full),
            0x21 => Some(Sampling::HalfColumns),
            0x22 => Some(Sampling::Quarter),
            _ => None,
        }
    }

    pub(super) fn quantization(&self, component: usize) -> Option<&[i16; 64]> {
        let number = usize::from(self.components[component].quantization);
        self.quantization.get(number)?.as_ref()
    }

    pub(super) fn dc_codes(&self, number: usize) -> Option<&Codes> {
        self.dc_codes.get(number)?.as_ref()
    }

    pub(super) fn ac_codes(&self, number: usize) -> Option<&Codes> {
        self.ac_codes.get(number)?.as_ref()
    }
}

/// The signs of how three components encode colour.
#[derive(Default)]
struct Colour {
    jfif: bool,
    adobe: Option<u8>,
}

impl Colour {
    /// Whether libjpeg takes them for luma and chroma. The first sign present decides.
    fn is_ycc(&self, ids: [u8; 3]) -> bool {
        match (self.jfif, self.adobe) {
            (true, _) => true,
            // A transform other than 1 means RGB, or a warning.
            (false, Some(transform)) => transform == 1,
            (false, None) => ids == [1, 2, 3],
        }
    }
}
