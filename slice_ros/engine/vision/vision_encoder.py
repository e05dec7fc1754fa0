# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The vision tower and projector of a model: pictures become rows that its layers read."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.config import Message
from slice_ros.engine.vision.image_tokens import IMAGE_TOKENS, ROW_BITS, row_ids, SeenImage
from slice_ros.engine.vision.pictures import invalid, Picture
from slice_ros.engine.vision.vision_families import VisionFamily
from slice_ros.errors import ErrorCode, one_line, RequestError

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel

KEPT_BYTES = 64 << 20   # of rows that are kept for later requests about the same image
NICE = 10               # of the thread that encodes: beside steps it gets a tenth of a core
_NEW = 0.3              # weight of the latest measurement of a part's time


class VisionEncoder:
    """Encodes pictures, one at a time in a thread of its own. Thread-safe.

    `ids` encodes a text with special tokens; `token` is the id of the family's. An image may have
    `most_tokens`.
    """

    def __init__(self, family: VisionFamily, model: 'PreTrainedModel', processor: Callable,
                 ids: Callable[[str], list[int]], token: int, most_tokens: int) -> None:
        self.token, self._most = token, 1 << ROW_BITS
        self._family, self._model, self._processor, self._ids = family, model, processor, ids
        self._kept: OrderedDict[int, SeenImage] = OrderedDict()   # by key, the oldest use first
        self._running: dict[int, Future[SeenImage]] = {}          # by key
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, 'slice vision', _be_nice)
        self.encoded = 0       # images, since the start
        self._part_s = 0.0     # measured seconds of a part of an image
        # Damaged weights show in it, and the first time is measured.
        self.see(Picture.of(np.full((64, 64, 3), 127, np.uint8)))
        self._kept.clear()
        self._most = most_tokens

    def see(self, picture: Picture) -> SeenImage:
        """Return what the model makes of a picture; waits until it is encoded.

        Raises ``RequestError`` INVALID_REQUEST for a picture that the processor refuses,
        PROMPT_TOO_LONG for one of too many tokens, ENGINE_FAILURE where encoding fails.
        """
        with self._lock:
            if picture.key in self._kept:
                self._kept.move_to_end(picture.key)
                return self._kept[picture.key]
            running = self._running.get(picture.key)
            if running is None:
                running = self._thread.submit(self._encode, picture)
                self._running[picture.key] = running
        try:
            return running.result()
        finally:
            with self._lock:
                if self._running.get(picture.key) is running:
                    del self._running[picture.key]

    def glance(self, picture: Picture) -> tuple[SeenImage, float]:
        """Return the same without rows, and the seconds that encoding takes; 0 where it is kept.

        Raises as `see` does.
        """
        with self._lock:
            if picture.key in self._kept:
                return self._kept[picture.key], 0.0
        pixels = self._pixels(picture)
        return (SeenImage(picture.key, self._ids_of(picture.key, pixels), None,
                          self._family.grid(self._model, pixels)),
                self._family.parts(pixels) * self._part_s)

    def seen(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages in which every picture is a `SeenImage`. Raises as `see` does."""
        return [message._replace(images=tuple(map(self.see, message.images)))
                if message.images else message for message in messages]

    def glanced(self, messages: Sequence[Message]) -> tuple[list[Message], float]:
        """Return the same without rows, and the seconds that encoding takes."""
        seconds, made = 0.0, []
        for message in messages:
            found = [self.glance(picture) for picture in message.images]
            seconds += sum(cost for _, cost in found)
            made.append(message._replace(images=tuple(image for image, _ in found)))
        return made, seconds

    def _encode(self, picture: Picture) -> SeenImage:
        import torch
        pixels = self._pixels(picture)
        ids = self._ids_of(picture.key, pixels)
        began = time.monotonic()
        try:
            with torch.inference_mode():
                rows = self._family.rows(self._model, pixels.to(
                    self._model.device, self._model.dtype)).float().cpu().numpy()
        except Exception as error:   # of memory, or the device
            raise RequestError(ErrorCode.ENGINE_FAILURE,
                               f'an image cannot be encoded: {one_line(error)}') from error
        count = sum(token >= IMAGE_TOKENS for token in ids)
        if len(rows) != count or not np.isfinite(rows).all():
            raise RequestError(ErrorCode.ENGINE_FAILURE, f'the vision tower makes {len(rows)} '
                               f'rows of an image, with numbers that are none, or not {count}')
        self._learn((time.monotonic() - began) / self._family.parts(pixels))
        image = SeenImage(picture.key, ids, rows, self._family.grid(self._model, pixels))
        with self._lock:
            self._kept[picture.key] = image
            while sum(kept.rows.nbytes for kept in self._kept.values()) > KEPT_BYTES and len(
                    self._kept) > 1:
                self._kept.popitem(last=False)
        return image

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


def _be_nice() -> None:
    with suppress(OSError):   # a thread of its own has a nice value of its own, on Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
