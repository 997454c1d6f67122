"""Download files of hub repositories with huggingface_hub."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

from huggingface_hub import (
    _CACHED_NO_EXIST,
    constants,
    get_session,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from prolip.errors import UserError

HUB_FAILURES = cast(tuple[type[Exception], ...], (OSError, HFValidationError, *HfHubHTTPError.__bases__))
"""Errors of the hub client's HTTP library need not be OSErrors."""


class DownloadError(UserError):
    """A file is neither in the cache nor can be downloaded; the message says why."""


def hub_file(repository: str, name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The local path of a repository's file, downloaded unless the cache has it; None if there is no such file.

    `HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN` and `HF_ENDPOINT` work as in huggingface_hub.

    Args:
        repository: "OWNER/NAME", or "OWNER/NAME@REVISION".
        name: the file's.
        cache_dir: None for huggingface_hub's.

    Raises:
        DownloadError: the repository cannot be reached or read, or is not there.
    """
    found = ask_hub(repository, name, cache_dir)
    if isinstance(found, DownloadError):
        raise found
    return found


def ask_hub(repository: str, name: str, cache_dir: str | Path | None = None) -> Path | DownloadError | None:
    """As `hub_file`, but returns the error, for a file that a model can do without."""
    owner_name, _, revision = repository.partition("@")
    known: object = None
    try:
        known = try_to_load_from_cache(owner_name, name, cache_dir, revision or None)
        if not isinstance(known, str) and not constants.HF_HUB_OFFLINE:
            _check_answers(constants.ENDPOINT)
        return Path(hf_hub_download(owner_name, name, revision=revision or None, cache_dir=cache_dir))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        return None if known is _CACHED_NO_EXIST else _sentence(error, repository, name)
    except EntryNotFoundError:
        return None
    except HUB_FAILURES as error:
        return _sentence(error, repository, name)


def hub_data_set(repository: str, patterns: Sequence[str], ignored: Sequence[str]) -> Path | None:
    """The local folder of a data set's repository "OWNER/NAME", downloaded unless the cache has it.

    None if there is no such repository, or if `HF_HUB_OFFLINE` is set and the cache lacks it. Only files that match
    `patterns` and not `ignored` are downloaded.

    Raises:
        DownloadError: the repository cannot be reached or read.
    """
    try:
        return Path(
            snapshot_download(
                repository, repo_type="dataset", allow_patterns=list(patterns), ignore_patterns=list(ignored)
            )
        )
    except HUB_FAILURES as error:
        unknown = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
        if unknown or (constants.HF_HUB_OFFLINE and isinstance(error, LocalEntryNotFoundError)):
            return None
        raise _sentence(error, repository, "the data set") from None


@cache
def _check_answers(endpoint: str) -> None:
    """Check once that the hub can be reached, with one retry; its client would retry each file for 23 s."""
    for wait in (1, None):
        try:
            get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except HUB_FAILURES as error:
            if wait is None:
                raise LocalEntryNotFoundError(str(error)) from error
            time.sleep(wait)
        else:
            return


def first_line(error: Exception) -> str:
    """What an error of the client says, without its advice."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _sentence(error: Exception, repository: str, name: str) -> DownloadError:
    match error:
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            offline = constants.HF_HUB_OFFLINE
            why = "HF_HUB_OFFLINE is set" if offline else f"the hub cannot be reached ({constants.ENDPOINT})"
            why = f"{name} is not in the cache, and {why}"
        case GatedRepoError():
            why = "access must be granted on its page, and `hf auth login` must know your token"
        case RepositoryNotFoundError():
            why = "the hub has no such repository, or it is private and `hf auth login` is needed"
        case RevisionNotFoundError():
            why = "the repository has no such revision"
        case HFValidationError():
            why = "a hub repository must be OWNER/NAME"
        case _:
            why = f"{name} cannot be downloaded: {first_line(error)}"
    return DownloadError(repository, why)
