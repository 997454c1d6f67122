//! Buffers that a thread reuses.

/// Bytes that a buffer may keep whatever its next use.
const KEPT: usize = 32 << 20;

/// The first `length` bytes of a reused buffer. Their content is unspecified.
///
/// A buffer larger than [`KEPT`] shrinks when less than a quarter is used: one huge image must not hold its memory for the rest
/// of a run.
pub fn first_bytes(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.capacity() > KEPT && buffer.capacity() / 4 > length {
        buffer.truncate(KEPT.max(length));
        buffer.shrink_to(KEPT.max(length));
    }
    if buffer.capacity() < length {
        // Fresh memory is zeros already.
        *buffer = vec![0; length];
    } else if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}
