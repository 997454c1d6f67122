//! Lets several threads write into one allocation, a batch, because no lock may stand between the threads that decode into its
//! contiguous pixels. [`RowSlots`] hands out each slot once. The thread that returns the last one gets the whole batch.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::array_pool::Lease;
use super::batch::Row;

#[derive(Debug)]
pub(crate) struct RowSlots {
    /// `None` once the last slot has come back.
    whole: UnsafeCell<Option<(Lease, Vec<Row>)>>,
    images: *mut u8,
    first_row: *mut Row,
    image_bytes: usize,
    len: usize,
    next: AtomicUsize,
    unfinished: AtomicUsize,
}

// SAFETY: `images` and `first_row` point into the heap memory of `whole`, which moves with `self`. A slot's part of it is
// only reached through the one `RowSlot` of that index (`claim` gives out each index once), and the whole only by the
// `finish` of the last slot that comes back. `Lease` and `Row` are Send, so both may be on any thread.
unsafe impl Send for RowSlots {}
// SAFETY: as above. Everything else that `&RowSlots` reaches is atomic.
unsafe impl Sync for RowSlots {}

#[derive(Debug)]
pub(crate) struct RowSlot<'slots> {
    slots: &'slots RowSlots,
    index: usize,
}

impl RowSlots {
    /// A slot for each of `rows`, with an image of `image_bytes`.
    pub fn new(mut lease: Lease, mut rows: Vec<Row>, image_bytes: usize) -> Self {
        let needed = rows.len().checked_mul(image_bytes);
        let fits = needed.is_some_and(|needed| needed <= lease.arrays.images.len());
        assert!(fits, "no room for the images of a batch");
        let (images, first_row, len) =
            (lease.arrays.images.as_mut_ptr(), rows.as_mut_ptr(), rows.len());
        Self {
            whole: UnsafeCell::new(Some((lease, rows))),
            images,
            first_row,
            image_bytes,
            len,
            next: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(len),
        }
    }

    pub fn claim(&self) -> Option<RowSlot<'_>> {
        // Calls that find no slot also add. A wrap would hand out a slot twice, but takes 2^64 calls.
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.len {
            return None;
        }
        Some(RowSlot { slots: self, index })
    }

    pub fn has_work(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.len
    }
}

impl RowSlot<'_> {
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn parts(&mut self) -> (&mut [u8], &mut Row) {
        let RowSlots { images, first_row, image_bytes, .. } = *self.slots;
        // SAFETY: index < len, and `new` checked that len images and len rows lie inside their allocations. Neither
        // is moved, grown or freed while this slot is out: `finish` takes the whole only after every slot has come
        // back. `claim` gave this index to nobody else, so no two slots' ranges overlap, and the references end with the
        // borrow of this slot.
        unsafe {
            let first = images.add(self.index * image_bytes);
            let image = std::slice::from_raw_parts_mut(first, image_bytes);
            (image, &mut *first_row.add(self.index))
        }
    }

    /// Returns the slot. The thread that returns the last one gets the arrays with all pixels, and the rows.
    pub fn finish(self) -> Option<(Lease, Vec<Row>)> {
        // Each slot is consumed here at most once, so the counter reaches 0 only with the last one. A slot that is
        // dropped instead keeps it above 0, and nobody gets the whole. Release: whoever gets the whole sees what was
        // written to this slot. Acquire: this thread sees what was written to the others.
        if self.slots.unfinished.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        // SAFETY: every slot was consumed, and `claim` hands out no more, so no reference into the whole is left, and
        // no other thread gets here. Nothing else reads this cell.
        unsafe { (*self.slots.whole.get()).take() }
    }
}

#[cfg(test)]
#[path = "row_slots_tests.rs"]
mod tests;
