from .build_open_clip import of_open_clip as of_open_clip
from .classify import Classification as Classification
from .download import DownloadError as DownloadError
from .model import Model as Model, Parts as Parts, of_prolip as of_prolip, weights_digest as weights_digest
from .open import load as load
from .preprocess import Preprocess as Preprocess
from .sources import load_network as load_network, new_model as new_model, read_config as read_config
from .tokenizer import own_tokenizer as own_tokenizer
