//! Requests to object stores through the `object_store` crate: credentials, signatures, endpoints. Retries are ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig,
};
use parking_lot::Mutex;

use super::address::Scheme;
use super::request::{Answer, Want, asked_pause, in_time};
use super::retry::{Failure, error_text, is_untrusted_certificate};
use crate::shards::Identity;

tokio::task_local! {
    /// Status and `Retry-After` of this task's last response. The crate's errors don't contain the latter.
    static LAST: Arc<Mutex<Last>>;
}

#[derive(Debug, Default, Clone, Copy)]
struct Last {
    status: Option<u16>,
    pause: Option<Duration>,
}

/// Creates clients that record the status of responses. Only the last one does, which asks for objects: the crate connects it
/// after those that ask for credentials.
#[derive(Debug, Default)]
struct RecordingConnector {
    inner: ReqwestConnector,
    connected: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct RecordingClient {
    inner: HttpClient,
    number: usize,
    connected: Arc<AtomicUsize>,
}

impl HttpConnector for RecordingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = self.inner.connect(options)?;
        let number = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        let connected = Arc::clone(&self.connected);
        Ok(HttpClient::new(RecordingClient { inner, number, connected }))
    }
}

impl HttpService for RecordingClient {
    fn call<'life, 'future>(
        &'life self,
        request: HttpRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let response = self.inner.execute(request).await?;
            if self.number == self.connected.load(Ordering::Relaxed) {
                let _ = LAST.try_with(|last| {
                    *last.lock() = Last {
                        status: Some(response.status().as_u16()),
                        pause: asked_pause(response.headers()),
                    };
                });
            }
            Ok(response)
        })
    }
}

/// Opens a bucket, with settings from the environment (AWS_*, GOOGLE_*, AZURE_*).
pub(crate) fn open(scheme: Scheme, bucket: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    let no_retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    // The crate limits the time of a whole request. We limit the wait for the next byte instead.
    let limits = [
        (ClientConfigKey::Timeout, "1 day"),
        (ClientConfigKey::ReadTimeout, "1 day"),
        (ClientConfigKey::ConnectTimeout, "20 seconds"),
        (ClientConfigKey::Http1Only, "true"),
    ];
    macro_rules! built {
        ($builder:expr, $key:ident) => {{
            let limited = limits.into_iter().fold($builder, |builder, (key, value)| {
                builder.with_config($key::Client(key), value)
            });
            let recorded = limited.with_http_connector(RecordingConnector::default());
            let store = recorded.with_retry(no_retries).build();
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
    let result = recorded(store.get_opts(path, options)).await?;
    let identity = Identity {
        etag: result.meta.e_tag.clone(),
        modified: Some(result.meta.last_modified.to_rfc3339()),
        size: Some(result.meta.size),
    };
    let (start, ranged) = (result.range.start, want != Want::Whole);
    let body = result.into_stream().map(|piece| {
        piece.map_err(|error| {
            Failure::again(format!("the connection broke: {}", error_text(&error)))
        })
    });
    Ok(Answer { identity, start, ranged, body: Box::pin(body) })
}

/// The paths below a prefix, sorted. `limit` is the longest wait for the next result.
pub(crate) async fn list(
    store: &dyn ObjectStore,
    prefix: &str,
    limit: Duration,
) -> Result<Vec<String>, Failure> {
    let prefix = Path::parse(prefix).map_err(|error| Failure::terminal(error_text(&error)))?;
    let (mut found, mut names) = (store.list(Some(&prefix)), Vec::new());
    loop {
        let next = recorded(async { found.next().await.transpose() });
        match in_time(limit, next).await?? {
            Some(meta) => names.push(meta.location.to_string()),
            None => break,
        }
    }
    names.sort();
    Ok(names)
}

/// Awaits a request. A failure contains the status and the `Retry-After` of the response.
async fn recorded<T>(request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
    let last = Arc::default();
    let result = LAST.scope(Arc::clone(&last), request).await;
    result.map_err(|error| {
        let last = *last.lock();
        failure(&error, last)
    })
}

fn failure(error: &object_store::Error, last: Last) -> Failure {
    use object_store::Error;
    let status = match error {
        Error::NotFound { .. } => Some(404),
        Error::PermissionDenied { .. } => Some(403),
        Error::Unauthenticated { .. } => Some(401),
        Error::Precondition { .. } => Some(412),
        _ => last.status.filter(|status| *status >= 400),
    };
    match (status, error) {
        (Some(status), _) => Failure::of_status(status, last.pause),
        (None, Error::Generic { .. }) if !is_untrusted_certificate(error) => {
            Failure::again(format!("no answer: {}", error_text(error)))
        }
        (None, _) => Failure::terminal(error_text(error)),
    }
}
