# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images through every way into the node, with a tiny model that sees; hostile ones too."""

from array import array
from io import BytesIO
from pathlib import Path
import struct
import sys
import zlib

from conftest import get
import numpy as np
from PIL import Image
import pytest
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image as RawImage
from slice_ros import msg
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.errors import ErrorCode

sys.path.append(str(Path(__file__).parents[1] / 'unit' / 'engine'))
import tiny_vision  # noqa: E402

ANSWER = {'max_tokens': 6}


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    """A tiny model that sees, in place of the one of the other tests."""
    folder = tmp_path_factory.mktemp('sees')
    tiny_vision.save(folder, 'smolvlm')
    return load_engine(EngineConfig(str(folder), max_context=256, slots=6, threads=2))


def pixels(seed=0, height=40, width=60):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def png(values):
    data = BytesIO()
    Image.fromarray(values).save(data, 'PNG')
    return data.getvalue()


def jpeg(values):
    data = BytesIO()
    Image.fromarray(values).save(data, 'JPEG')
    return data.getvalue()


def compressed(data, form='png'):
    return CompressedImage(format=form, data=array('B', data))


def raw(values, encoding='rgb8', **changes):
    height, width = values.shape[:2]
    fields = {'height': height, 'width': width, 'encoding': encoding,
              'step': width * values[0, 0].nbytes, 'data': array('B', values.tobytes())}
    return RawImage(**fields | changes)


def asked(text='What is it?', files=(), images=()):
    return [msg.ChatMessage(role='user', content=text, compressed_images=list(files),
                            images=list(images))]


def refused(caller, code=ErrorCode.INVALID_REQUEST, **fields):
    response = caller.call(caller.text, **{'slo_class': 'dialogue'} | ANSWER | fields)
    assert response.error_code == code, response.error_msg
    return response.error_msg


def test_an_image_comes_by_action_service_and_topic(caller, node):
    goal = {'messages': asked(files=[compressed(png(pixels()))]), **ANSWER}
    result = get(caller.send(**goal).get_result_async()).result
    assert result.error_code == 0 and result.report.prompt_tokens > 40
    encoded = node.engine.vision.encoded
    response = caller.call(caller.text, slo_class='dialogue', **goal)
    assert response.text == result.text
    caller.prompts['dialogue'].publish(msg.Prompt(request_id='by topic', **goal))
    assert ''.join(c.text for c in caller.chunks_of('by topic')) == result.text
    assert node.engine.vision.encoded == encoded
    assert response.report.reused_tokens == response.report.prompt_tokens - 1


@pytest.mark.parametrize('encoding, values', [
    ('rgb8', pixels(1)), ('bgr8', pixels(1)[:, :, ::-1]), ('mono8', pixels(1)[:, :, 0])])
def test_raw_images_are_those_of_the_file_with_the_same_pixels(caller, node, encoding, values):
    shown = np.stack([values] * 3, -1) if values.ndim == 2 else pixels(1)
    file = caller.call(caller.text, slo_class='dialogue', **ANSWER,
                       messages=asked(files=[compressed(png(shown))]))
    encoded = node.engine.vision.encoded
    image = raw(np.ascontiguousarray(values), encoding)
    if encoding == 'rgb8':   # rows may be longer than their pixels
        padded = np.pad(values.reshape(40, 180), ((0, 0), (0, 12)))
        image = raw(values, step=192, data=array('B', padded.tobytes()))
    response = caller.call(caller.text, slo_class='dialogue', **ANSWER,
                           messages=asked(images=[image]))
    assert response.error_code == 0 and response.text == file.text
    assert node.engine.vision.encoded == encoded


def test_a_session_goes_on_about_its_image_and_the_next_one(caller, node):
    first = caller.call(caller.text, slo_class='dialogue', session_id='eyes', **ANSWER,
                        messages=asked(files=[compressed(jpeg(pixels(2)))]))
    assert first.error_code == 0
    encoded = node.engine.vision.encoded
    again = caller.call(caller.text, slo_class='dialogue', session_id='eyes', prompt='And now?',
                        **ANSWER)
    assert again.error_code == 0 and node.engine.vision.encoded == encoded
    assert again.report.reused_tokens >= first.report.prompt_tokens
    third = caller.call(caller.text, slo_class='dialogue', session_id='eyes', **ANSWER,
                        messages=asked('And this?', [compressed(png(pixels(3)))]))
    assert third.error_code == 0 and node.engine.vision.encoded == encoded + 1


