from .gaussian import Gaussian as Gaussian, csd as csd, inclusion_score as inclusion_score
from .models.released import ReleasedModel as ReleasedModel, list_models as list_models
from .pretrained.classify import Classification as Classification
from .pretrained.model import Model as Model
from .pretrained.open import load as load

__version__: str
