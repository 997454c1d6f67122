from .architectures import ARCHITECTURES as ARCHITECTURES
from .config import (
    LockConfig as LockConfig,
    ModelConfig as ModelConfig,
    TextConfig as TextConfig,
    VisionConfig as VisionConfig,
)
from .convert_open_clip import StartError as StartError, start_from as start_from
from .hub import ModelCard as ModelCard, push_to_hub as push_to_hub, save_pretrained as save_pretrained
from .lock import lock_parameters as lock_parameters
from .prolip import ProLIP as ProLIP, ProLIPOutput as ProLIPOutput
