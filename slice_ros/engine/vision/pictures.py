# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images of callers, decoded within bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from io import BytesIO
import secrets
import warnings

import numpy as np
from PIL import Image
from slice_ros.errors import ErrorCode, one_line, RequestError

MAX_PIXELS = 4096 * 4096      # of an image: 48 MiB decoded
MAX_SIDES = 100               # the longer side of an image in shorter ones
FORMATS = ('JPEG', 'PNG')     # that are decoded; other decoders of Pillow are not reached
KEY_BITS = 46                 # so that a token id of an image fits into 63 bits
_SECRET = secrets.token_bytes(16)   # of this process: nobody can make an image for a given key


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded image, uint8 [height, width, 3]; the same pixels have the same key."""

    pixels: np.ndarray
    key: int
    file: bytes = b''   # that it was decoded from, if any

    def put_by(self) -> 'Callable[[], Picture]':
        """Return what gives the picture again, and takes little memory until then."""
        return partial(decoded, self.file) if self.file else lambda: self

    @classmethod
    def of(cls, pixels: np.ndarray, file: bytes = b'') -> 'Picture':
        """Return the picture of RGB pixels."""
        pixels = np.ascontiguousarray(pixels)
        content = blake2b(repr(pixels.shape).encode(), digest_size=8, key=_SECRET)
        content.update(pixels)
        return cls(pixels, int.from_bytes(content.digest(), 'little') >> 64 - KEY_BITS, file)


def decoded(data: bytes) -> Picture:
    """Return the picture in a JPEG or PNG file.

    Its header is read first. Raises ``RequestError`` INVALID_REQUEST for other files, damaged
    ones, and more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')   # of Pillow, about sizes that are checked here
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                check_sides(*image.size)
                image.draft('RGB', image.size)
                return Picture.of(np.asarray(_opaque(image).convert('RGB')), data)
    except RequestError:
        raise
    except Image.DecompressionBombError as error:
        raise invalid(f'an image has far more pixels than {MAX_PIXELS}: send a smaller one'
                      ) from error
    except Exception as error:   # decoders raise many types: of damaged files, about any
        raise invalid(f'an image cannot be decoded ({one_line(error)}): send a whole JPEG or PNG '
                      'file') from error


def check_sides(width: int, height: int) -> None:
    """Raise ``RequestError`` where an image of such sides is not decoded."""
    if min(width, height) < 1:
        raise invalid(f'an image has {width} x {height} pixels: there is nothing in it')
    if width * height > MAX_PIXELS:
        raise invalid(f'an image has {width} x {height} pixels: send {MAX_PIXELS} at most')
    if max(width, height) > MAX_SIDES * min(width, height):
        raise invalid(f'an image of {width} x {height} pixels is too narrow: send one whose '
                      f'longer side is at most {MAX_SIDES} of the shorter')


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image on white where it is transparent."""
    if not image.has_transparency_data:
        return image
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)


def invalid(sentence: str) -> RequestError:
    """Return the refusal of an image."""
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)