def test_admission_counts_the_time_of_encoding(caller, node, monkeypatch):
    monkeypatch.setattr(node.engine.vision, '_part_s', 10.0)
    question = {'slo_class': 'control', 'max_tokens': 4,
                'messages': asked(files=[compressed(png(pixels(4)))])}
    encoded = node.engine.vision.encoded
    answer = caller.call(caller.admission, **question)
    assert not answer.feasible and 'its images are encoded' in answer.reason
    assert answer.ttft_ms > 10_000 and answer.prompt_tokens > 40
    assert node.engine.vision.encoded == encoded
    caller.call(caller.text, **question)   # now it is kept
    assert caller.call(caller.admission, **question).ttft_ms < 10_000


def test_who_would_be_late_is_refused_before_an_image_is_encoded(caller, node, monkeypatch):
    monkeypatch.setattr(node.engine.vision, '_part_s', 10.0)
    for name, rule in (('limits.on_miss', 'drop'), ('scheduler.admission', 'reject')):
        node.set_parameters([Parameter(name, value=rule)])
    encoded = node.engine.vision.encoded
    question = {'slo_class': 'control', 'messages': asked(files=[compressed(png(pixels(7)))])}
    assert 'images are encoded' in refused(caller, ErrorCode.INFEASIBLE_SLO, **question)
    node.set_parameters([Parameter('scheduler.admission', value='accept')])
    assert 'before its images' in refused(caller, ErrorCode.DEADLINE_MISSED, **question)
    node.set_parameters([Parameter('limits.on_miss', value='continue')])
    assert node.engine.vision.encoded == encoded
    response = caller.call(caller.text, **question, **ANSWER)
    assert response.error_code == 0 and node.engine.vision.encoded == encoded + 1


def bomb(side):
    """Return a small PNG file that claims to have side x side pixels."""
    def chunk(kind, data):
        return (struct.pack('>I', len(data)) + kind + data
                + struct.pack('>I', zlib.crc32(kind + data)))
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(b'\0' * 1000)) + chunk(b'IEND', b''))


FILE = png(pixels(5))
HOSTILE = {
    'a bomb': (bomb(30_000), 'far more pixels'),
    'a large one': (bomb(5_000), '5000 x 5000 pixels'),
    'half a JPEG': (jpeg(pixels(6, 200, 200))[:4000], 'cannot be decoded'),
    'half a PNG': (FILE[:len(FILE) // 2], 'cannot be decoded'),
    'no image': (b'hello' * 100, 'cannot be decoded'),
    'nothing': (b'', 'cannot be decoded'),
    'a GIF': (b'GIF89a' + bytes(100), 'cannot be decoded'),
    'a stripe': (png(np.zeros((1, 500, 3), np.uint8)), 'too narrow'),
    'megabytes': (bytes(9 << 20), 'bytes: send'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_get_a_code_and_a_sentence(caller, name):
    data, sentence = HOSTILE[name]
    assert sentence in refused(caller, messages=asked(files=[compressed(data)]))
    assert caller.call(caller.text, slo_class='dialogue', prompt='Hi', **ANSWER).error_code == 0


@pytest.mark.parametrize('image, sentence', [
    (raw(np.zeros((4, 4), np.uint16), '16UC1'), 'depth image (16UC1)'),
    (raw(np.zeros((4, 4), np.float32), '32FC1'), 'depth image (32FC1)'),
    (raw(pixels(), 'bayer_rggb8'), "encoding 'bayer_rggb8': send rgb8, bgr8, mono8"),
    (raw(pixels(), 'x' * 100_000), 'encoding'),
    (raw(pixels(), height=41), 'not whole'),
    (raw(pixels(), step=10), 'not whole'),
    (raw(pixels(), width=2 ** 31, height=2 ** 31, step=2 ** 32 - 1), 'pixels: send'),
    (raw(pixels(), height=0), 'nothing in it')])
def test_raw_images_that_cannot_be_shown_are_refused_by_name(caller, image, sentence):
    assert sentence in refused(caller, messages=asked(images=[image]))


def test_too_many_images_and_those_of_others_are_refused(caller):
    files = [compressed(FILE)] * 9
    assert '9 images are too many' in refused(caller, messages=asked(files=files))
    said = msg.ChatMessage(role='assistant', content='Look.', compressed_images=files[:1])
    assert 'messages[1] (assistant) has images' in refused(
        caller, messages=[*asked('Hi'), said, *asked('Well?')])


def test_an_image_without_a_word_is_a_question(caller):
    response = caller.call(caller.text, slo_class='dialogue', **ANSWER,
                           messages=asked('', [compressed(FILE)]))
    assert response.error_code == 0 and response.report.prompt_tokens > 40


def test_an_image_that_is_too_long_for_the_context_says_so(caller):
    files = [compressed(png(pixels(seed, 64, 64))) for seed in range(20, 28)]
    assert 'tokens' in refused(caller, ErrorCode.PROMPT_TOO_LONG, messages=asked(files=files))
