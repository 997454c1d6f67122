//! Separates and joins channels by moving bytes, for instruction sets without an instruction for it.

const NONE: u8 = 128;

/// Where the samples of each channel are in each third of 48 bytes.
pub(super) const SEPARATE: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[NONE; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at % 3][at / 16][at / 3] = (at % 16) as u8;
        at += 1;
    }
    places
};

/// The reverse: for each third of 48 bytes and each channel, which pixel is where.
pub(super) const JOIN: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[NONE; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at / 16][at % 3][at % 16] = (at / 3) as u8;
        at += 1;
    }
    places
};

macro_rules! planes {
    ($features:literal) => {
        /// Packed pixels to red, green and blue.
        #[inline]
        #[target_feature(enable = $features)]
        fn separate(thirds: [V; 3]) -> [V; 3] {
            let places = &super::planes::SEPARATE;
            [
                gather_all(thirds, &places[0]),
                gather_all(thirds, &places[1]),
                gather_all(thirds, &places[2]),
            ]
        }

        /// Red, green and blue to packed pixels.
        #[inline]
        #[target_feature(enable = $features)]
        fn join(channels: [V; 3]) -> [V; 3] {
            let places = &super::planes::JOIN;
            [
                gather_all(channels, &places[0]),
                gather_all(channels, &places[1]),
                gather_all(channels, &places[2]),
            ]
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn gather_all([a, b, c]: [V; 3], [in_a, in_b, in_c]: &[[u8; 16]; 3]) -> V {
            let two = or(gather(a, repeat(in_a)), gather(b, repeat(in_b)));
            or(two, gather(c, repeat(in_c)))
        }
    };
}
pub(super) use planes;
