"""Fused losses: a custom op computes the gradients in the forward pass, and the backward pass scales them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torch._library.custom_ops import CustomOpDef


def register_gradients(op: CustomOpDef) -> None:
    """Register shapes and autograd of an op that returns a scalar and the gradients of its input tensors.

    Its arguments are lists of tensors, then settings, the last of which is `training`. Without it, there are no
    gradients.
    """
    op.register_fake(_shapes)
    op.register_autograd(_scale_gradients, setup_context=_keep_gradients)


def _shapes(*arguments: Any) -> tuple[Tensor, list[Tensor]]:
    inputs = [tensor for argument in arguments if isinstance(argument, list) for tensor in argument]
    training: bool = arguments[-1]
    return inputs[0].new_empty(()), [tensor.new_empty(tensor.shape) for tensor in inputs] if training else []


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1])


def _scale_gradients(
    ctx: Any, upstream: Tensor, of_gradients: list[Tensor | None]
) -> tuple[list[Tensor | None] | None, ...]:
    # Without this error, the loss's second derivatives would count as zero.
    if any(grad is not None for grad in of_gradients):
        raise RuntimeError("the contrastive losses have no second derivatives")
    grads = iter(ctx.saved_tensors)

    def scaled(needed: bool) -> Tensor | None:
        grad: Tensor = next(grads)
        return grad * upstream if needed else None

    return tuple(
        [scaled(one) for one in needed] if isinstance(needed, list) else None for needed in ctx.needs_input_grad
    )
