# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Who has a place in a full queue, and what a cancellation that was accepted guarantees."""

from collections import Counter
import threading
import time

import pytest
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import State
from slice_ros.serving import SessionLimits
from slice_ros.serving.sessions import Turn
from slice_ros.slo import SloClass

from .conftest import FakeEngine, FakeInfo
from .test_server import ask, CONTROL, DIALOGUE, NAVIGATION, wait_until

PLACES = 8


class Jam:
    """A server whose loop stands in a step: all that is submitted waits for its next turn."""

    def __init__(self, make_server, **config):
        self.open = threading.Event()
        self.engine = FakeEngine(fail=lambda work: self.open.wait(20))
        self.server = make_server(self.engine, **{'max_queued': PLACES, **config})
        self.first = ask(self.server, CONTROL, max_tokens=1)[0]
        wait_until(lambda: self.engine.steps)
        self.first.cached = 1   # what adopting a prefix does: it waits in the queue no more

    def fill(self, slo, number):
        return [ask(self.server, slo) for _ in range(number)]

    def refused(self, slo):
        with pytest.raises(RequestError) as refusal:
            ask(self.server, slo)
        assert refusal.value.code is ErrorCode.QUEUE_FULL
        return refusal.value.message

    def queue(self):
        shared = self.server._shared
        with shared.changed:
            return Counter(job.request.slo.name for job in shared.waiting())

    def release(self):
        self.first.cached = 0
        self.open.set()


@pytest.fixture
def jam(make_server):
    jams = []

    def make(**config):
        jams.append(Jam(make_server, **config))
        return jams[-1]
    yield make
    for each in jams:
        each.release()


def test_a_higher_utility_displaces_the_newest_of_the_lowest_before_the_next_turn(jam):
    jam = jam()
    navigation, dialogues = jam.fill(NAVIGATION, 4), jam.fill(DIALOGUE, 4)
    controls = jam.fill(CONTROL, 3)
    assert jam.queue() == {'navigation': 4, 'dialogue': 1, 'control': 3}
    assert jam.server.snapshot().queued == PLACES
    jam.release()
    for request, consumer in dialogues[1:]:
        last, = consumer.wait()   # its end, and no token before
        assert (last.error, last.finish_reason) == (ErrorCode.QUEUE_FULL, 'error')
        assert 'displaced' in last.message and 'control' in last.message
        assert request.state is State.REJECTED
    for _, consumer in (*navigation, *controls, dialogues[0]):
        assert consumer.last.finish_reason == 'length'
    dialogue = jam.server.snapshot().classes['dialogue']
    assert (dialogue.received, dialogue.rejected, dialogue.finished) == (4, 3, 1)


def test_equals_and_lower_ones_are_refused(jam):
    jam = jam()
    jam.fill(NAVIGATION, 4), jam.fill(CONTROL, 4)
    assert 'limits.max_queued' in jam.refused(DIALOGUE)
    assert 'navigation has its share, 4 of 8' in jam.refused(NAVIGATION)
    assert 'limits.class_share' in jam.refused(CONTROL)
    assert jam.queue() == {'navigation': 4, 'control': 4}


def test_below_the_full_queue_one_class_may_have_it_all(jam):
    jam = jam(class_share=0.25)
    dialogues = jam.fill(DIALOGUE, PLACES)
    assert f'{PLACES} requests wait' in jam.refused(DIALOGUE)
    assert jam.queue() == {'dialogue': PLACES}
    jam.release()
    assert all(consumer.last.finish_reason == 'length' for _, consumer in dialogues)


