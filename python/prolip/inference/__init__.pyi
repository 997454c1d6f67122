from .classify import Classification as Classification
from .encoder import Encoded as Encoded, Encoder as Encoder
from .load_model import load as load, of_open_clip as of_open_clip
from .model import Model as Model, of_prolip as of_prolip, weights_digest as weights_digest
from .tokenizer import own_tokenizer as own_tokenizer
