# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which image is encoded next, and which is not; pieces end when the test says so."""

from queue import Queue

import pytest
from slice_ros.engine.vision.encoding_queue import Encoding, EncodingQueue, MOST_BEGUN
from slice_ros.engine.vision.image_tokens import SeenImage

PART_S = 2.0


class Pieces:
    """Encodes images of as many pieces as they have parts, each when it is let go."""

    def __init__(self):
        self.now, self.begun, self.go = 0.0, Queue(), Queue()
        self.queue = EncodingQueue(self.pieces, lambda: PART_S, lambda: self.now)

    def pieces(self, images):
        left = sum(image.parts for image in images)
        for image in images:
            for part in range(image.parts):
                yield 1, left
                left -= 1
                self.begun.put((image.key, part))
                fault = self.go.get(timeout=60)
                if fault:
                    raise fault
            image.rows = ()

    def put(self, key, order, parts=1, wanted=lambda left: True, alive=lambda: True):
        ended = Queue()
        self.queue.put(Encoding([SeenImage(key, (), None, parts=parts)], lambda left: order,
                                wanted, ended.put, alive))
        return ended

    def seconds_until(self, order, key=99, parts=0):
        return self.queue.seconds_until([SeenImage(key, (), None, parts=parts)],
                                        lambda left: order)

    def runs(self, *pieces):
        """Check which pieces are encoded next, each to its end."""
        for piece in pieces:
            assert self.begun.get(timeout=60) == piece
            self.go.put(None)


@pytest.fixture
def pieces():
    return Pieces()


def begun(pieces, key, parts):
    """Begin an image, and wait until its first piece runs."""
    ended = pieces.put(key, (5,), parts)
    assert pieces.begun.get(timeout=60) == (key, 0)
    return ended


def test_the_least_order_comes_first_also_between_the_pieces_of_another(pieces):
    first = begun(pieces, 1, parts=3)
    late, urgent = pieces.put(2, (7,)), pieces.put(3, (1,), parts=2)
    pieces.go.put(None)
    pieces.runs((3, 0), (3, 1), (1, 1), (1, 2), (2, 0))
    assert [ended.get(timeout=60) for ended in (urgent, first, late)] == [None] * 3


def test_what_is_not_wanted_any_more_is_not_begun_or_ends_between_pieces(pieces):
    wanted = {1, 2}
    first = pieces.put(1, (1,), parts=3, wanted=lambda left: 1 in wanted)
    assert pieces.begun.get(timeout=60) == (1, 0)
    second = pieces.put(2, (2,), wanted=lambda left: 2 in wanted)
    third = pieces.put(3, (3,))
    wanted.clear()
    pieces.go.put(None)
    pieces.runs((3, 0))
    assert third.get(timeout=60) is None and first.empty() and second.empty()


def test_what_is_not_wanted_leaves_while_a_piece_runs(pieces):
    """Whoever sends and cancels fills no memory."""
    begun(pieces, 1, parts=1)
    for key in range(2, 50):
        pieces.put(key, (1,), wanted=lambda left: False)
    assert len(pieces.queue._waiting) == 1
    pieces.go.put(None)


def test_who_is_asked_knows_the_seconds_that_are_left(pieces):
    asked = []
    pieces.put(1, (1,), parts=2, wanted=lambda left: asked.append(left) or True)
    pieces.runs((1, 0))
    assert pieces.begun.get(timeout=60) == (1, 1)
    assert asked[0] == 2 * PART_S and asked[-1] == PART_S
    pieces.go.put(None)


def test_the_wait_counts_what_comes_before_and_the_piece_that_runs(pieces):
    begun(pieces, 1, parts=3)                       # order 5, one of three pieces runs
    pieces.put(2, (1,), parts=4)
    assert pieces.seconds_until((0,)) == 1 * PART_S
    assert pieces.seconds_until((1,)) == 5 * PART_S
    assert pieces.seconds_until((9,)) == 7 * PART_S
    pieces.now = 1.5                                # of the piece that runs
    assert pieces.seconds_until((0,)) == 0.5
    pieces.now = 7.5                                # it takes longer than others did
    assert pieces.seconds_until((0,)) == 0 and pieces.seconds_until((9,)) == 6 * PART_S
    for _ in range(7):
        pieces.go.put(None)


