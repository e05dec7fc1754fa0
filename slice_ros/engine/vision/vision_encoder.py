# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The vision tower and projector of a model: pictures become rows that its layers read."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.config import Message
from slice_ros.engine.vision.encoding_queue import Encoding, EncodingQueue
from slice_ros.engine.vision.image_tokens import ROW_BITS, row_ids, SeenImage
from slice_ros.engine.vision.pictures import invalid, Picture
from slice_ros.engine.vision.vision_families import VisionFamily
from slice_ros.errors import ErrorCode, one_line, RequestError

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel

KEPT_BYTES = 64 << 20   # of rows that are kept for later requests about the same image
_NEW = 0.3              # weight of the latest measurement of a part's time
_DOUBT = 0.9            # of that time is left when it has kept an image from being encoded
_QUICK_S = 0.5          # an image that takes no longer is encoded twice at the start


class VisionEncoder:
    """Makes prompts of pictures, and encodes them in `queue`. Thread-safe.

    `ids` encodes a text with special tokens; `token` is the id of the family's. An image may have
    `most_tokens`.
    """

    def __init__(self, family: VisionFamily, model: 'PreTrainedModel', processor: Callable,
                 ids: Callable[[str], list[int]], token: int, most_tokens: int) -> None:
        self.token, self._most = token, 1 << ROW_BITS
        self._family, self._model, self._processor, self._ids = family, model, processor, ids
        self._kept: OrderedDict[int, SeenImage] = OrderedDict()   # by key, the oldest use first
        self._lock = threading.Lock()
        self.queue = EncodingQueue(self._pieces, lambda: self._part_s, known=self._is_kept)
        self.encoded = 0       # images, since the start
        self._part_s = 0.0     # measured seconds of a part of an image
        # Damaged weights show in it, and the time of a part: the first one is of a cold processor.
        picture, began = Picture.of(np.full((64, 64, 3), 127, np.uint8)), time.monotonic()
        image = self.see(picture)
        if time.monotonic() - began < _QUICK_S:
            self._kept.clear()
            self.see(picture)
        self.joined_tokens = image.length if family.joined else 0   # that one step must feed
        self._kept.clear()
        self._most = most_tokens

    def glance(self, picture: Picture) -> SeenImage:
        """Return what the model makes of a picture, without rows unless they are kept.

        Raises ``RequestError`` INVALID_REQUEST for a picture that the processor refuses,
        PROMPT_TOO_LONG for one of too many tokens.
        """
        kept = self._kept_of(picture.key)
        if kept is not None:
            return kept
        pixels = self._pixels(picture)
        return SeenImage(picture.key, self._ids_of(picture.key, pixels), None,
                         self._family.grid(self._model, pixels), self._family.parts(pixels),
                         picture.put_by(), self._family.joined)

    def see(self, picture: Picture) -> SeenImage:
        """Return the same with rows, before all that waits for its own.

        Raises as `glance` does, and ENGINE_FAILURE where encoding fails.
        """
        image, ended = self.glance(picture), Future()
        if image.rows is None:
            self.queue.put(Encoding([image], lambda left: (), lambda left: True,
                                    ended.set_result))
            if (error := ended.result()) is not None:
                raise error
        return image

    def seen(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages in which every picture is a `SeenImage` with rows. Raises as `see`."""
        return _with_images(messages, self.see)

    def glanced(self, messages: Sequence[Message]) -> list[Message]:
        """Return the same, with rows where they are kept. Raises as `glance` does."""
        return _with_images(messages, self.glance)

    def doubt(self) -> None:
        """Believe the time of a part a little less, since it has kept an image from being encoded.

        Nothing is measured then: else an image that was slow once would be refused for ever.
        """
        self._part_s *= _DOUBT

    def _is_kept(self, key: int) -> bool:
        with self._lock:
            return key in self._kept

    def _kept_of(self, key: int) -> SeenImage | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _pieces(self, images: Sequence[SeenImage]) -> Iterator[tuple[int, int]]:
        """Encode images, as `EncodingQueue` says."""
        left = sum(image.parts for image in images if image.rows is None)
        for image in images:
            if image.rows is not None:
                continue
            kept = self._kept_of(image.key)   # another request may have asked for it meanwhile
            rows = kept.rows if kept is not None else (yield from self._encode(image, left))
            left -= image.parts
            image.rows, image.picture = rows, None
            self._keep(image)

    def _encode(self, image: SeenImage, left: int
                ) -> Generator[tuple[int, int], None, np.ndarray]:
        """Return the rows of an image, which has `left` parts, and those that follow it."""
        import torch
        pixels = self._pixels(image.picture()).to(self._model.device, self._model.dtype)
        made, took = self._family.rows(self._model, pixels), 0.0
        piece, pieces = 1 if self._family.by_part else image.parts, []
        for done in range(0, image.parts, piece):
            yield piece, left - done
            began = time.monotonic()
            try:
                with torch.inference_mode():
                    pieces.append(next(made).float().cpu().numpy())
            except Exception as error:   # of memory, or the device
                raise RequestError(ErrorCode.ENGINE_FAILURE,
                                   f'an image cannot be encoded: {one_line(error)}') from error
            took += time.monotonic() - began
        rows = np.concatenate(pieces)
        if len(rows) != image.length or not np.isfinite(rows).all():
            raise RequestError(ErrorCode.ENGINE_FAILURE, f'the vision tower makes {len(rows)} '
                               f'rows of an image, with numbers that are none, or not '
                               f'{image.length}')
        self._learn(took / image.parts)
        return rows

    def _keep(self, image: SeenImage) -> None:
        with self._lock:
            self._kept[image.key] = image
            while sum(kept.rows.nbytes for kept in self._kept.values()) > KEPT_BYTES and len(
                    self._kept) > 1:
                self._kept.popitem(last=False)

    def _learn(self, part_s: float) -> None:
        self.encoded += 1
        # The first, of a cold processor, counts for nothing once there is another.
        self._part_s = part_s if self.encoded < 3 else (
            (1 - _NEW) * self._part_s + _NEW * part_s)

    def _pixels(self, picture: Picture) -> 'BatchFeature':
        try:
            return self._family.process(self._processor, picture.pixels)
        except Exception as error:
            height, width, _ = picture.pixels.shape
            raise invalid(f"the model's image processor refuses an image of {width} x {height} "
                          f'pixels: {one_line(error)}') from error

    def _ids_of(self, key: int, pixels: 'BatchFeature') -> list[int]:
        """Return what stands in a prompt for an image: tokens around it, and those of its rows."""
        ids = self._ids(self._family.text(self._model, pixels))
        places = [at for at, token in enumerate(ids) if token == self.token]
        if not 0 < len(places) < 1 << ROW_BITS:
            raise invalid(f'the tokenizer has no token {self._family.token}, or an image has too '
                          'many')
        if len(places) > self._most:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG, f'an image takes {len(places)} tokens, and the context '
                f'has {self._most}: send a smaller one, or raise engine.max_context')
        for at, token in zip(places, row_ids(key, len(places))):
            ids[at] = token
        return ids


def _with_images(messages: Sequence[Message], look: Callable[[Picture], SeenImage]
                 ) -> list[Message]:
    return [message._replace(images=tuple(map(look, message.images)))
            if message.images else message for message in messages]
