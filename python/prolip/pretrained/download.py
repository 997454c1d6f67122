"""Download files of hub repositories with huggingface_hub's own cache, token and offline mode."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
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

_FAILURES = cast(tuple[type[Exception], ...], (OSError, *HfHubHTTPError.__bases__))
"""What an interrupted download raises. Errors of the hub client's HTTP library need not be OSErrors."""


class DownloadError(UserError):
    """A file of a hub repository that is neither in the cache nor can be downloaded; the message says why."""


def hub_file(repository: str, name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The local path of a repository's file, downloaded unless the cache has it; None if there is no such file.

    `HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN` and `HF_ENDPOINT` work as in huggingface_hub.

    Args:
        repository: "OWNER/NAME", or "OWNER/NAME@REVISION".
        name: the file's name.
        cache_dir: folder of the cache; None for huggingface_hub's.

    Raises:
        DownloadError: the repository cannot be reached or read, or is not there.
    """
    owner_name, _, revision = repository.partition("@")
    try:
        path = hf_hub_download(owner_name, name, revision=revision or None, cache_dir=cache_dir)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if try_to_load_from_cache(owner_name, name, cache_dir, revision or None) is _CACHED_NO_EXIST:
            return None
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set, and the cache does not have it"
        else:
            why = f"the hub cannot be reached ({constants.ENDPOINT}), and the cache does not have it"
        raise DownloadError(f"{repository}: {name} cannot be downloaded: {why}") from error
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise DownloadError(
            f"{repository}: access must be granted on its page, and `hf auth login` must know your token"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{repository}: the hub has no such repository, or it is private and `hf auth login` is needed"
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repository}: the repository has no revision {revision!r}") from error
    except HFValidationError as error:
        raise DownloadError(f"{repository} is not a hub repository: it must be OWNER/NAME") from error
    except _FAILURES as error:
        raise DownloadError(f"{repository}: {name} cannot be downloaded: {error}") from error
    return Path(path)
