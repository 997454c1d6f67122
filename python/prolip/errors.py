"""The errors that a user can cause. The command line prints them in one line; anything else keeps its traceback."""


class UserError(ValueError):
    """Wrong input: a setting, a file, an option. The message names it, its value and the rule."""


class NoSampleError(UserError):
    """The shards are intact, but hold no sample."""


class DataError(Exception):
    """Data that cannot be used: a damaged shard, an image that cannot be decoded, too many bad samples.

    The message names the shard and the sample's key.
    """
