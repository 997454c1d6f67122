//! How an image must be turned.

use memchr::memmem;

/// The tag of the orientation in a TIFF header, and the type of its value.
const TAG_AND_SHORT: [u32; 2] = [0x112, 3];

/// Of a JPEG, PNG or WebP file, 1 to 8; 1 if it has none.
pub(super) fn orientation(bytes: &[u8]) -> u32 {
    let name = match bytes {
        [0xFF, ..] => &b"Exif\0"[..],
        [b'R', ..] => b"EXIF",
        _ => b"eXIf",
    };
    // By its name, which every file with EXIF data has. In other places no TIFF header follows this name.
    let orientation = memmem::find(bytes, name).and_then(|at| {
        let mut starts = at..at + 20;
        starts.find_map(|start| of_tiff(bytes.get(start..)?))
    });
    orientation.filter(|number| (1..=8).contains(number)).unwrap_or(1)
}

fn of_tiff(bytes: &[u8]) -> Option<u32> {
    let is_big = match bytes.first_chunk()? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let number = |at: usize, length: usize| {
        let bytes = bytes.get(at..at.checked_add(length)?)?.iter().map(|&byte| u32::from(byte));
        let join = |number, byte| number << 8 | byte;
        Some(if is_big { bytes.fold(0, join) } else { bytes.rev().fold(0, join) })
    };
    let first = number(4, 4)? as usize;
    let entries = (0..number(first, 2)? as usize).map(|entry| first + 2 + entry * 12);
    let mut found = entries.map_while(|at| Some((at, [number(at, 2)?, number(at + 2, 2)?])));
    let (at, _) = found.find(|(_, entry)| *entry == TAG_AND_SHORT)?;
    number(at + 8, 2)
}
