# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What layers that keep a state compute, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delta:
    """The gated delta rule (arXiv 2412.06464) of layers that keep a state in place of keys.

    Each key head serves value_heads / key_heads value heads. Queries, keys and values go through
    a convolution over the last `taps` tokens. `flat`: the file has the taps as [channels, taps],
    and the decays themselves, not the logarithm.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    taps: int
    flat: bool = False

    @property
    def channels(self) -> int:
        """Queries, keys and values of a token."""
        return 2 * self.key_heads * self.key_dim + self.values

    @property
    def values(self) -> int:
        return self.value_heads * self.value_dim

    @property
    def state_numbers(self) -> int:
        """Numbers that a request keeps in a layer."""
        return self.values * self.key_dim + (self.taps - 1) * self.channels


@dataclass(frozen=True, slots=True)
class ShortConv:
    """The short convolution of LFM2: c * conv(b * x) over `taps` tokens, of three projections.

    `flat`: the file has its weights as [channels, taps], else as [channels, 1, taps].
    """

    channels: int
    taps: int
    flat: bool = False

    @property
    def state_numbers(self) -> int:
        """Numbers that a request keeps in a layer."""
        return (self.taps - 1) * self.channels


@dataclass(frozen=True, slots=True)
class Mamba:
    """The state space of Mamba-2 (arXiv 2405.21060).

    Each group of heads has a B and a C of `state` numbers. Values, B and C go through a
    convolution over the last `taps` tokens. Steps are clamped to `steps`. The output is
    multiplied by silu(gates), before or behind an RMS norm over each of `norm_parts`. `flat`: the
    file has the taps as [channels, taps], and the decays themselves, not the logarithm.
    """

    heads: int
    head_dim: int
    groups: int
    state: int
    taps: int
    conv_bias: bool
    steps: tuple[float, float] = (0.0, float('inf'))
    norm_parts: int = 0        # 0: no norm
    norm_first: bool = False
    flat: bool = False

    @property
    def values(self) -> int:
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Values, B and C of a token."""
        return self.values + 2 * self.groups * self.state

    @property
    def state_numbers(self) -> int:
        """Numbers that a request keeps in a layer."""
        return self.values * self.state + (self.taps - 1) * self.channels
