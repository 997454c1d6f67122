from .config import AdaptOptions as AdaptOptions, HeadsConfig as HeadsConfig
from .heads import fit_heads as fit_heads
from .laplace import Posterior as Posterior, fit_laplace as fit_laplace
from .pairs import Pairs as Pairs, open_pairs as open_pairs
from .run import run_adapt as run_adapt
from .temperature import fit_logits as fit_logits
