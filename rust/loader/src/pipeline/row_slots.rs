//! The one place where several threads write into one allocation.
//!
//! A batch's pixels are contiguous, its samples are decoded by different threads, and no lock may stand between them.
//! [`Slots`] hands out each slot once. The thread that gives back the last one gets everything.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::memory_pool::Lease;
use super::row::Row;

/// A batch that is being filled.
#[derive(Debug)]
pub(crate) struct Slots {
    lease: UnsafeCell<Option<Lease>>,
    rows: UnsafeCell<Vec<Row>>,
    images: *mut u8,
    first_row: *mut Row,
    image_bytes: usize,
    len: usize,
    next: AtomicUsize,
    unfinished: AtomicUsize,
}

// SAFETY: `images` and `first_row` point into the heap memory of `lease` and `rows`, which moves with `self`. A slot's
// part of it is reached through the only `Slot` of that index (`claim` gives out each index once), and the whole
// through the only `Whole` (made when the last slot came back). `Lease` and `Row` are Send, so either may be on any thread.
unsafe impl Send for Slots {}
// SAFETY: as above; everything else that `&Slots` reaches is atomic.
unsafe impl Sync for Slots {}

/// One slot, in the hands of the one thread that may write to it.
#[derive(Debug)]
pub(crate) struct Slot<'slots> {
    slots: &'slots Slots,
    index: usize,
}

/// The right to a batch of which every slot came back.
#[derive(Debug)]
pub(crate) struct Whole<'slots>(&'slots Slots);

impl Slots {
    /// Slots for as many samples as there are `rows`, with pictures of `image_bytes` in the memory of `lease`.
    ///
    /// # Panics
    /// If the memory has no room for the pictures, which is a bug of the caller.
    pub fn new(mut lease: Lease, mut rows: Vec<Row>, image_bytes: usize) -> Self {
        let needed = rows.len().checked_mul(image_bytes);
        assert!(
            needed.is_some_and(|needed| needed <= lease.memory.images.len()),
            "no room for the pictures of a batch"
        );
        let (images, first_row, len) = (
            lease.memory.images.as_mut_ptr(),
            rows.as_mut_ptr(),
            rows.len(),
        );
        Self {
            lease: UnsafeCell::new(Some(lease)),
            rows: UnsafeCell::new(rows),
            images,
            first_row,
            image_bytes,
            len,
            next: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(len),
        }
    }

    /// A slot that nobody has had yet.
    pub fn claim(&self) -> Option<Slot<'_>> {
        // Threads that find nothing add too. A wrap, after which a slot would be given out twice, takes 2^64 calls.
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.len {
            return None;
        }
        Some(Slot { slots: self, index })
    }

    /// Whether a slot is left that nobody has had.
    pub fn has_work(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.len
    }
}

impl<'slots> Slot<'slots> {
    /// Its place in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its pixels, and what it holds besides.
    pub fn parts(&mut self) -> (&mut [u8], &mut Row) {
        let Slots {
            images,
            first_row,
            image_bytes,
            ..
        } = *self.slots;
        // SAFETY: index < len, and `new` made sure that len pictures and len rows lie inside their allocations. Neither is
        // moved, grown or freed before `Whole::take`, and no `Whole` exists while this slot is out. `claim` gave this index
        // to nobody else, so no two slots' ranges overlap, and the references end with the borrow of this slot.
        unsafe {
            let image = images.add(self.index * image_bytes);
            (
                std::slice::from_raw_parts_mut(image, image_bytes),
                &mut *first_row.add(self.index),
            )
        }
    }

    /// Gives the slot back; whoever gives back the last gets the whole batch.
    pub fn finish(self) -> Option<Whole<'slots>> {
        // Each slot is consumed here at most once, so the counter reaches 0 only with the last; one that is dropped instead
        // leaves it above 0 for ever, and nobody gets the whole.
        // Release: what was written to this slot is seen by whoever gets the whole. Acquire: and that is seen here.
        (self.slots.unfinished.fetch_sub(1, Ordering::AcqRel) == 1).then_some(Whole(self.slots))
    }
}

impl Whole<'_> {
    /// The memory with all pixels in it, and the rows.
    pub fn take(self) -> (Option<Lease>, Vec<Row>) {
        // SAFETY: there is one `Whole`, made after every slot was consumed, and `claim` gives no more. Nothing else
        // reads these cells.
        unsafe {
            (
                std::mem::take(&mut *self.0.lease.get()),
                std::mem::take(&mut *self.0.rows.get()),
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::memory_pool::Pool;
    use super::*;
    use crate::shards::SampleId;

    fn id(index: usize) -> SampleId {
        SampleId {
            shard: 7,
            sample: index as u32,
        }
    }

    #[test]
    fn every_slot_is_handed_out_once_and_the_last_one_gets_all() {
        let slots = Slots::new(
            Pool::new(1, 64 * 8).take(),
            (0..64).map(|_| Row::default()).collect(),
            8,
        );
        let taken = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(mut slot) = slots.claim() {
                        let index = slot.index();
                        let (image, row) = slot.parts();
                        image.fill(index as u8);
                        row.sample = Some(id(index));
                        if let Some(whole) = slot.finish() {
                            taken.lock().unwrap().push(whole.take());
                        }
                    }
                });
            }
        });
        let mut taken = taken.into_inner().unwrap();
        assert_eq!(taken.len(), 1);
        let (lease, rows) = taken.remove(0);
        let images = lease.unwrap().memory.images.clone();
        assert!((0..64).all(|index| {
            images[index * 8..][..8]
                .iter()
                .all(|&byte| byte == index as u8)
        }));
        assert!(
            rows.iter()
                .enumerate()
                .all(|(index, row)| row.sample == Some(id(index)))
        );
    }

    #[test]
    #[should_panic(expected = "no room for the pictures")]
    fn more_pictures_than_memory_are_a_bug() {
        let rows = || (0..4).map(|_| Row::default()).collect();
        drop(Slots::new(Pool::new(1, 32).take(), rows(), 8));
        // The product wraps to 0.
        drop(Slots::new(
            Pool::new(1, 32).take(),
            rows(),
            usize::MAX / 4 + 1,
        ));
    }

    #[test]
    fn a_slot_that_does_not_come_back_keeps_the_whole_back() {
        let rows = (0..2).map(|_| Row::default()).collect();
        let slots = Slots::new(Pool::new(1, 2).take(), rows, 1);
        let _lost = slots.claim().unwrap();
        assert!(slots.claim().unwrap().finish().is_none());
        assert!(slots.claim().is_none() && !slots.has_work());
    }
}