@pytest.mark.parametrize('share, left', [(0.5, 4), (0.75, 6), (0.1, 1), (0.3, 2)])
def test_a_class_keeps_its_share_alone_where_others_want_in(jam, share, left):
    jam = jam(class_share=share)
    controls = jam.fill(CONTROL, PLACES)
    others = 0
    for slo in (DIALOGUE, NAVIGATION) * PLACES:
        try:
            ask(jam.server, slo)
            others += 1
        except RequestError as refusal:
            assert refusal.code is ErrorCode.QUEUE_FULL
    queue = jam.queue()
    assert queue['control'] == max(left, PLACES - 2 * left) and queue.total() == PLACES
    assert others >= PLACES - queue['control']
    jam.release()
    ends = [consumer.last for _, consumer in controls]
    assert [end.error for end in ends].count(ErrorCode.QUEUE_FULL) == PLACES - queue['control']
    assert any('class_share' in end.message for end in ends)


def test_classes_of_one_utility_share_the_queue(jam):
    jam = jam()
    left, right = SloClass('left'), SloClass('right')
    jam.fill(left, PLACES)
    jam.fill(right, PLACES // 2)
    jam.refused(right), jam.refused(left)
    assert jam.queue() == {'left': 4, 'right': 4}


def test_a_share_of_one_lets_utility_alone_decide(jam):
    jam = jam(class_share=1.0)
    jam.fill(CONTROL, PLACES)
    jam.refused(DIALOGUE)
    assert jam.queue() == {'control': PLACES}


def test_an_answer_that_has_begun_is_displaced_last(jam):
    jam = jam(max_queued=3)
    dialogues = jam.fill(DIALOGUE, 3)
    newest = dialogues[-1][0]
    newest.generated = 1   # its KV cache was needed: it waits to be prefilled again
    jam.fill(CONTROL, 1)
    endings = jam.server._shared._endings
    assert list(endings) == [dialogues[1][0].id]
    jam.fill(NAVIGATION, 1)
    assert list(endings) == [dialogues[1][0].id, dialogues[0][0].id]
    jam.fill(SloClass('alarm', utility=1000), 1)
    assert endings[newest.id].state is State.FAILED
    newest.generated = 0


def test_who_is_refused_for_another_reason_displaces_nobody(jam):
    jam = jam(admission='reject')
    jam.fill(SloClass('dialogue'), PLACES)
    with pytest.raises(RequestError) as refusal:
        ask(jam.server, SloClass('control', tpot_ms=0.001, utility=100))
    assert refusal.value.code is ErrorCode.INFEASIBLE_SLO
    assert jam.queue() == {'dialogue': PLACES}


def test_between_two_turns_the_table_is_bounded_too(jam):
    jam = jam()
    ids = []
    for _ in range(2 * PLACES):
        ids.append(ask(jam.server, DIALOGUE)[0].id)
        assert jam.server.cancel(ids[-1])
        if len(jam.server._shared.jobs) == PLACES + 1:
            break
    jam.refused(CONTROL)
    assert len(jam.server._shared.jobs) == PLACES + 1


def test_a_flood_never_keeps_control_out(make_server):
    """Eight threads of dialogue against a slow engine: every control request is served."""
    server = make_server(FakeEngine(info=FakeInfo(slots=4), seconds=0.001), policy='slice',
                         max_queued=PLACES)
    over, codes = threading.Event(), Counter()

    def flood():
        while not over.is_set():
            try:
                ask(server, DIALOGUE, max_tokens=50)
            except RequestError as refusal:
                codes[refusal.code] += 1
            time.sleep(1e-4)   # else the threads fight for the interpreter, not for the queue
    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert ask(server, CONTROL)[1].last.finish_reason == 'length'
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    assert set(codes) == {ErrorCode.QUEUE_FULL}
    server.cancel_class('dialogue')


# -- cancellation --------------------------------------------------------------------------------

def test_a_cancellation_that_was_accepted_wins_over_a_step_that_finishes(jam):
    jam = jam()
    assert jam.server.cancel(jam.first.id)
    assert not jam.server.cancel(jam.first.id)
    jam.release()   # the step samples the last token of the request
    wait_until(lambda: jam.first.ended)
    assert jam.first.state is State.CANCELLED and jam.first.error is ErrorCode.CANCELLED
    control = jam.server.snapshot().classes['control']
    assert (control.cancelled, control.finished) == (1, 0)


def test_each_cancellation_at_any_instant_is_kept(make_server):
    """What `cancel` returns is how the request ends, at 300 different instants."""
    server = make_server(FakeEngine(seconds=0.0002))
    for number in range(300):
        request, consumer = ask(server, max_tokens=1 + number % 3)
        for _ in range(number % 40 * 20):
            pass
        accepted = server.cancel(request.id)
        last = consumer.last
        assert (last.error is ErrorCode.CANCELLED) == accepted
        assert (last.finish_reason == 'cancelled') == accepted
        assert not server.cancel(request.id)


@pytest.mark.parametrize('fault', [RuntimeError('on fire'), MemoryError()])
def test_a_step_that_fails_does_not_change_a_cancellation(make_server, fault):
    reached, go = threading.Event(), threading.Event()

    def fail(work):
        reached.set()
        go.wait(10)
        raise fault
    server = make_server(FakeEngine(fail=fail))
    request, consumer = ask(server)
    assert reached.wait(10) and server.cancel(request.id, 'no longer needed')
    go.set()
    assert (consumer.last.error, consumer.last.message) == (
        ErrorCode.CANCELLED, 'no longer needed')


# -- sessions ------------------------------------------------------------------------------------

class Chat(FakeEngine):
    """A fake engine that encodes: one token for each message."""

    def open(self, tokens, *args):  # noqa: A003
        sequence = super().open(tokens, *args)
        sequence.tokens, sequence.prompt_tokens = tokens, len(tokens)
        return sequence

    def encode_chat(self, messages, tools=()):
        return list(range(len(messages)))

    def extend_chat(self, tokens, prompt_tokens, messages, new, tools=()):
        return [*tokens, *range(len(new))]


def begin(server, **options):
    return server.sessions.begin('s', [('user', 'Hi')], 5, **options)


def test_a_reset_ends_the_live_turn_and_starts_anew(make_server):
    server = make_server(Chat(seconds=0.002), sessions=SessionLimits(max_count=1))
    turn = begin(server)
    first, consumer = ask(server, prompt=1, max_tokens=400, turn=turn)
    assert consumer.first.wait(10)
    with pytest.raises(RequestError) as refusal:
        begin(server)
    assert refusal.value.code is ErrorCode.SESSION_BUSY and 'reset' in refusal.value.message
    again = begin(server, reset=True)
    second, other = ask(server, prompt=1, max_tokens=3, turn=again)
    assert consumer.last.error is ErrorCode.CANCELLED and 'reset' in consumer.last.message
    assert other.last.finish_reason == 'length' and len(server.sessions) == 1


def test_a_reset_in_the_time_between_begin_and_submit(make_server):
    server = make_server(Chat())
    early = begin(server)
    late = begin(server, reset=True)
    with pytest.raises(RequestError) as refusal:
        ask(server, prompt=1, turn=early)
    assert refusal.value.code is ErrorCode.CANCELLED
    early.end()
    assert ask(server, prompt=1, turn=late)[1].last.finish_reason == 'length'
    assert len(server.sessions) == 1


def test_a_session_that_cannot_be_extended_still_answers_its_caller(make_server):
    server = make_server(FakeEngine())   # its sequences have no tokens to remember
    turn = Turn([1], 's', (), lambda turn, answer: answer.tokens)
    assert ask(server, prompt=1, turn=turn)[1].last.finish_reason == 'length'
    assert ask(server)[1].last.finish_reason == 'length'


def test_the_end_of_an_abandoned_turn_leaves_the_new_conversation(make_server):
    server = make_server(Chat(), started=False)
    early = begin(server)
    late = begin(server, reset=True)
    early.end()
    with pytest.raises(RequestError):   # the new turn is still live
        begin(server)
    late.end()
    assert isinstance(begin(server), Turn)
