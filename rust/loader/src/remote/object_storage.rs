//! Requests to object stores through the `object_store` crate: credentials, signatures, endpoints and retries.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{ClientConfigKey, GetOptions, GetRange, ObjectStore, RetryConfig};

use super::address::Scheme;
use super::http::CONNECT_TIMEOUT;
use super::limits::Limits;
use super::request::{Answer, Want};
use super::retry::{Failure, error_text};
use crate::shards::Identity;

/// With settings from the environment (AWS_*, GOOGLE_*, AZURE_*).
pub(crate) fn open(
    scheme: Scheme,
    bucket: &str,
    limits: &Limits,
) -> Result<Arc<dyn ObjectStore>, Failure> {
    let retry = RetryConfig { max_retries: limits.retries as usize, ..RetryConfig::default() };
    // The crate limits the time of a whole request. We limit the wait for the next byte.
    let settings = [
        (ClientConfigKey::Timeout, "1 day".to_owned()),
        (ClientConfigKey::ReadTimeout, format!("{} ms", limits.timeout.as_millis())),
        (ClientConfigKey::ConnectTimeout, format!("{} s", CONNECT_TIMEOUT.as_secs())),
        (ClientConfigKey::Http1Only, "true".to_owned()),
    ];
    macro_rules! built {
        ($builder:expr, $key:ident) => {{
            let limited = settings.into_iter().fold($builder, |builder, (key, value)| {
                builder.with_config($key::Client(key), value)
            });
            let store = limited.with_retry(retry).build();
            store.map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        }};
    }
    let store = match scheme {
        Scheme::S3 => {
            built!(AmazonS3Builder::from_env().with_bucket_name(bucket), AmazonS3ConfigKey)
        }
        Scheme::Gs => {
            built!(GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket), GoogleConfigKey)
        }
        Scheme::Az => {
            built!(MicrosoftAzureBuilder::from_env().with_container_name(bucket), AzureConfigKey)
        }
    };
    store.map_err(|error| {
        let why = error_text(&error);
        Failure::terminal(format!("the store cannot be set up: {why}"))
    })
}

pub(crate) async fn get(
    store: &dyn ObjectStore,
    path: &Path,
    want: Want,
    known: Option<&Identity>,
) -> Result<Answer, Failure> {
    let options = GetOptions {
        range: match want {
            Want::Range(start, end) => Some(GetRange::Bounded(start..end)),
            Want::Whole => None,
        },
        if_match: known.and_then(Identity::strong_etag).map(str::to_owned),
        ..GetOptions::default()
    };
    let result = store.get_opts(path, options).await.map_err(failure)?;
    let identity = Identity {
        etag: result.meta.e_tag.clone(),
        modified: Some(result.meta.last_modified.to_rfc3339()),
        size: Some(result.meta.size),
    };
    let (start, ranged) = (result.range.start, want != Want::Whole);
    let body = result.into_stream().map_err(failure).boxed();
    Ok(Answer { identity, start, ranged, body })
}

/// The paths below a prefix, sorted.
pub(crate) async fn list(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>, Failure> {
    let prefix = Path::parse(prefix).map_err(|error| Failure::terminal(error_text(&error)))?;
    let listed = store.list(Some(&prefix)).map_ok(|meta| meta.location.to_string());
    let mut names: Vec<String> = listed.try_collect().await.map_err(failure)?;
    names.sort();
    Ok(names)
}

/// Final: the crate has retried already.
fn failure(error: object_store::Error) -> Failure {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Failure::of_status(404, None),
        Error::PermissionDenied { .. } => Failure::of_status(403, None),
        Error::Unauthenticated { .. } => Failure::of_status(401, None),
        Error::Precondition { .. } => Failure::of_status(412, None),
        _ => Failure::terminal(error_text(&error)),
    }
}
