from .gaussian import Gaussian as Gaussian, csd as csd, inclusion_score as inclusion_score
from .inference.classify import Classification as Classification
from .inference.load_model import load as load
from .inference.model import Model as Model
from .models.released import ReleasedModel as ReleasedModel, list_models as list_models

__version__: str
