"""Operations on tensors without values, where torch's own way is long: through layers of Python, for a shape.

Each takes what the operation takes and gives tensors of the same shapes, strides and types on torch's device "meta"; a
view shares the storage of its input, in-place operations give back what they were given. A test does every operation
of real steps both ways. What is not here (planners.memory) goes torch's way, which is remembered from call to call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _shaped(shape: Sequence[int], like: Tensor, stride: Sequence[int] | None = None) -> Tensor:
    """A tensor of the same type, contiguous where no stride is given."""
    if stride is None:
        return torch.empty(shape, dtype=like.dtype, device="meta")
    return torch.empty_strided(shape, stride, dtype=like.dtype, device="meta")


def _group_norm_backward(
    grad: Tensor, image: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, *sizes: Any
) -> tuple[Tensor | None, ...]:
    """The gradients of a group normalisation's input, weight and bias."""
    _, channels, _, _, wanted = sizes
    per_channel = mean if weight is None else weight
    gradients = (lambda: torch.empty_like(image), *(lambda: _shaped([channels], per_channel),) * 2)
    return tuple(gradient() if wants else None for gradient, wants in zip(gradients, wanted, strict=True))


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Any:
    if x.dtype != weight.dtype:
        return aten.native_layer_norm.default(x, shape, weight, bias, eps)
    kept = [*x.shape[: -len(shape)], *(1 for _ in shape)]
    return _shaped(x.shape, x), _shaped(kept, x), _shaped(kept, x)


def _layer_norm_backward(grad: Tensor, x: Tensor, shape: Sequence[int], *inputs: Any) -> tuple[Tensor | None, ...]:
    """The gradients of a layer normalisation's input, weight and bias."""
    _, _, weight, _, wanted = inputs
    likes = (x, weight, weight)
    return tuple(_shaped(like.shape, like) if wants else None for like, wants in zip(likes, wanted, strict=True))


def _matrix_product(*matrices: Tensor, **_: Any) -> Tensor:
    left, right = matrices[-2:]
    return _shaped((left.shape[0], right.shape[1]), left)


def _elementwise(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation whose result is laid out as its largest argument is, where that is without doubt."""

    def short_way(*args: Any, **kwargs: Any) -> Tensor:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        largest = max(tensors, key=Tensor.numel)
        if (
            largest.is_floating_point()
            and 1 not in largest.shape  # its stride could be anything
            and _dense(largest)
            and all(_follows(tensor, largest) for tensor in tensors)
        ):
            return _shaped(largest.shape, largest, largest.stride())
        return operation(*args, **kwargs)

    return short_way


def _copy(tensor: Tensor, *, dtype: torch.dtype | None = None, **how: Any) -> Tensor:
    if how.get("memory_format") in (None, torch.preserve_format) and _dense(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype or tensor.dtype, device="meta")
    return torch.empty_like(tensor, dtype=dtype, memory_format=how.get("memory_format"))


def _follows(tensor: Tensor, largest: Tensor) -> bool:
    """Whether it is of the same type and layout, or a vector along one axis of the other."""
    if tensor is largest:
        return True
    if tensor.dtype != largest.dtype:
        return False
    if tensor.shape == largest.shape:
        return tensor.stride() == largest.stride()
    axes = list(zip(reversed(tensor.shape), reversed(largest.shape), strict=False))
    return (
        tensor.ndim <= largest.ndim
        and all(length in (1, longest) for length, longest in axes)
        and sum(length > 1 for length in tensor.shape) <= 1
    )


def _dense(tensor: Tensor) -> bool:
    """Whether its elements lie side by side."""
    size = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length != 1:
            if stride != size:
                return False
            size *= length
    return True


def _untouched(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


def _new(*args: Any, **kwargs: Any) -> Tensor:
    return aten.empty.memory_format(*args, **(kwargs | {"device": "meta"}))


SHORT_WAYS: dict[Any, Callable[..., Any]] = {
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.mm.default: _matrix_product,
    aten.addmm.default: _matrix_product,
    aten._to_copy.default: _copy,
    aten.clone.default: _copy,
    aten.empty.memory_format: _new,
    aten.uniform_.default: _untouched,
    aten.normal_.default: _untouched,
    aten.fill_.Scalar: _untouched,
    aten.zero_.default: _untouched,
    aten.leaky_relu_.default: _untouched,
}
SHORT_WAYS |= {
    operation: _elementwise(operation)
    for operation in (
        *(aten.mul.Tensor, aten.mul.Scalar, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.div.Scalar),
        *(aten.neg.default, aten.exp.default, aten.pow.Tensor_Scalar, aten.addcmul.default, aten.lerp.Tensor),
        *(aten.leaky_relu.default, aten.leaky_relu_backward.default, aten.gelu.default, aten.gelu_backward.default),
        *(aten.silu.default, aten.silu_backward.default, aten.sigmoid.default, aten.sigmoid_backward.default),
    )
}
SHORT_WAYS |= {
    operation: operation  # torch does it in C++, once it is asked without detours
    for operation in (
        *(aten.view.default, aten._unsafe_view.default, aten.t.default, aten.permute.default, aten.transpose.int),
        *(aten.slice.Tensor, aten.split.Tensor, aten.expand.default, aten.unsqueeze.default, aten.detach.default),
        *(aten.sum.default, aten.sum.dim_IntList),
    )
}
