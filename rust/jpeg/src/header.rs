//! Parses the marker segments before the data of a JPEG file.

use super::tables::Tables;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) id: u8,
    sampling: u8,
    pub(super) quantization: u8,
    pub(super) dc_table: u8,
    pub(super) ac_table: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    Gray,
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

#[derive(Debug, Clone)]
pub struct JpegHeader {
    pub width: u32,
    pub height: u32,
    pub(super) sampling: Sampling,
    pub(super) components: [Component; 3],
    pub(super) tables: Tables,
    /// With several scans, each with some bits of some coefficients.
    pub progressive: bool,
    /// Start of the first scan's marker, and of its entropy-coded data.
    pub(super) first_scan: usize,
    pub(super) samples: usize,
}

impl JpegHeader {
    /// Parses a file up to its data. `None` for every file that this decoder does not support, valid or not.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = Self {
            width: 0,
            height: 0,
            sampling: Sampling::Gray,
            components: [Component::default(); 3],
            tables: Tables::default(),
            progressive: false,
            first_scan: 0,
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
                0xC0..=0xC2 if count == 0 => {
                    count = header.read_frame(segment)?;
                    header.progressive = marker == 0xC2;
                }
                0xE0 => colour.jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
                0xEE if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    colour.adobe = Some(segment[11]);
                }
                0xE1..=0xEF | 0xFE => {}
                0xDA if count > 0 => {
                    if !header.progressive {
                        header.read_scan(segment, count)?;
                    }
                    (header.first_scan, header.samples) = (at - 2 - length, at);
                    break;
                }
                _ => header.tables.read(marker, segment)?,
            }
        }
        header.sampling = header.find_sampling(count)?;
        let ids = header.components.map(|component| component.id);
        // With so few columns of chroma, libjpeg's smooth upsampling differs.
        let few = header.sampling.luma_blocks().0 == 2 && header.width <= 4;
        (!few && (count == 1 || colour.is_ycc(ids))).then_some(header)
    }

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
            // With one component, a unit is one block, whatever the sampling factors are.
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
}

/// The signs of how three components encode colour.
#[derive(Default)]
struct Colour {
    jfif: bool,
    adobe: Option<u8>,
}

impl Colour {
    /// Whether libjpeg treats the components as luma and chroma. The first sign that is present decides.
    fn is_ycc(&self, ids: [u8; 3]) -> bool {
        match (self.jfif, self.adobe) {
            (true, _) => true,
            // A transform other than 1 means RGB, or a warning.
            (false, Some(transform)) => transform == 1,
            (false, None) => ids == [1, 2, 3],
        }
    }
}
