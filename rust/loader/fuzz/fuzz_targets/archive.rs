//! Any bytes as an archive: headers → members → samples. Members lie inside the archive, in order.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use prolip_loader::sample::Grouper;
use prolip_loader::tar::TarReader;

thread_local! {
    /// One file without a name, written over for every input.
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| tempfile::tempfile().expect("a temporary file"));
        file.set_len(0).expect("an empty file");
        file.write_all_at(bytes, 0).expect("room for the input");
        let Ok(mut reader) = TarReader::new(file) else {
            return;
        };
        let mut grouper = Grouper::default();
        let mut end = 0;
        while let Ok(Some(member)) = reader.next_member() {
            assert!(member.offset >= end, "members overlap");
            end = member.offset + member.size;
            assert!(end <= bytes.len() as u64, "a member reaches beyond the archive");
            if let Some(sample) = grouper.push(&member) {
                assert!(!sample.key.contains('\0'));
            }
        }
        let _ = grouper.finish();
    });
});
