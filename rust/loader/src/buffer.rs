//! Buffers that a thread reuses.

pub(crate) use prolip_jpeg::buffer::first_bytes;
