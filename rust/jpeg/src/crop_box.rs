//! A rectangular part of an image.

/// A rectangular part of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// Columns left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl CropBox {
    /// The whole image.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// Whether it is not empty and inside an image of this size.
    #[must_use]
    pub fn is_inside(self, width: u32, height: u32) -> bool {
        let inside = |start: u32, length: u32, whole: u32| {
            length > 0 && u64::from(start) + u64::from(length) <= u64::from(whole)
        };
        inside(self.x, self.width, width) && inside(self.y, self.height, height)
    }

    /// Checks that it is not empty and inside an image of this size.
    ///
    /// # Panics
    /// It is not.
    pub fn check(self, width: u32, height: u32) {
        assert!(self.is_inside(width, height), "the part is empty or lies outside the image");
    }
}
