from .config import AdaptOptions as AdaptOptions, HeadsConfig as HeadsConfig
from .heads import fit_heads as fit_heads
from .logits import fit_logits as fit_logits
from .pairs import Pairs as Pairs, open_pairs as open_pairs
from .run import run_adapt as run_adapt
