# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images of messages: counted on the executor, decoded in a worker.

Malformed images raise `RequestError`, and nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.config import MAX_IMAGE_BYTES, MAX_IMAGES, Message
from slice_ros.ros.isolation.bounds import invalid, MAX_WORD

if TYPE_CHECKING:
    from sensor_msgs.msg import Image
    from slice_ros.engine.vision.pictures import Picture
    from slice_ros.engine.vision.vision_encoder import VisionEncoder

# Channels of the encodings that are taken, and their order in red, green and blue.
ENCODINGS = {'rgb8': (3, slice(None)), 'bgr8': (3, slice(None, None, -1)),
             'mono8': (1, [0, 0, 0])}
_DEPTH = ('16UC1', '32FC1', 'mono16', '16SC1', '64FC1')


def images_in(goal) -> Iterator:
    """Yield the images of all messages of a goal or a question."""
    for message in goal.messages:
        yield from message.compressed_images
        yield from message.images


def check_images(goal) -> None:
    """Raise `RequestError` when images are too many or too large, by their lengths alone."""
    images = list(images_in(goal))
    if len(images) > MAX_IMAGES:
        raise invalid(f'{len(images)} images are too many: send {MAX_IMAGES} at most')
    size = sum(len(image.data) for image in images)
    if size > MAX_IMAGE_BYTES:
        raise invalid(f'the images have {size} bytes: send {MAX_IMAGE_BYTES} at most, as JPEG '
                      'or smaller ones')
    for number, message in enumerate(goal.messages):
        if message.role != 'user' and (message.images or message.compressed_images):
            raise invalid(f'messages[{number}] ({message.role[:MAX_WORD]}) has images: those of '
                          'role user may have some')


def with_pictures(messages: Sequence[Message], goal, vision: 'VisionEncoder | None'
                  ) -> list[Message]:
    """Return the `messages` of a goal with its images decoded; `vision` encodes them, if any."""
    if not any(images_in(goal)):
        return list(messages)
    if vision is None:
        raise invalid('this model sees no images: docs/images.md has those that do')
    return [message._replace(images=tuple(_pictures(sent)))
            for message, sent in zip(messages, goal.messages)]


def _pictures(message) -> Iterator['Picture']:
    from slice_ros.engine.vision.pictures import decoded
    for image in message.compressed_images:
        yield decoded(bytes(image.data))
    for image in message.images:
        yield _converted(image)


def _converted(image: 'Image') -> 'Picture':
    """Return the picture in an image as a camera gives it."""
    from slice_ros.engine.vision.pictures import check_sides, Picture
    name = image.encoding[:MAX_WORD]
    if name in _DEPTH:
        raise invalid(f'an image is a depth image ({name}): send that of the camera beside it')
    if name not in ENCODINGS:
        raise invalid(f'an image has the encoding {name!r}: send {", ".join(ENCODINGS)}, or JPEG '
                      'or PNG in compressed_images')
    check_sides(image.width, image.height)
    channels, order = ENCODINGS[name]
    if image.step < image.width * channels or len(image.data) < image.step * image.height:
        raise invalid(f'an image of {image.width} x {image.height} pixels has {len(image.data)} '
                      f'bytes and a step of {image.step}: it is not whole')
    rows = np.frombuffer(image.data, np.uint8, image.step * image.height)
    pixels = rows.reshape(image.height, image.step)[:, :image.width * channels]
    return Picture.of(pixels.reshape(image.height, image.width, channels)[:, :, order])
