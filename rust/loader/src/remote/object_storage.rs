//! Requests to object stores, through the `object_store` crate: its credentials, signatures and endpoints, our retries.

use std::sync::Arc;
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
use super::retry::{Failure, is_distrust, words};
use crate::shards::Identity;

tokio::task_local! {
    /// The status and the pause of the last answer to this task's request: the crate's errors do not carry the pause.
    static LAST: Arc<Mutex<Last>>;
}

#[derive(Debug, Default, Clone, Copy)]
struct Last {
    status: Option<u16>,
    pause: Option<Duration>,
}

/// Makes clients that note what servers answer.
#[derive(Debug, Default)]
struct Noting(ReqwestConnector);

#[derive(Debug)]
struct NotingClient(HttpClient);

impl HttpConnector for Noting {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(NotingClient(self.0.connect(options)?)))
    }
}

impl HttpService for NotingClient {
    fn call<'life, 'future>(
        &'life self,
        request: HttpRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let response = self.0.execute(request).await?;
            // Where no request of ours is under way (a token that is refreshed by itself), there is nothing to note.
            let _ = LAST.try_with(|last| {
                *last.lock() = Last {
                    status: Some(response.status().as_u16()),
                    pause: asked_pause(response.headers()),
                };
            });
            Ok(response)
        })
    }
}

/// A store of one bucket, with what the environment says (AWS_*, GOOGLE_*, AZURE_*).
pub(crate) fn open(scheme: Scheme, bucket: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    let no_retries = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    // The crate's own limit is on a whole request, however much still comes; ours is on the wait for the next byte.
    let limits = [
        (ClientConfigKey::Timeout, "1 day"),
        (ClientConfigKey::ReadTimeout, "1 day"),
        (ClientConfigKey::ConnectTimeout, "20 seconds"),
        (ClientConfigKey::Http1Only, "true"),
    ];
    let store: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
        Scheme::S3 => limits
            .into_iter()
            .fold(AmazonS3Builder::from_env(), |builder, (key, value)| {
                builder.with_config(AmazonS3ConfigKey::Client(key), value)
            })
            .with_bucket_name(bucket)
            .with_retry(no_retries)
            .with_http_connector(Noting::default())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        Scheme::Gs => limits
            .into_iter()
            .fold(
                GoogleCloudStorageBuilder::from_env(),
                |builder, (key, value)| builder.with_config(GoogleConfigKey::Client(key), value),
            )
            .with_bucket_name(bucket)
            .with_retry(no_retries)
            .with_http_connector(Noting::default())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        Scheme::Az => limits
            .into_iter()
            .fold(
                MicrosoftAzureBuilder::from_env(),
                |builder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value),
            )
            .with_container_name(bucket)
            .with_retry(no_retries)
            .with_http_connector(Noting::default())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
    };
    store.map_err(|error| {
        Failure::terminal(format!("the store cannot be set up: {}", words(&error)))
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
    let result = noting(store.get_opts(path, options)).await?;
    let identity = Identity {
        etag: result.meta.e_tag.clone(),
        // An object store without ETags still says when the object was made.
        modified: Some(result.meta.last_modified.to_rfc3339()),
        size: Some(result.meta.size),
    };
    let (start, ranged) = (result.range.start, want != Want::Whole);
    let body = result.into_stream().map(|piece| {
        piece.map_err(|error| Failure::again(format!("the connection broke: {}", words(&error))))
    });
    Ok(Answer {
        identity,
        start,
        ranged,
        body: Box::pin(body),
    })
}

/// The paths of a bucket below a prefix, sorted; `limit` is on the wait for the next.
pub(crate) async fn list(
    store: &dyn ObjectStore,
    prefix: &str,
    limit: Duration,
) -> Result<Vec<String>, Failure> {
    let prefix = Path::parse(prefix).map_err(|error| Failure::terminal(words(&error)))?;
    let (mut found, mut names) = (store.list(Some(&prefix)), Vec::new());
    loop {
        let next = noting(async { found.next().await.transpose() });
        match in_time(limit, next).await?? {
            Some(meta) => names.push(meta.location.to_string()),
            None => break,
        }
    }
    names.sort();
    Ok(names)
}

/// Awaits a request; a failure carries the status and the pause of its answer.
async fn noting<T>(request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
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
        (None, Error::Generic { .. }) if !is_distrust(error) => {
            Failure::again(format!("no answer: {}", words(error)))
        }
        (None, _) => Failure::terminal(words(error)),
    }
}
