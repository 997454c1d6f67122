//! How an image must be turned.

use image::metadata::Orientation;
use memchr::memmem;

/// The EXIF orientation of a JPEG, PNG or WebP file.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    let name = match bytes {
        [0xFF, ..] => &b"Exif\0"[..],
        [b'R', ..] => b"EXIF",
        _ => b"eXIf",
    };
    // Found by its name, as every file that has one names it. Other bytes by this name have no TIFF header behind it.
    let found = memmem::find(bytes, name).and_then(|at| {
        let mut starts = at..at + 20;
        starts.find_map(|start| Orientation::from_exif_chunk(bytes.get(start..)?))
    });
    found.unwrap_or(Orientation::NoTransforms)
}
