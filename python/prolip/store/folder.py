"""A folder on this machine or in an object store (`s3://`, `gs://`, `az://`), whose files are whole or absent."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prolip.errors import UserError
from prolip.store.atomic_writes import atomic_file, check_own_folder, check_writable

log = logging.getLogger(__name__)

_REMOTE = re.compile(r"(s3|gs|az)://[^/@?#]+/[^?#]+")
_SECRETS = re.compile(r"(?<=://)[^/\s]*@|\?\S*")
"""Of an address: user and password, and the query, which may be a signature."""
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT", "": ""}
_ATTEMPTS = 10
"""Of a request to S3, with pauses that grow to 20 s."""
_RETRY_LIMIT = timedelta(minutes=2)
"""Of a request to Google's store, with its retries."""


@dataclass(frozen=True)
class Folder:
    """A folder; file names are relative to it. Credentials and endpoints come from the environment, as in the loader.

    Raises:
        UserError: the address is not a path, nor BUCKET/PATH of a known store. All methods raise it, too, if the folder
            or the store refuses, or does not answer.
    """

    address: str
    """The path, or the address."""

    def __post_init__(self) -> None:
        if self.is_remote and not _REMOTE.fullmatch(self.address):
            shown = _SECRETS.sub("", self.address)
            raise UserError(shown, "must be a folder, or s3://BUCKET/PATH, gs:// or az:// without query and password")

    @property
    def is_remote(self) -> bool:
        """In an object store."""
        return "://" in self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return Path(self.address).name

    def at(self, file: str) -> str:
        """The address of a file."""
        return f"{self.address.rstrip('/')}/{file}" if self.is_remote else str(Path(self.address, file))

    def open(self, file: str) -> Any:
        """A stream of pyarrow that can seek; a local file is memory-mapped.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._using(file) as (store, path):
            return store.open_input_file(path)

    def read(self, file: str) -> bytes:
        """Of a small file; raises as `open` does."""
        with self._using(file) as (store, path):
            while True:
                with store.open_input_file(path) as stream:
                    content: bytes = stream.read()
                # pyarrow asks for the size first, and reads as many bytes of a file that is replaced in between.
                if not self.is_remote or store.get_file_info(path).size == len(content):
                    return content

    def write(self, file: str, data: Any) -> None:
        """Write a file: readers see the old one, or none, or all of the new one.

        Args:
            file: its name.
            data: bytes, or another object with a buffer. All of it, since closing a stream of pyarrow publishes what
                was written, also when an exception closes it.

        Raises:
            DiskFullError: the disk is full.
            OSError: the local file cannot be written; see `check_writable`.
        """
        content = memoryview(data)
        if self.is_remote:
            with self._using(file) as (store, path), store.open_output_stream(path) as stream:
                stream.write(content)
        else:
            with atomic_file(Path(self.at(file)), content.nbytes) as temporary:
                temporary.write_bytes(content)

    def create(self, file: str, data: bytes) -> bytes:
        """Write a small file unless it is there; returns what is there. Errors as for `write`.

        Of several processes, one creates a local file. pyarrow cannot tell a store to do so. There the last process of
        those that begin within a request's time writes it: read it again before the work counts as done.
        """
        with suppress(FileExistsError):
            if not self.is_remote:
                with atomic_file(Path(self.at(file)), len(data), new=True) as temporary:
                    temporary.write_bytes(data)
            elif not self.exists(file):
                self.write(file, data)
        return self.read(file)

    def list(self) -> set[str]:
        """The files directly in the folder; none if it does not exist.

        An empty file counts as absent: a killed writer may leave one in a store.
        """
        from pyarrow.fs import FileSelector

        with self._using("") as (store, path):
            found = store.get_file_info(FileSelector(path, allow_not_found=True))
        return {one.base_name for one in found if one.is_file and one.size}

    def exists(self, file: str) -> bool:
        """Whether the file is there, and not empty."""
        with self._using(file) as (store, path):
            return bool(store.get_file_info(path).size)

    def delete(self, file: str) -> None:
        """If it is there."""
        with suppress(FileNotFoundError), self._using(file) as (store, path):
            store.delete_file(path)

    def check_own(self, *marks: str) -> None:
        """Errors as for `check_own_folder`."""
        if not self.is_remote:
            check_own_folder(Path(self.address), *marks)
        elif (found := self.list()) and found.isdisjoint(marks):
            raise UserError("out", f"must be a new or empty folder, or hold {' or '.join(marks)}", self.address)

    @contextmanager
    def _using(self, file: str) -> Iterator[tuple[Any, str]]:
        """The file system of pyarrow, and the file's path in it. Errors get the address."""
        address = self.at(file).rstrip("/")
        scheme, _, path = address.rpartition("://")
        try:
            yield _file_system(scheme, os.environ.get(_ENDPOINTS[scheme])), path
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:  # pyarrow has no class of its own for errors of a store
            raise UserError(address, f"must be accessible ({_SECRETS.sub('', str(error))})") from error


def folder_of(address: str) -> tuple[Folder, str]:
    """A file's folder and name."""
    folder, name = os.path.split(address)
    return Folder(folder), name


def check_out(address: str) -> None:
    """Check, before long work, that a file can be written to an address; of a store, that it answers.

    Raises:
        UserError: the address is wrong, or its store does not answer.
        OSError: the local file cannot be written; see `check_writable`.
    """
    folder, _ = folder_of(address)
    if folder.is_remote:
        folder.list()
    else:
        check_writable(Path(address))


@cache
def _file_system(scheme: str, endpoint: str | None) -> Any:
    """pyarrow's. It retries what may be retried."""
    from pyarrow import fs

    setting, host, protocol = os.environ.get, urlsplit(endpoint or "").netloc, urlsplit(endpoint or "").scheme
    if scheme == "s3":
        return fs.S3FileSystem(
            region=setting("AWS_REGION"),
            anonymous=setting("AWS_SKIP_SIGNATURE") == "true",
            endpoint_override=endpoint,
            tls_ca_file_path=setting("SSL_CERT_FILE"),
            connect_timeout=20,
            request_timeout=30,
            allow_delayed_open=True,  # a small file takes one request
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        )
    if scheme == "gs":
        return fs.GcsFileSystem(
            anonymous=setting("GOOGLE_SKIP_SIGNATURE") == "true",
            scheme=protocol or None,
            endpoint_override=host or None,
            retry_time_limit=_RETRY_LIMIT,
        )
    if scheme == "az":
        account = setting("AZURE_STORAGE_ACCOUNT_NAME", "")
        # pyarrow puts the account's name before an authority that begins with a dot, and behind any other.
        place = {"authority": host.removeprefix(account), "scheme": protocol} if endpoint else {}
        return fs.AzureFileSystem(
            account,
            account_key=setting("AZURE_STORAGE_ACCOUNT_KEY"),
            sas_token=setting("AZURE_STORAGE_SAS_KEY"),
            **{f"{service}_storage_{name}": value for service in ("blob", "dfs") for name, value in place.items()},
        )
    return fs.LocalFileSystem(use_mmap=True)
