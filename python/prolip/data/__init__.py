"""The data loader: threads in Rust read WebDataset shards and decode, augment, tokenize and mask them into batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
