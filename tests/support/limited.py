"""A limit on the size of files, as of a full disk."""

import resource
import sys
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def file_limit(size):
    """Files of this process can't grow beyond `size`: the same error as a full disk, with another number.

    What is first imported meanwhile is not cached: Python would keep the half of a compiled module that fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with patch.object(sys, "dont_write_bytecode", True):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
