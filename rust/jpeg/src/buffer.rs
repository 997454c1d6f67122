//! Buffers that a thread reuses.

/// A buffer may keep this many bytes whatever its next use.
pub(crate) const KEPT: usize = 32 << 20;

/// The first `length` bytes of a reused buffer. Their content is unspecified.
///
/// The memory of one huge image must not be held for the rest of a run: a buffer larger than [`KEPT`] shrinks when less than
/// a quarter of it is used.
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

#[cfg(test)]
mod tests {
    use super::{KEPT, first_bytes};

    #[test]
    fn buffers_of_ordinary_size_keep_their_memory() {
        let mut buffer = Vec::new();
        first_bytes(&mut buffer, KEPT).fill(7);
        let address = buffer.as_ptr();
        assert!(first_bytes(&mut buffer, 10).iter().all(|&byte| byte == 7));
        assert_eq!(first_bytes(&mut buffer, KEPT).len(), KEPT);
        assert_eq!(buffer.as_ptr(), address);
    }

    #[test]
    fn memory_of_a_huge_image_is_released_for_a_smaller_one() {
        let mut buffer = Vec::new();
        first_bytes(&mut buffer, 5 * KEPT);
        first_bytes(&mut buffer, 2 * KEPT);
        assert!(buffer.capacity() >= 5 * KEPT);
        first_bytes(&mut buffer, KEPT);
        assert!(buffer.capacity() < 2 * KEPT, "{}", buffer.capacity());
    }
}
