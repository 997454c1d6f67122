//! The decode-only benchmark: it decodes as many images as asked for and skips bad ones.

use prolip_loader::shards::Location;

use crate::common::{archive, member, png};
use prolip_loader::error::Error;
use prolip_loader::pipeline::decode_only;

fn write(folder: &tempfile::TempDir, name: &str, parts: &[Vec<u8>]) -> Location {
    let path = folder.path().join(name);
    std::fs::write(&path, archive(parts)).unwrap();
    Location::File(path)
}

#[test]
fn the_given_number_of_images_is_decoded_by_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let image = png(5, 4, [7, 8, 9]);
    let parts = [
        member("a.png", &image),
        member("b.png", b"no image"),
        member("c.png", &image),
        member("d.txt", b"no image"),
    ];
    let shard = write(&folder, "0.tar", &parts);
    for (images, threads) in [(1, 1), (3, 2), (50, 4)] {
        let mut loaded = 0;
        let run =
            decode_only(std::slice::from_ref(&shard), images, threads, 1 << 20, || loaded += 1)
                .unwrap();
        assert_eq!(run.images, images as u64);
        assert!(run.seconds > 0.0);
        assert_eq!(loaded, 1);
    }
}

#[test]
fn without_a_decodable_image_the_error_names_the_first_sample() {
    let folder = tempfile::tempdir().unwrap();
    let shard = write(&folder, "0.tar", &[member("bad.png", b"no image")]);
    let error = decode_only(&[shard], 10, 2, 1 << 20, || panic!("nothing was loaded")).unwrap_err();
    assert!(matches!(error, Error::TooManyBad { bad: 1, .. }));
    assert!(error.to_string().contains("sample bad"), "{error}");
}
