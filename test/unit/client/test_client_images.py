# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images of planners and of the gateway's callers, as the client library puts them into goals."""

from array import array
from base64 import b64encode
from io import BytesIO
import json

import numpy as np
from PIL import Image
import pytest
from sensor_msgs.msg import CompressedImage, Image as RawImage
from slice_ros import msg
from slice_ros.client import InvalidRequest
from slice_ros.client.goals import make_goal
from slice_ros.gateway.bodies import ChatBody, read
from slice_ros.gateway.http_errors import HttpError

PIXELS = np.arange(600, dtype=np.uint8).reshape(10, 20, 3)


def file(form):
    data = BytesIO()
    Image.fromarray(PIXELS).save(data, form)
    return data.getvalue()


def url(form='png', data=None):
    return f'data:image/{form};base64,{b64encode(data or file(form)).decode()}'


def test_a_message_takes_images_of_every_kind():
    raw = RawImage(height=1, width=1, encoding='mono8', step=1, data=array('B', [1]))
    sent = CompressedImage(format='jpeg', data=array('B', file('JPEG')))
    goal = make_goal([{'role': 'user', 'content': 'What is it?', 'images': [
        file('PNG'), raw, Image.fromarray(PIXELS), sent, url('PNG'), url('jpeg')]}], 'dialogue')
    message, = goal.messages
    assert message.images == [raw] and message.content == 'What is it?'
    forms = [image.format for image in message.compressed_images]
    assert forms == ['png', 'jpeg', 'jpeg', 'png', 'jpeg']
    first, pillows, same, fourth, _ = (bytes(i.data) for i in message.compressed_images)
    assert first == fourth == file('PNG') and same == file('JPEG')
    assert Image.open(BytesIO(pillows)).size == (20, 10)


def test_messages_keep_their_images_and_need_no_word_beside_them():
    message = msg.ChatMessage(role='user', images=[RawImage(encoding='rgb8')])
    goal = make_goal([message, {'role': 'user', 'images': [file('PNG')]}], 'dialogue')
    assert goal.messages[0].images == message.images and not goal.messages[1].content
    with pytest.raises(InvalidRequest):
        make_goal([{'role': 'user'}], 'dialogue')


@pytest.mark.parametrize('image, sentence', [
    ('https://example.org/cat.png', 'data URL'), ('file:///etc/passwd', 'data URL'),
    ('data:image/svg+xml;base64,AAAA', 'data URL'), ('data:image/png;base64,???', 'base64'),
    (5, 'not int'), (PIXELS, 'not ndarray')])
def test_what_is_no_image_is_refused_in_a_sentence(image, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        make_goal([{'role': 'user', 'content': 'x', 'images': [image]}], 'dialogue')


def body(*parts):
    return json.dumps({'messages': [{'role': 'user', 'content': list(parts)}]}).encode()


def test_parts_of_the_gateway_become_images():
    chat = read(ChatBody, body({'type': 'text', 'text': 'What '}, {
        'type': 'image_url', 'image_url': {'url': url(), 'detail': 'low'}},
        {'type': 'text', 'text': 'is it?'}))
    message, = make_goal(chat.prompt(), 'dialogue').messages
    assert message.content == 'What is it?'
    assert [bytes(image.data) for image in message.compressed_images] == [file('png')]


@pytest.mark.parametrize('part, sentence', [
    ({'type': 'image_url'}, 'image_url is missing'), ({'type': 'text'}, 'text is missing'),
    ({'type': 'image_url', 'image_url': 'data:'}, 'image_url'),
    ({'type': 'input_audio'}, 'only text and image_url')])
def test_other_parts_of_the_gateway_are_refused(part, sentence):
    with pytest.raises(HttpError, match=sentence):
        read(ChatBody, body(part))
