# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the files of a family have the parts of experts."""

from collections.abc import Iterator

from slice_ros.engine.models.architecture import (
    Architecture, CHOICE_BIAS, DOWN, layer_name, mlp_parts, OF_EXPERTS, ROUTER, SHARED_GATE)
from slice_ros.engine.models.part_shapes import expert_shapes


class ExpertFiles:
    """The tensors of the experts of a decoder, by what its files call them."""

    def __init__(self, made: Architecture) -> None:
        self._experts = made.experts
        self._shapes, self._parts = expert_shapes(made), (*mlp_parts(made), DOWN)

    def needed(self, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes of the tensors of a layer, but for the shared expert."""
        for stem, shape, of_bias in self._tensors():
            yield f'{layer_name(layer, stem)}.weight', shape
            if self._experts.biased:
                yield f'{layer_name(layer, stem)}.bias', of_bias
        if self._experts.sigmoid:
            router = layer_name(layer, self._experts.files[ROUTER])
            yield f'{router}.{CHOICE_BIAS}', (self._experts.count,)

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Yield what a layer has, the shape, and that of its bias."""
        files, count = self._experts.files, self._experts.count
        yield files[ROUTER], self._shapes[ROUTER], (count,)
        for name in dict.fromkeys(files[part] for part in self._parts):
            parts = self._together(name)
            rows, inputs = sum(self._shapes[part][0] for part in parts), self._shapes[parts[0]][1]
            if '{}' not in name:
                yield name, (count, rows, inputs), (count, rows)
                continue
            for expert in reversed(range(count)):
                yield name.format(expert), (rows, inputs), (rows,)

    def holds(self, name: str) -> bool:
        """Return whether a tensor of the file is of an expert or of a router."""
        return ('.experts.' in name or SHARED_GATE.removesuffix('_gate') in name
                or name.endswith((f'.{self._experts.files[ROUTER]}.weight',
                                  f'.{self._experts.files[ROUTER]}.bias')))

    def place(self, layer: int, part: str) -> tuple[str, int, int | None, str]:
        """Return the tensor of a part of an expert, its rows there (None: all), and its part."""
        expert, _, name = part.removeprefix(OF_EXPERTS).partition('.')
        files, shapes, name = self._experts.files, self._shapes, f'mlp.{name}'
        if '{}' in files[name]:
            return layer_name(layer, files[name].format(expert)), 0, None, part
        # Rows of the parts of all experts, one below the other.
        together = self._together(files[name])
        before = together[:together.index(name)]
        first = sum(shapes[other][0] for other in int(expert) * together + before)
        return layer_name(layer, files[name]), first, first + shapes[name][0], part

    def _together(self, name: str) -> list[str]:
        """Return the parts of an expert that one tensor has."""
        return [part for part in self._parts if self._experts.files[part] == name]
