"""open_clip's CLIP tokenizer, made once: to read its 49,000 merges takes longer than to build a small model."""

import sys


def read_merges_once():
    """Has further tokenizers with the same settings take over what the first one has read, where there is open_clip."""
    if "open_clip" not in sys.modules:
        return
    from open_clip.tokenizer import SimpleTokenizer

    read = SimpleTokenizer.__init__
    known = {}

    def take(self, *values, **named):
        settings = repr((values, sorted(named.items())))
        if settings not in known:
            read(self, *values, **named)
            known[settings] = dict(vars(self), cache=dict(self.cache))
        vars(self).update(known[settings], cache=dict(known[settings]["cache"]))

    SimpleTokenizer.__init__ = take