def test_nobody_who_asks_ends_what_runs(pieces):
    """Of a piece that takes 2 s and has run for 1.5, half a second is left."""
    asked = []
    first = pieces.put(1, (5,), wanted=lambda left: asked.append(left) or True)
    assert pieces.begun.get(timeout=60) == (1, 0)
    pieces.now = 1.5
    pieces.put(2, (7,))
    assert pieces.seconds_until((9,)) == 0.5 + PART_S and set(asked) == {PART_S}
    pieces.go.put(None)
    pieces.runs((2, 0))
    assert first.get(timeout=60) is None


def test_an_image_that_others_wait_for_counts_once(pieces):
    begun(pieces, 1, parts=2)
    pieces.put(1, (7,), parts=2)
    assert pieces.seconds_until((9,), key=1, parts=2) == 2 * PART_S
    assert pieces.seconds_until((9,), key=3, parts=1) == 3 * PART_S
    assert pieces.seconds_until((0,), key=1, parts=2) == 3 * PART_S   # it would come before
    for _ in range(4):
        pieces.go.put(None)


def test_an_image_that_is_there_by_its_turn_takes_no_time(pieces):
    kept, asked = set(), []
    pieces.queue._known = kept.__contains__
    begun(pieces, 1, parts=1)
    second = pieces.put(1, (7,), wanted=lambda left: asked.append(left) or True)
    kept.add(1)
    pieces.go.put(None)
    pieces.runs((1, 0))
    assert second.get(timeout=60) is None and asked[:2] == [PART_S, 0]


def test_few_images_are_begun_at_once(pieces):
    """Each keeps the pixels of all its pieces; what is given up begins anew."""
    ended = [pieces.put(1, (9,), parts=2)]
    for key in range(2, 6):   # each more urgent than those before
        assert pieces.begun.get(timeout=60) == (key - 1, 0)
        ended.append(pieces.put(key, (9 - key,), parts=2))
        pieces.go.put(None)
    assert pieces.begun.get(timeout=60) == (5, 0)
    waiting = pieces.queue._waiting
    assert len([e for e in waiting if e.pieces is not None]) == MOST_BEGUN
    pieces.go.put(None)
    pieces.runs((5, 1), (4, 1), *((key, part) for key in (3, 2, 1) for part in (0, 1)))
    assert [each.get(timeout=60) for each in ended] == [None] * 5


def test_a_failure_is_that_of_its_own_image(pieces):
    first = begun(pieces, 1, parts=2)
    second = pieces.put(2, (7,))
    fault = ValueError('damaged')
    pieces.go.put(fault)
    pieces.runs((2, 0))
    assert first.get(timeout=60) is fault and second.get(timeout=60) is None


def test_the_queue_goes_on_where_an_end_cannot_be_noted(pieces):
    def fail(error):
        raise RuntimeError('not here')
    pieces.queue.put(Encoding([SeenImage(1, (), None, parts=1)], lambda left: (1,),
                              lambda left: True, fail))
    pieces.runs((1, 0))
    after = pieces.put(2, (1,))
    pieces.runs((2, 0))
    assert after.get(timeout=60) is None


def test_where_orders_cannot_be_compared_all_that_waits_fails(pieces):
    first = begun(pieces, 1, parts=1)
    second, third = pieces.put(2, (7,)), pieces.put(3, ('no number',))
    pieces.go.put(None)
    assert first.get(timeout=60) is None
    assert {type(ended.get(timeout=60)) for ended in (second, third)} == {TypeError}
    after = pieces.put(4, (1,))
    pieces.runs((4, 0))
    assert after.get(timeout=60) is None
