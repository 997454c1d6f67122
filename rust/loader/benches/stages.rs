//! Microseconds of CPU time per photograph, on one thread, by stage and level of vector instructions:
//! `cargo bench --bench stages [ROUNDS]`. The photographs are those that `PROLIP_SHARED` (or `../shared` beside the repository)
//! holds. The contenders take turns, and a value is the median of the rounds, with the minimum and the maximum.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use prolip_image::{AugmentDraw, CropBox, Decoder, Filter, Rgb8, Scratch, apply};
use prolip_jpeg::simd::{Level, at, runnable};
use prolip_loader::config::AugmentConfig;
use prolip_loader::image::draw;
use prolip_loader::rng::{SampleRng, stream};
use rustix::time::{ClockId, clock_gettime};

const SIZE: u32 = 224;
const AUGMENT: AugmentConfig = AugmentConfig {
    crop_scale: (0.8, 1.0),
    crop_ratio: (0.75, 4.0 / 3.0),
    jitter: [0.32, 0.32, 0.32, 0.08],
    jitter_prob: 0.8,
    gray_prob: 0.2,
};

/// What a thread keeps from one photograph to the next.
struct Thread {
    decoder: Decoder,
    image: Rgb8,
    scratch: Scratch,
    out: Vec<u8>,
}

/// A stage: its name, and its work on a photograph of some number.
type Stage = (&'static str, fn(&mut Thread, &[u8], u64));

const STAGES: [Stage; 4] = [
    // All codes must be read, even for a crop.
    ("codes of all, one pixel of them", |thread, bytes, _| {
        let pixel = |_, _| CropBox::whole(1, 1);
        decode(thread, bytes, pixel);
    }),
    ("decode", |thread, bytes, _| {
        decode(thread, bytes, CropBox::whole);
    }),
    ("decode a crop", |thread, bytes, number| {
        decode(thread, bytes, |width, height| drawn(number, width, height).crop);
    }),
    ("decode a crop, augment", |thread, bytes, number| {
        let mut augmentation = None;
        decode(thread, bytes, |width, height| {
            augmentation.insert(drawn(number, width, height)).crop
        });
        let Thread { image, scratch, out, .. } = thread;
        apply(image, &augmentation.unwrap(), Filter::Bicubic, [SIZE; 2], scratch, out);
    }),
];

fn decode(thread: &mut Thread, bytes: &[u8], choose: impl FnOnce(u32, u32) -> CropBox) {
    let Thread { decoder, image, .. } = thread;
    decoder.decode_part(bytes, image, choose).unwrap();
}

fn drawn(number: u64, width: u32, height: u32) -> AugmentDraw {
    let mut rng = SampleRng::new(0, 0, number, stream::AUGMENT);
    draw(&AUGMENT, width, height, &mut rng)
}

fn photos() -> Vec<Vec<u8>> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("PROLIP_SHARED").map_or_else(beside, PathBuf::from);
    let folder = std::env::var_os("PHOTOS").map_or_else(|| shared.join("photos"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("no photographs in {}", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn cpu_microseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(7);
    let photos = photos();
    if photos.is_empty() {
        return;
    }
    let levels: Vec<Option<Level>> = runnable().map(Some).chain([None]).collect();
    let mut threads: Vec<Thread> = levels
        .iter()
        .map(|level| Thread {
            decoder: match level {
                Some(_) => Decoder::new(1 << 28),
                None => Decoder::of_libraries(1 << 28),
            },
            image: Rgb8::default(),
            scratch: Scratch::default(),
            out: vec![0; (SIZE * SIZE * 3) as usize],
        })
        .collect();
    for (name, work) in STAGES {
        let mut times = vec![Vec::new(); levels.len()];
        for _ in 0..rounds {
            for ((thread, level), times) in threads.iter_mut().zip(&levels).zip(&mut times) {
                let fastest = runnable().last().unwrap();
                let begun = cpu_microseconds();
                at(level.unwrap_or(fastest), || {
                    for (number, bytes) in photos.iter().enumerate() {
                        work(thread, bytes, number as u64);
                    }
                });
                times.push((cpu_microseconds() - begun) / photos.len() as f64);
            }
        }
        for (level, mut times) in levels.iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let level = level.map_or("libjpeg-turbo", Level::name);
            let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
            println!("{name}, {level}: {middle:.0} ({:.0} - {last:.0})", times[0]);
        }
    }
}
