"""ProLIP models in Hugging Face transformers: importing this package registers them with the Auto classes."""

from __future__ import annotations

from prolip.errors import UserError

try:
    import transformers
except ImportError as error:
    raise UserError("prolip.interop.transformers needs transformers", "pip install 'prolip[transformers]'") from error

from prolip.interop.transformers.fast import fast_processor
from prolip.interop.transformers.modeling import ProLIPConfig, ProLIPModel, ProLIPModelOutput
from prolip.interop.transformers.processing import ProLIPImageProcessor, ProLIPProcessor, ProLIPTokenizer

__all__ = [
    "ProLIPConfig",
    "ProLIPImageProcessor",
    "ProLIPModel",
    "ProLIPModelOutput",
    "ProLIPProcessor",
    "ProLIPTokenizer",
    "fast_processor",
]

transformers.AutoConfig.register(ProLIPConfig.model_type, ProLIPConfig)
transformers.AutoModel.register(ProLIPConfig, ProLIPModel)
transformers.AutoModelForZeroShotImageClassification.register(ProLIPConfig, ProLIPModel)
transformers.AutoImageProcessor.register(
    ProLIPConfig,
    # transformers looks for torchvision's first, and warns without one.
    image_processor_classes={"torchvision": ProLIPImageProcessor, "pil": ProLIPImageProcessor},
)
transformers.AutoTokenizer.register(ProLIPConfig, ProLIPTokenizer)
transformers.AutoProcessor.register(ProLIPConfig, ProLIPProcessor)
