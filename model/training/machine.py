"""Machine-specific settings that make training faster without changing its results."""

import ctypes
import platform

import torch
from torch import Tensor, nn

from model.recipe import Recipe

# mallopt's parameters, malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 256 * 2**20


def keep_freed_memory() -> None:
    """Stop malloc from returning freed memory to the kernel; does nothing without glibc.

    On the CPU, each iteration frees and allocates the same gigabyte, and its page faults take a quarter of the time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, -1)
    library.mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)


def strided_depthwise_in_float32(network: nn.Module) -> None:
    """Make strided depthwise convolutions compute in float32 under bfloat16 autocast on the CPU.

    oneDNN has no fast bfloat16 backward pass for them: at 192x96, three layers took a quarter of an iteration of
    `mobile`.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and module.stride != (1, 1):
            module.__class__ = _Float32Conv2d


class _Float32Conv2d(nn.Conv2d):
    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def slow_precision(recipe: Recipe, device: torch.device) -> tuple[str, ...]:
    """A warning if the device is a CPU without instructions for the recipe's precision."""
    if device.type != "cpu" or recipe.precision == "float32":
        return ()
    if recipe.precision == "bfloat16" and torch.cpu._is_avx512_bf16_supported():
        return ()
    return (f"this processor computes slowly in {recipe.precision}; --set 'precision=\"float32\"' is faster here",)
