use super::super::array_pool::ArrayPool;
use super::*;
use crate::shards::SampleId;

fn id(index: usize) -> SampleId {
    SampleId { shard: 7, sample: index as u32 }
}

#[test]
fn each_slot_is_claimed_once_and_the_last_finish_returns_the_batch() {
    let slots = RowSlots::new(
        ArrayPool::new(1, 64 * 8).take(),
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
                        taken.lock().unwrap().push(whole);
                    }
                }
            });
        }
    });
    let mut taken = taken.into_inner().unwrap();
    assert_eq!(taken.len(), 1);
    let (lease, rows) = taken.remove(0);
    let images = lease.arrays.images.clone();
    assert!(
        (0..64).all(|index| { images[index * 8..][..8].iter().all(|&byte| byte == index as u8) })
    );
    assert!(rows.iter().enumerate().all(|(index, row)| row.sample == Some(id(index))));
}
