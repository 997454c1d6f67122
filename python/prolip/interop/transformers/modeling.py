"""ProLIP as a model of transformers: prolip's own towers, so its numbers are those of `prolip.models`.

Exported folders have a copy of this file and of the modules of prolip that it imports by name.

N images, M texts, L tokens, H/W pixels, P side of a patch, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from prolip.gaussian import Gaussian, csd_logits
from prolip.images.tensors import Patches
from prolip.models.config import ModelConfig
from prolip.models.image_encoder import ImageEncoder
from prolip.models.official_json import from_official_json
from prolip.models.prolip import normalised
from prolip.models.text_encoder import TextEncoder


class ProLIPConfig(PretrainedConfig):
    """Settings of a `ProLIPModel`: the keys of a released config.json, and the padding id."""

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
        """Takes the keys of a released config.json (`prolip.models.ModelConfig`); others are transformers' own.

        Args:
            embed_dim: dimension of the embeddings.
            vision_cfg: settings of the image tower that differ from the defaults (`prolip.models.VisionConfig`).
            text_cfg: those of the text tower (`prolip.models.TextConfig`).
            quick_gelu, init_logit_scale, init_logit_bias: as in `ModelConfig`.
            pad_token_id: fills short rows of token ids. Without one, rows must have full length.
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

    def model_config(self) -> ModelConfig:
        """As prolip's dataclass.

        Raises:
            UserError: a setting is unknown or not supported.
        """
        keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias")
        return from_official_json({key: getattr(self, key) for key in keys})


@dataclass
class ProLIPModelOutput(ModelOutput):
    """Fields that depend on an input that was not given are None."""

    logits_per_image: Tensor | None = None
    """[N, M]: scale * (1 - csd / 2) + bias."""
    logits_per_text: Tensor | None = None
    """[M, N]: its transpose."""
    last_hidden_state: Tensor | None = None
    """[N, 2, D]: mean and log variance, of images or texts alone."""
    pooler_output: Tensor | None = None
    """[N, D]: the mean, of images or texts alone."""
    image_mean: Tensor | None = None
    """[N, D]; unit norm."""
    image_log_var: Tensor | None = None
    """[N, D]; natural log of the variance, minus infinity without variances."""
    text_mean: Tensor | None = None
    """[M, D]; unit norm."""
    text_log_var: Tensor | None = None
    """[M, D]; see `image_log_var`."""


class ProLIPModel(PreTrainedModel):
    """Probabilistic language-image model (arXiv:2410.18857): images and texts become Gaussians.

    The parameter `logit_scale` is the *log* of the similarity scale, as in the released checkpoints.
    """

    config_class = ProLIPConfig
    base_model_prefix = "prolip"
    main_input_name = "pixel_values"
    _no_split_modules = ("Block",)

    def __init__(self, config: ProLIPConfig) -> None:
        super().__init__(config)
        self.network_config = config.model_config()
        network = self.network_config
        self.logit_scale = nn.Parameter(torch.tensor(float(network.init_logit_scale)))
        self.logit_bias = (
            None if network.init_logit_bias is None else nn.Parameter(torch.tensor(float(network.init_logit_bias)))
        )
        self.visual = ImageEncoder(network.vision, network.embed_dim, quick_gelu=network.quick_gelu)
        self.text = TextEncoder(network.text, network.embed_dim, quick_gelu=network.quick_gelu)
        if self.logit_scale.device.type != "meta":  # where transformers builds a model that it fills later
            for module in self.modules():
                module._is_hf_initialized = True
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        missing = [name for name, _ in module.named_parameters(recurse=False) if not _loaded(module, name)]
        if missing:
            place = next(name for name, other in self.named_modules() if other is module)
            raise ValueError(f"the checkpoint lacks {', '.join(f'{place}.{name}' for name in missing)}")

    def encode_image(self, pixel_values: Tensor, spatial_shapes: Tensor | None = None) -> Gaussian:
        """Encode normalised pixels as Gaussians [N, D]; see `forward`."""
        pixels = pixel_values.to(self.visual.proj.dtype)
        return normalised(self.visual(pixels if spatial_shapes is None else Patches.of_grids(pixels, spatial_shapes)))

    def encode_text(self, input_ids: Tensor) -> Gaussian:
        """Encode token ids [M, L] as Gaussians [M, D]; short rows are padded to the full context first.

        Raises:
            ValueError: rows are short, and the configuration has no `pad_token_id`; or they are too long.
        """
        short = self.text.context_length - input_ids.shape[1]
        if short > 0 and self.config.pad_token_id is None:
            expected = self.text.context_length
            raise ValueError(f"input_ids: must be [M, {expected}] without pad_token_id (got {input_ids.shape[1]} ids)")
        if short > 0:
            input_ids = F.pad(input_ids, (0, short), value=self.config.pad_token_id)
        return normalised(self.text(input_ids))

    def get_image_features(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> ProLIPModelOutput:
        """As `forward` without texts."""
        return _alone("image", self.encode_image(pixel_values, spatial_shapes))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> ProLIPModelOutput:
        """As `forward` without images."""
        return _alone("text", self.encode_text(input_ids))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> ProLIPModelOutput | tuple[Tensor, ...]:
        """Encode images, texts, or both.

        Args:
            input_ids: token ids [M, L].
            pixel_values: normalised pixels [N, 3, H, W], or with `spatial_shapes` patches [N, L, P * P * 3].
            attention_mask: not used. The models were trained to attend to padding.
            return_dict: False for a tuple.
            pixel_attention_mask: not used. The grids tell which patches are padding.
            spatial_shapes: rows and columns of patches in each image [N, 2].
        """
        if input_ids is None:
            if pixel_values is None:
                raise ValueError("give input_ids, pixel_values, or both")
            output = self.get_image_features(pixel_values, spatial_shapes=spatial_shapes)
        elif pixel_values is None:
            output = self.get_text_features(input_ids)
        else:
            image, text = self.encode_image(pixel_values, spatial_shapes), self.encode_text(input_ids)
            logits = csd_logits(
                image, text, self.logit_scale.exp(), 0.0 if self.logit_bias is None else self.logit_bias
            )
            output = ProLIPModelOutput(
                logits_per_image=logits,
                logits_per_text=logits.T,
                image_mean=image.mean,
                image_log_var=image.log_var,
                text_mean=text.mean,
                text_log_var=text.log_var,
            )
        return output.to_tuple() if return_dict is False else output


def _alone(kind: str, gaussian: Gaussian) -> ProLIPModelOutput:
    return ProLIPModelOutput(
        last_hidden_state=torch.stack(gaussian, 1),
        pooler_output=gaussian.mean,
        **{f"{kind}_mean": gaussian.mean, f"{kind}_log_var": gaussian.log_var},
    )


def _loaded(module: nn.Module, name: str) -> bool:
    return bool(getattr(module.get_parameter(name), "_is_hf_initialized", False))
