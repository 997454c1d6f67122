//! A rectangular part of an image.

/// In pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl CropBox {
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    pub fn is_inside(self, width: u32, height: u32) -> bool {
        let inside = |start: u32, length: u32, whole: u32| {
            length > 0 && u64::from(start) + u64::from(length) <= u64::from(whole)
        };
        inside(self.x, self.width, width) && inside(self.y, self.height, height)
    }

    pub fn check(self, width: u32, height: u32) {
        assert!(self.is_inside(width, height), "the part is empty or lies outside the image");
    }
}
