//! Requests to HTTP servers.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MATCH,
    LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};

use super::request::{Answer, Want};
use super::retry::{Failure, error_text};
use crate::shards::Identity;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_REDIRECTIONS: usize = 10;

/// Waits for the next byte up to `timeout`. HTTP/1.1 only: over HTTP/2 all ranges would share one connection and one window. On a
/// redirect to another host the client drops tokens and passwords. It sends no `Referer`, whose query may be a signature.
pub(crate) fn client(timeout: Duration) -> Result<Client, Failure> {
    Client::builder()
        .http1_only()
        .redirect(Policy::custom(followed))
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(timeout)
        .user_agent(concat!("prolip/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure::terminal(format!("no HTTP client: {}", error_text(&error))))
}

fn followed(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let encrypted = attempt.previous().iter().any(|url| url.scheme() == "https");
    if encrypted && attempt.url().scheme() != "https" {
        attempt.error("it redirects from https to an address without encryption")
    } else if attempt.previous().len() > MAX_REDIRECTIONS {
        attempt.error("too many redirections")
    } else {
        attempt.follow()
    }
}

/// Also returns the final URL, if a redirect led to another server.
pub(crate) async fn get(
    client: &Client,
    url: &str,
    token: Option<&str>,
    want: Want,
    known: Option<&Identity>,
) -> Result<(Answer, Option<Url>), Failure> {
    // With content encoding, ranges would refer to the compressed bytes.
    let mut request = client.get(url).header(ACCEPT_ENCODING, "identity");
    if let Want::Range(start, end) = want {
        request = request.header(RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
    }
    if let Some(etag) = known.and_then(Identity::strong_etag) {
        request = request.header(IF_MATCH, etag);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.map_err(request_failure)?;
    let headers = response.headers();
    let status = response.status();
    let (start, ranged, size) = match (status, want) {
        (StatusCode::PARTIAL_CONTENT, Want::Range(wanted, _)) => {
            let (start, end, size) = content_range(headers)
                .ok_or_else(|| Failure::again("an answer without its Content-Range"))?;
            if start != wanted {
                return Err(Failure::again("an answer with another range than asked for"));
            }
            let length = number(headers, CONTENT_LENGTH);
            if end > size || length.is_some_and(|length| start.checked_add(length) != Some(end)) {
                return Err(Failure::again(
                    "an answer whose Content-Range and Content-Length disagree",
                ));
            }
            (start, true, Some(size))
        }
        (StatusCode::OK, _) => (0, false, number(headers, CONTENT_LENGTH)),
        _ => {
            // Seconds. A date is ignored, so the usual pause applies.
            let pause = number(headers, RETRY_AFTER).map(Duration::from_secs);
            return Err(Failure::of_status(status.as_u16(), pause));
        }
    };
    let identity =
        Identity { etag: text(headers, ETAG), modified: text(headers, LAST_MODIFIED), size };
    let landed = Url::parse(url)
        .is_ok_and(|url| url.origin() != response.url().origin())
        .then(|| response.url().clone());
    let body = response.bytes_stream().map(|piece| piece.map_err(body_failure));
    let answer = Answer { identity, start, ranged, body: Box::pin(body) };
    Ok((answer, landed))
}

fn request_failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_builder() || error.is_redirect() || is_untrusted_certificate(&error) {
        return Failure::terminal(error_text(&error));
    }
    Failure::again(format!("no answer: {}", error_text(&error)))
}

fn body_failure(error: reqwest::Error) -> Failure {
    Failure::again(format!("the connection broke: {}", error_text(&error.without_url())))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Start, end and size from `bytes FIRST-LAST/SIZE`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (start, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let end = last.checked_add(1).filter(|end| *end > start)?;
    Some((start, end, size.trim().parse().ok()?))
}

fn is_untrusted_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = inner.downcast_ref() {
            return true;
        }
        // The error inside an io::Error is not its source.
        let packed = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match packed {
            Some(packed) => Some(packed),
            None => inner.source(),
        };
    }
    false
}
