from .config import LossConfig as LossConfig
from .inclusion import inclusion_loss as inclusion_loss
from .prolip import LossTerms as LossTerms, ProlipLoss as ProlipLoss
from .vib import vib_loss as vib_loss
