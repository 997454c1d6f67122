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
    // Searched by its name, which every file with EXIF data has. In other places no TIFF header follows this name.
    let orientation = memmem::find(bytes, name).and_then(|at| {
        let mut starts = at..at + 20;
        starts.find_map(|start| Orientation::from_exif_chunk(bytes.get(start..)?))
    });
    orientation.unwrap_or(Orientation::NoTransforms)
}
