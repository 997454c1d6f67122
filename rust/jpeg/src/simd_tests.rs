use super::*;

#[test]
fn names_select_levels_that_the_processor_has() {
    for (number, &level) in ALL.iter().enumerate() {
        assert_eq!(choose(level.name(), level), Ok(level));
        assert_eq!(choose("", level), Ok(level));
        assert_eq!(choose("portable", level), Ok(Level::Portable));
        for faster in &ALL[number + 1..] {
            assert!(choose(faster.name(), level).is_err());
        }
    }
    assert!(choose("AVX2", *ALL.last().unwrap()).is_err());
}

/// The tests of kernels skip the levels that the processor lacks. A CI job for one of them names it, and fails on a processor
/// without it.
#[test]
fn the_processor_has_the_required_level() {
    let Ok(required) = std::env::var("PROLIP_REQUIRE_SIMD") else {
        return;
    };
    let names: Vec<_> = runnable().map(Level::name).collect();
    println!("levels: {}", names.join(", "));
    assert!(
        names.contains(&required.as_str()),
        "{required} is required, this processor can run {}",
        names.join(", ")
    );
}
