//! What the first bytes of an image say: its size, and how it must be turned.

use image::metadata::Orientation;
use memchr::memmem;

/// Bytes in which the size is sought. Cameras write a small image and a colour profile before it, and WebP has EXIF data at the end.
const FIRST_BYTES: [usize; 4] = [1 << 12, 1 << 16, 1 << 20, 1 << 24];

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

/// Width and height of an encoded image after its turn. `None` if its first bytes do not tell.
///
/// `read` fills a buffer with the first bytes of the file and returns their number. It is called again while more are needed.
pub fn size_of(mut read: impl FnMut(&mut [u8]) -> usize) -> Option<[u32; 2]> {
    for length in FIRST_BYTES {
        let mut bytes = vec![0; length];
        let got = read(&mut bytes);
        bytes.truncate(got);
        // What must be there to be sure of the turn.
        let last = match &*bytes {
            [0x89, ..] => &b"IDAT"[..],
            [b'R', ..] if bytes.get(15) == Some(&b'X') && bytes.get(20)? & 8 != 0 => b"EXIF",
            _ => b"",
        };
        if memmem::find(&bytes, last).is_some()
            && let Ok(size) = imagesize::blob_size(&bytes)
        {
            let mut size = [size.width as u32, size.height as u32];
            if orientation(&bytes).to_exif() > 4 {
                size.reverse();
            }
            return (!size.contains(&0)).then_some(size);
        }
        if bytes.len() < length {
            break;
        }
    }
    None
}
