from .classify import Classification as Classification
from .load_model import load as load
from .model import Model as Model, Parts as Parts, of_prolip as of_prolip, weights_digest as weights_digest
from .preprocess import Preprocess as Preprocess
from .tokenizer import own_tokenizer as own_tokenizer
from .wrap_open_clip import of_open_clip as of_open_clip
