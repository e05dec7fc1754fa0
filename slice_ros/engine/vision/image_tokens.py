# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The token ids that stand for rows of images in a prompt.

Each is above every vocabulary and made of the key of the image and the number of the row: equal
ids are equal rows, so that whatever compares tokens finds images again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.config import Message

IMAGE_TOKENS = 1 << 31   # ids from here on are rows of images
ROW_BITS = 16            # of such an id, less IMAGE_TOKENS; above them are those of the key


@dataclass(frozen=True, slots=True, eq=False)
class SeenImage:
    """What a model makes of a picture: `ids` in its prompt, some of which stand for `rows`."""

    key: int
    ids: Sequence[int]
    rows: np.ndarray | None   # float32 [tokens, hidden]; None: it was not encoded yet


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


def inputs_at(ids: Sequence[int], seen: Mapping[int, np.ndarray]
              ) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
    """Return ids with 0 for the rows of images, and where which rows [n, hidden] stand."""
    plain, inputs, at = list(ids), [], 0
    while at < len(ids):
        if ids[at] < IMAGE_TOKENS:
            at += 1
            continue
        key, row = key_and_row(ids[at])
        end = at + 1
        while end < len(ids) and ids[end] == ids[at] + end - at:
            end += 1
        inputs.append((at, seen[key][row:row + end - at]))
        plain[at:end] = [0] * (end - at)
        at = end
    return plain, inputs
