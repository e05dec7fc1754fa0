# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Requests whose images wait to be encoded: who is refused before, their order, and who ends."""

from queue import Queue

import pytest
from slice_ros.engine.vision.encoding_queue import EncodingQueue
from slice_ros.engine.vision.image_tokens import SeenImage
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import State
from slice_ros.slo import DEFAULT_CLASSES, SloClass

from .conftest import FakeEngine
from .test_server import ask, wait_until

CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES


class FakeVision:
    """Encodes an image when it is let go; `part_s` seconds are what is said to be needed."""

    def __init__(self, part_s=0.01):
        self.part_s, self.begun, self.go, self.doubts = part_s, Queue(), Queue(), 0
        self.queue = EncodingQueue(self.pieces, lambda: self.part_s)

    def doubt(self):
        self.doubts += 1

    def pieces(self, images):
        left = sum(image.parts for image in images)
        for image in images:
            for _ in range(image.parts):
                yield 1, left
                left -= 1
                self.begun.put(image.key)
                self.go.get(timeout=60)
            image.rows = ()


@pytest.fixture
def engine():
    made = FakeEngine()
    made.vision = FakeVision()
    yield made
    for _ in range(100):
        made.vision.go.put(None)


def image(key, parts=1):
    return SeenImage(key, (), None, parts=parts)


def look(server, key, slo=DIALOGUE, parts=1, **options):
    """Ask about an image; its key is the id of the request."""
    return ask(server, slo, request_id=str(key), images=[image(key, parts)], **options)


def occupied(server, engine, **options):
    """Ask about an image, and wait until it is being encoded."""
    asked = look(server, 1, **options)
    assert engine.vision.begun.get(timeout=60) == 1
    return asked


def refusal(*args, **options):
    with pytest.raises(RequestError) as refused:
        look(*args, **options)
    return refused.value


def test_no_step_takes_a_request_before_its_images_are_encoded(engine, make_server):
    server = make_server(engine)
    request, consumer = occupied(server, engine)
    _, text = ask(server)
    assert text.text == '1 2 3 4 '          # others are served meanwhile
    assert request.state is State.WAITING and not consumer.deliveries
    assert server.busy and server.snapshot().queued == 1
    engine.vision.go.put(None)
    assert consumer.text == '1 2 3 4 ' and request.state is State.FINISHED


def test_waiting_and_encoding_count_as_the_time_to_first_token(engine, make_server):
    server = make_server(engine)
    request, consumer = occupied(server, engine, arrival=server.clock() - 3.0)
    engine.vision.go.put(None)
    assert consumer.wait() and request.ttft > 3.0


@pytest.mark.parametrize('policy', ['slice', 'orca'])
def test_whoever_cannot_be_served_in_time_is_refused_before_its_image_is_encoded(
        engine, make_server, policy):
    server = make_server(engine, policy=policy, admission='reject')
    engine.vision.part_s = 2.0     # control has 0.5 s to its first token, navigation 1 s
    error = refusal(server, 1, CONTROL)
    assert error.code is ErrorCode.INFEASIBLE_SLO and 'images are encoded' in error.message
    engine.vision.part_s = 0.2
    late = refusal(server, 2, CONTROL, arrival=server.clock() - 0.4)   # 0.1 s are left
    assert late.code is ErrorCode.INFEASIBLE_SLO
    assert engine.vision.begun.empty() and engine.vision.doubts == 2
    request, consumer = look(server, 3, CONTROL)
    engine.vision.go.put(None)
    assert consumer.wait() and engine.vision.begun.get() == 3
    assert server.snapshot().classes['control'].rejected == 2


def test_images_that_are_encoded_before_count_in_admission(engine, make_server):
    server = make_server(engine, policy='slice', admission='reject')
    engine.vision.part_s = 0.3
    occupied(server, engine, slo=CONTROL)
    for key in (2, 3):
        look(server, key, NAVIGATION)
    # 0.3 s of the running one and 0.3 s of its own; for dialogue two more before it.
    assert refusal(server, 4, CONTROL).code is ErrorCode.INFEASIBLE_SLO
    assert server.predict(CONTROL, 5, 4, [image(5)]).ttft > 0.5
    alone = server.predict(DIALOGUE, 5, 4).ttft
    assert 1.0 < server.predict(DIALOGUE, 5, 4, [image(5)]).ttft - alone <= 1.2
    assert engine.vision.begun.empty()


