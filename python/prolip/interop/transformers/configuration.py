"""A model's configuration as transformers reads and writes it: the keys of the released models' config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from prolip.interop.transformers.single_file import CODE_MODULE, write_code
from prolip.models.config import ModelConfig
from prolip.models.official_json import from_official_json


class ProLIPConfig(PretrainedConfig):
    """Settings of a `ProLIPModel`: those of the released models, and the padding id."""

    model_type = "prolip"

    def __init__(
        self,
        *,
        embed_dim: int = 768,
        vision_cfg: dict[str, Any] | None = None,
        text_cfg: dict[str, Any] | None = None,
        quick_gelu: bool = False,
        init_logit_scale: float | None = None,
        init_logit_bias: float | None = None,
        pad_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes the keys of a released config.json; all other arguments are transformers' own.

        Args:
            embed_dim: dimension of the embeddings.
            vision_cfg: settings of the image tower that differ from the defaults (`prolip.models.VisionConfig`).
            text_cfg: settings of the text tower that differ from the defaults (`prolip.models.TextConfig`).
            quick_gelu: as in `prolip.models.ModelConfig`.
            init_logit_scale: as in `prolip.models.ModelConfig`.
            init_logit_bias: as in `prolip.models.ModelConfig`.
            pad_token_id: id that short rows of token ids are filled with. Without one, rows must have full length.
            kwargs: settings of transformers.
        """
        self.embed_dim = embed_dim
        self.vision_cfg = vision_cfg or {}
        self.text_cfg = text_cfg or {}
        self.quick_gelu = quick_gelu
        self.init_logit_scale = init_logit_scale
        self.init_logit_bias = init_logit_bias
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)
        # Without prolip, transformers finds these classes in the file beside the configuration.
        self.auto_map = {
            "AutoConfig": f"{CODE_MODULE}.ProLIPConfig",
            "AutoModel": f"{CODE_MODULE}.ProLIPModel",
            "AutoModelForZeroShotImageClassification": f"{CODE_MODULE}.ProLIPModel",
        }

    def model_config(self) -> ModelConfig:
        """Return the same settings as prolip's dataclass.

        Raises:
            UserError: a setting is unknown or not supported.
        """
        return from_official_json(
            {
                "embed_dim": self.embed_dim,
                "vision_cfg": self.vision_cfg,
                "text_cfg": self.text_cfg,
                "quick_gelu": self.quick_gelu,
                "init_logit_scale": self.init_logit_scale,
                "init_logit_bias": self.init_logit_bias,
            }
        )

    def to_json_file(self, json_file_path: str, use_diff: bool = True) -> None:
        """Write the configuration, and the code of the model beside it."""
        super().to_json_file(json_file_path, use_diff)
        write_code(Path(json_file_path).parent)
