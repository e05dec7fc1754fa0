# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The token ids that stand for rows of images in a prompt.

Each is above every vocabulary and made of the key of the image and the number of the row: equal
ids are equal rows, so that whatever compares tokens finds images again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.config import Message

if TYPE_CHECKING:
    from slice_ros.engine.vision.pictures import Picture

IMAGE_TOKENS = 1 << 31   # ids from here on are rows of images
ROW_BITS = 16            # of such an id, less IMAGE_TOKENS; above them are those of the key


@dataclass(slots=True, eq=False)
class SeenImage:
    """What a model makes of a picture: `ids` in its prompt, some of which stand for `rows`.

    Whoever encodes it sets its rows, once, and forgets the picture.
    """

    key: int
    ids: Sequence[int]
    rows: np.ndarray | None   # float32 [tokens, width]; None: it was not encoded yet
    # Rows and columns that its tokens are laid out in, where positions have three numbers.
    grid: tuple[int, int] | None = None
    parts: int = 0            # of the picture: encoding takes about so many times the same
    picture: 'Callable[[], Picture] | None' = None   # what is to be encoded
    joined: bool = False      # its rows attend to each other, later ones too

    @property
    def length(self) -> int:
        """Rows that it has, or will have."""
        if self.rows is not None:
            return len(self.rows)
        return sum(token >= IMAGE_TOKENS for token in self.ids)


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """The tokens [begin, end) of an image in a prompt, laid out in a grid behind `first`."""

    begin: int
    end: int
    first: int               # position of its first row and column
    grid: tuple[int, int]

    @property
    def removed(self) -> int:
        """By how much the positions behind it are less than the tokens."""
        return self.end - self.first - max(self.grid)


def row_ids(key: int, rows: int) -> range:
    """Return the ids of the rows of an image, in order."""
    first = IMAGE_TOKENS + (key << ROW_BITS)
    return range(first, first + rows)


def key_and_row(token: int) -> tuple[int, int]:
    """Return the key and the row that such an id stands for."""
    return divmod(token - IMAGE_TOKENS, 1 << ROW_BITS)


def images_of(messages: Iterable[Message | tuple]) -> list:
    """Return the images of messages, in order."""
    return [image for message in messages for image in Message(*message).images]


def placed_images(ids: Sequence[int], seen: Mapping[int, SeenImage]) -> tuple[PlacedImage, ...]:
    """Return the images of a prompt that are laid out in grids.

    As Qwen-VL numbers them: an image is as long as its longer side.
    """
    placed, removed, at = [], 0, 0
    while at < len(ids):
        if ids[at] < IMAGE_TOKENS:
            at += 1
            continue
        image = seen[key_and_row(ids[at])[0]]
        end = at + image.length
        if image.grid is not None:
            placed.append(PlacedImage(at, end, at - removed, image.grid))
            removed = placed[-1].removed
        at = end
    return tuple(placed)


def joined_spans(ids: Sequence[int], seen: Mapping[int, SeenImage]
                 ) -> tuple[tuple[int, int], ...]:
    """Return the tokens [begin, end) of the images of a prompt whose rows attend to each other."""
    spans, at = [], 0
    while at < len(ids):
        if ids[at] < IMAGE_TOKENS:
            at += 1
            continue
        image = seen[key_and_row(ids[at])[0]]
        if image.joined:
            spans.append((at, at + image.length))
        at += image.length
    return tuple(spans)


def whole_chunk(spans: Sequence[tuple[int, int]], start: int, tokens: int) -> int:
    """Return how many tokens to feed from `start`, about `tokens`, so that no span is parted.

    It ends in front of the span that it would part, or, where it begins with that, behind it.
    """
    end = start + tokens
    for begin, stop in spans:
        if begin < end < stop:
            end = begin if begin > start else stop
    return end - start


def last_seen(spans: Sequence[tuple[int, int]], start: int, count: int) -> np.ndarray | None:
    """Return up to which position each token attends, int32 [count]; None where it is its own."""
    inside = [(begin, end) for begin, end in spans if start < end and begin < start + count]
    if not inside:
        return None
    seen = np.arange(start, start + count, dtype=np.int32)
    for begin, end in inside:
        seen[max(begin - start, 0):end - start] = end - 1
    return seen


def rope_positions(placed: Sequence[PlacedImage], start: int, count: int) -> np.ndarray:
    """Return the positions of tokens from `start`, int32 [count, 3]: time, row and column."""
    positions = np.repeat(np.arange(start, start + count, dtype=np.int32)[:, None], 3, 1)
    for image in placed:   # each moves what follows it: the last one counts
        behind = max(image.end - start, 0)
        positions[behind:] = np.arange(
            start + behind - image.removed, start + count - image.removed)[:, None]
        first, last = max(image.begin, start), min(image.end, start + count)
        if first < last:
            row, column = np.divmod(np.arange(first, last) - image.begin, image.grid[1])
            positions[first - start:last - start] = image.first
            positions[first - start:last - start, 1] += row
            positions[first - start:last - start, 2] += column
    return positions


def inputs_at(ids: Sequence[int], seen: Mapping[int, SeenImage]
              ) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
    """Return ids with 0 for the rows of images, and where which rows [n, width] stand."""
    plain, inputs, at = list(ids), [], 0
    while at < len(ids):
        if ids[at] < IMAGE_TOKENS:
            at += 1
            continue
        key, row = key_and_row(ids[at])
        end = at + 1
        while end < len(ids) and ids[end] == ids[at] + end - at:
            end += 1
        inputs.append((at, seen[key].rows[row:row + end - at]))
        plain[at:end] = [0] * (end - at)
        at = end
    return plain, inputs