def test_a_class_to_degrade_to_is_chosen_before(engine, make_server):
    server = make_server(engine, policy='slice', admission='degrade:dialogue')
    engine.vision.part_s = 2.0
    request, consumer = occupied(server, engine, slo=CONTROL)
    assert request.slo is DIALOGUE
    engine.vision.go.put(None)
    assert consumer.wait()


def test_a_full_queue_refuses_and_displaces_before_anything_is_encoded(engine, make_server):
    server = make_server(engine, max_queued=2)
    occupied(server, engine)
    _, displaced = look(server, 2)
    assert refusal(server, 3).code is ErrorCode.QUEUE_FULL
    look(server, 4, CONTROL)
    assert displaced.last.error is ErrorCode.QUEUE_FULL
    for _ in range(2):
        engine.vision.go.put(None)
    assert engine.vision.begun.get(timeout=60) == 4


def test_the_most_useful_is_encoded_first_then_what_is_due_first_and_late_ones_last(
        engine, make_server):
    server = make_server(engine)
    now, hour = server.clock(), 3.6e6
    occupied(server, engine)
    useful, plain = (SloClass(name, ttft_ms=hour, utility=utility)
                     for name, utility in (('useful', 10.0), ('plain', 1.0)))
    free = SloClass('free')   # of the utility of the plain ones, and due at no time
    for key, slo, age_s in ((2, free, 0.0), (3, plain, 0.0), (4, useful, 0.0), (5, useful, 60.0),
                            (6, useful, hour), (7, plain, 60.0), (8, free, 60.0)):
        look(server, key, slo, arrival=now - age_s)
    order = []
    for _ in range(7):
        engine.vision.go.put(None)
        order.append(engine.vision.begun.get(timeout=60))
    assert order == [5, 4, 7, 3, 8, 2, 6]


def test_a_cancelled_request_costs_no_encoding_or_no_further_piece(engine, make_server):
    server = make_server(engine)
    request, running = occupied(server, engine, parts=3)
    _, waiting = look(server, 2)
    _, other = look(server, 3)
    assert server.cancel('1') and server.cancel('2')
    assert {running.last.error, waiting.last.error} == {ErrorCode.CANCELLED}
    for _ in range(2):
        engine.vision.go.put(None)
    assert engine.vision.begun.get(timeout=60) == 3 and other.text
    assert engine.vision.begun.empty() and request.state is State.CANCELLED


@pytest.mark.parametrize('on_miss', ['drop', 'continue'])
def test_what_is_late_anyway_is_dropped_unencoded_or_goes_on(engine, make_server, on_miss):
    server = make_server(engine, policy='slice', policy_options={'on_miss': on_miss})
    _, running = occupied(server, engine)
    request, consumer = look(server, 2, CONTROL, arrival=server.clock() - 10)
    if on_miss == 'drop':
        assert consumer.last.error is ErrorCode.DEADLINE_MISSED
    for _ in range(2):
        engine.vision.go.put(None)
    assert running.wait() and consumer.wait()
    assert request.state is (State.FAILED if on_miss == 'drop' else State.FINISHED)
    assert engine.vision.begun.empty() is (on_miss == 'drop')


def test_a_failed_encoding_ends_its_own_request(engine, make_server):
    server = make_server(engine)
    engine.vision.pieces, made = None, engine.vision.pieces
    engine.vision.queue._pieces = lambda images: (
        iter(()).throw(MemoryError()) if images[0].key == 1 else made(images))
    _, consumer = look(server, 1)
    assert consumer.last.error is ErrorCode.ENGINE_FAILURE
    _, other = look(server, 2)
    engine.vision.go.put(None)
    assert other.text == '1 2 3 4 '


def test_a_server_that_drains_waits_for_images(engine, make_server):
    server = make_server(engine)
    request, consumer = occupied(server, engine)
    server._shared.stop(server.clock() + 60.0)
    assert refusal(server, 2).code is ErrorCode.SHUTTING_DOWN
    engine.vision.go.put(None)
    assert consumer.text == '1 2 3 4 ' and request.state is State.FINISHED
    wait_until(lambda: not server.alive)


def test_a_server_that_stops_ends_what_waits_for_images(engine, make_server):
    server = make_server(engine)
    _, consumer = occupied(server, engine)
    assert server.stop() and consumer.last.error is ErrorCode.SHUTTING_DOWN
