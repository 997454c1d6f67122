use super::*;

#[test]
fn attempts_end_unless_bytes_arrive() {
    let mut attempts = Attempts::new(2);
    let failure = || Failure::of_status(503, None);
    assert!(attempts.failed(failure(), 0).is_ok());
    assert!(attempts.failed(failure(), 0).is_ok());
    assert!(attempts.failed(failure(), PROGRESS_BYTES).is_ok());
    assert!(attempts.failed(failure(), 0).is_ok());
    let failure = attempts.failed(failure(), 0).unwrap_err();
    let error = failure.into_error("http://h/a.tar");
    assert_eq!(error.to_string(), "the server answers 503 (tried 5 times)");
    let missing = attempts.failed(Failure::of_status(404, None), PROGRESS_BYTES);
    assert_eq!(missing.unwrap_err().verdict, Verdict::Final);
}

#[test]
fn retry_pauses_grow_within_bounds_and_vary() {
    for failures in 0..40 {
        let pause = backoff(failures);
        let full = FIRST_BACKOFF.as_secs_f64() * 2f64.powi(failures as i32);
        let full = full.min(LAST_BACKOFF.as_secs_f64());
        assert!(pause.as_secs_f64() <= full && pause.as_secs_f64() >= 0.499 * full);
    }
    assert_ne!(backoff(5), backoff(5));
    let mut attempts = Attempts::new(3);
    for (asked, given) in [(2, Duration::from_secs(2)), (100_000, LONGEST_PAUSE)] {
        let failure = Failure::of_status(503, Some(Duration::from_secs(asked)));
        assert_eq!(attempts.failed(failure, 0).unwrap(), given);
    }
}
