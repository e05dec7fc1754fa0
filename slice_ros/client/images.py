# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images of callers to messages: files in memory, Pillow's images, data URLs, camera messages."""

from array import array
from base64 import b64decode
from collections.abc import Iterable
from io import BytesIO
import re
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

QUALITY = 90   # of the JPEG files that Pillow's images become
_URL = re.compile(r'data:image/(jpeg|png);base64,', re.IGNORECASE)
_PNG = b'\x89PNG'


def image_messages(images: Iterable[Any]) -> tuple[list[CompressedImage], list[Image]]:
    """Return images as the fields `compressed_images` and `images` of a message.

    Each is a message of sensor_msgs, the bytes of a JPEG or PNG file, a data URL of one, or an
    image of Pillow, which becomes a JPEG file. Raises ``TypeError`` or ``ValueError`` for others.
    """
    compressed, raw = [], []
    for image in images:
        if isinstance(image, Image):
            raw.append(image)
        else:
            compressed.append(image if isinstance(image, CompressedImage) else _file(image))
    return compressed, raw


def _file(image: Any) -> CompressedImage:
    if isinstance(image, str):
        data = _of_url(image)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
    elif callable(getattr(image, 'save', None)) and callable(getattr(image, 'convert', None)):
        file = BytesIO()
        image.convert('RGB').save(file, 'JPEG', quality=QUALITY)
        data = file.getvalue()
    else:
        raise TypeError('an image is a message of sensor_msgs, the bytes of a JPEG or PNG file, '
                        f'a data URL or an image of Pillow, not {type(image).__name__}')
    return CompressedImage(format='png' if data.startswith(_PNG) else 'jpeg',
                           data=array('B', data))


def _of_url(url: str) -> bytes:
    found = _URL.match(url)
    if found is None:
        raise ValueError('an image must be a data URL (data:image/jpeg;base64,... or png): '
                         f'addresses and files are not read, nor is {url[:40]!r}')
    return b64decode(url[found.end():], validate=True)
