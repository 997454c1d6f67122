"""Object stores on loopback, and the environment variables that point a client to them."""

from contextlib import contextmanager

from tests.support import servers
from tests.support.azure import ACCOUNT, KEY, azure
from tests.support.remote_shards import (
    BUCKET,
)

S3 = {"ALLOW_HTTP": "true", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}


def s3_settings(monkeypatch, endpoint):
    for name, value in {**S3, "ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def google_settings(monkeypatch, endpoint):
    for name, value in {"BASE_URL": endpoint, "ALLOW_HTTP": "true", "SKIP_SIGNATURE": "true"}.items():
        monkeypatch.setenv(f"GOOGLE_{name}", value)


def azure_settings(monkeypatch, endpoint):
    account = {"STORAGE_ACCOUNT_NAME": ACCOUNT, "STORAGE_ACCOUNT_KEY": KEY}
    for name, value in {**account, "STORAGE_ENDPOINT": endpoint, "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)


@contextmanager
def object_store(scheme, folder, work):
    """The endpoint of a store with the folder's files below `data/` in the bucket."""
    server = {
        "s3": lambda: servers.moto(folder, BUCKET),
        "gs": lambda: servers.gcs(folder, BUCKET, work),
        "az": lambda: azure(folder, BUCKET),
    }[scheme]()
    with server as endpoint:
        yield endpoint


SETTINGS = {"s3": s3_settings, "gs": google_settings, "az": azure_settings}
