# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Conversations: bounded, one turn at a time, and unchanged by a turn that was not served."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.serving.sessions import SessionLimits, Sessions, without_older_half

from .conftest import Consumer, FakeEngine, FakeInfo
from .test_server import DIALOGUE, wait_until

CONTEXT = 200


@dataclass
class WordEngine:
    """A token is a word; a prompt knows whether it was encoded anew or extended."""

    info: FakeInfo = FakeInfo(max_context=CONTEXT)
    encoded: list = field(default_factory=list)

    def encode_chat(self, messages, tools=()):
        self.encoded.append('anew')
        return self.tokens(messages)

    def extend_chat(self, tokens, prompt_tokens, messages, new, tools=()):
        self.encoded.append('extended')
        return self.check([*tokens, *self.tokens(new)])

    def tokens(self, messages):
        return self.check([word for _, content, *_ in messages for word in content.split()])

    def check(self, tokens):
        if len(tokens) >= CONTEXT:
            raise RequestError(ErrorCode.PROMPT_TOO_LONG, 'the prompt does not fit the context')
        if 'refuse' in tokens:
            raise RequestError(ErrorCode.INVALID_REQUEST, 'the template refuses it')
        return tokens


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(clock):
    """Return a function that makes sessions with the limits given."""
    return lambda **limits: Sessions(WordEngine(), SessionLimits(**limits), clock)


def user(text):
    return [('user', text)]


def answer(turn, text):
    """Return what the engine has of a turn that said `text`."""
    return SimpleNamespace(text=text, tool_calls=(), prompt_tokens=len(turn.tokens),
                           tokens=[*turn.tokens, *text.split()])


def say(sessions, session_id, text, reply='fine', **options):
    """Take one turn and return its prompt."""
    turn = sessions.begin(session_id, user(text), 10, **options)
    turn.end(answer(turn, reply))
    return ' '.join(turn.tokens)


def refused(sessions, *args, **options):
    with pytest.raises(RequestError) as refusal:
        sessions.begin(*args, **options)
    assert len(refusal.value.message) < 300
    return refusal.value.code


def test_a_turn_goes_on_from_the_turn_before(make):
    sessions = make()
    assert say(sessions, 'a', 'one', 'two') == 'one'
    assert say(sessions, 'b', 'other') == 'other'
    assert say(sessions, 'a', 'three', 'four') == 'one two three'
    assert say(sessions, 'a', 'five') == 'one two three four five'
    assert sessions._engine.encoded == ['anew', 'anew', 'extended', 'extended']
    assert len(sessions) == 2


def test_a_live_turn_makes_its_session_busy_and_no_other(make):
    sessions = make()
    say(sessions, 'a', 'one', 'two')
    turn = sessions.begin('a', user('three'), 10)
    assert refused(sessions, 'a', user('four'), 10) is ErrorCode.SESSION_BUSY
    assert say(sessions, 'b', 'other') == 'other'
    turn.end(answer(turn, 'done'))
    turn.end()  # twice does nothing
    assert say(sessions, 'a', 'four') == 'one two three done four'


def test_a_turn_that_is_not_served_leaves_the_conversation(make):
    sessions = make()
    sessions.begin('a', user('gone'), 10).end()
    assert len(sessions) == 0
    say(sessions, 'a', 'one', 'two')
    sessions.begin('a', user('cancelled'), 10).end()
    assert refused(sessions, 'a', user('please refuse'), 10) is ErrorCode.INVALID_REQUEST
    assert refused(sessions, 'a', [('user', 'x'), ('system', 'obey')], 10) \
        is ErrorCode.INVALID_REQUEST
    assert refused(sessions, 'a', user('x'), CONTEXT) is ErrorCode.INVALID_REQUEST
    assert refused(sessions, 'a', user('x ' * CONTEXT), 10) is ErrorCode.PROMPT_TOO_LONG
    assert say(sessions, 'a', 'three') == 'one two three'


def test_reset_forgets_first_whatever_becomes_of_the_turn(make):
    sessions = make()
    say(sessions, 'a', 'secret')
    assert say(sessions, 'a', 'new', reset=True) == 'new'
    assert say(sessions, 'a', 'more') == 'new fine more'
    sessions.begin('a', user('gone'), 10, reset=True).end()
    assert len(sessions) == 0
    assert say(sessions, 'a', 'again') == 'again'
    say(sessions, 'unknown', 'x', reset=True)


def test_a_system_message_begins_a_session_and_comes_no_more(make):
    sessions = make()
    system = [('system', 'brief'), ('user', 'hi')]
    turn = sessions.begin('a', system, 10)
    turn.end(answer(turn, 'yes'))
    assert refused(sessions, 'a', system, 10) is ErrorCode.INVALID_REQUEST
    turn = sessions.begin('a', system, 10, reset=True)
    assert turn.tokens == ['brief', 'hi']
    turn.end()


@pytest.mark.parametrize('limits', [
    {'max_tokens': 60}, {'max_prompt_tokens': 50}, {}])
def test_a_full_conversation_loses_its_older_half_and_keeps_the_system(make, limits):
    sessions = make(**limits)
    turn = sessions.begin('a', [('system', 'brief'), ('user', 'u0')], 10)
    turn.end(answer(turn, 'a0'))
    longest, before, dropped = 0, 2, 0
    for i in range(1, 200):
        words = say(sessions, 'a', f'u{i}', f'a{i}').split()
        assert words[0] == 'brief' and words[-1] == f'u{i}'
        assert words[1:] == [f'{w}{n}' for n in range(int(words[1][1:]), i + 1)
                             for w in 'ua'][:-1]  # turns without a gap
        dropped += len(words) < before
        longest, before = max(longest, len(words)), len(words)
    room = {60: 50, 50: 50}.get(next(iter(limits.values()), 0), CONTEXT - 10)
    assert room - 4 < longest <= room
    # It drops many at once, so that most turns find their beginning in the cache.
    assert 2 <= dropped <= 1 + 2 * 400 // room
    # One turn alone is too long: nothing is left to forget, and the conversation stays.
    code = refused(sessions, 'a', user('x ' * room), 10)
    assert code is ErrorCode.PROMPT_TOO_LONG
    assert len(say(sessions, 'a', 'go').split()) >= before


@pytest.mark.parametrize('messages, expected', [
    ([], []), ([('system', 's')], [('system', 's')]),
    ([('user', 'a'), ('assistant', 'b')], []),
    ([('system', 's'), ('user', 'a'), ('user', 'b'), ('assistant', 'c'), ('user', 'd'),
      ('assistant', 'e')], [('system', 's'), ('user', 'd'), ('assistant', 'e')]),
    ([('assistant', 'hello'), ('user', 'a'), ('assistant', 'b')],
     [('user', 'a'), ('assistant', 'b')])])
def test_turns_are_forgotten_as_a_whole(messages, expected):
    assert without_older_half(messages) == expected


def test_what_is_not_used_for_too_long_is_forgotten(make, clock):
    sessions = make(ttl=60.0)
    say(sessions, 'a', 'one')
    clock.now += 50
    say(sessions, 'b', 'one')
    live = sessions.begin('b', user('long'), 10)
    clock.now += 59
    assert len(sessions) == 1  # a is gone
    assert say(sessions, 'a', 'two') == 'two'
    clock.now += 1000
    assert len(sessions) == 1  # b answers still
    live.end(answer(live, 'done'))
    clock.now += 60
    assert say(sessions, 'b', 'on') == 'one fine long done on'
    sessions.limits = SessionLimits(ttl=1.0)  # live
    clock.now += 2
    assert len(sessions) == 0


def test_thousands_of_sessions_are_bounded_and_the_least_recently_used_goes(make, clock):
    sessions = make(max_count=8)
    for i in range(5000):
        clock.now += 0.001
        say(sessions, f'session {i}', 'one')
        if i % 3 == 0:
            say(sessions, 'favourite', 'more', 'yes', reset=True)
        assert len(sessions._sessions) <= 8
    assert len(sessions) == 8
    assert say(sessions, 'favourite', 'still') == 'more yes still'
    assert say(sessions, 'session 4999', 'still') == 'one fine still'
    assert say(sessions, 'session 17', 'new') == 'new'
    sessions.limits = SessionLimits(max_count=2)  # live
    assert len(sessions) == 2


def test_refused_and_cancelled_first_turns_push_nobody_out(make):
    sessions = make(max_count=2)
    say(sessions, 'a', 'one')
    say(sessions, 'b', 'one')
    for i in range(100):
        assert refused(sessions, f'x{i}', user('refuse'), 10) is ErrorCode.INVALID_REQUEST
        sessions.begin(f'y{i}', user('gone'), 10).end()
    assert say(sessions, 'a', 'two') == 'one fine two'


def test_busy_sessions_are_bounded_too_and_are_never_forgotten(make):
    sessions = make(max_count=3)
    turns = [sessions.begin(f'live {i}', user('one'), 10) for i in range(3)]
    assert refused(sessions, 'one more', user('one'), 10) is ErrorCode.SESSION_BUSY
    for turn in turns:
        turn.end(answer(turn, 'fine'))
    for i in range(3):
        assert say(sessions, f'live {i}', 'two') == 'one fine two'


def test_the_server_ends_a_turn_with_its_request(make_server):
    engine = FakeEngine(seconds=0.002)
    words = WordEngine()
    engine.encode_chat, engine.extend_chat = words.encode_chat, words.extend_chat
    engine_open = engine.open

    def opened(tokens, *rest):
        sequence = engine_open(tokens, *rest)
        sequence.tokens, sequence.prompt_tokens = [*tokens, 'said'], len(tokens)
        return sequence
    engine.open = opened
    server = make_server(engine)

    def ask(text, max_tokens, **options):
        turn = server.sessions.begin('a', user(text), max_tokens)
        consumer = Consumer()
        request = server.submit(DIALOGUE, turn.tokens, max_tokens, None, consumer, turn=turn,
                                **options)
        assert request.session_id == 'a'
        return request, consumer
    _, first = ask('one', 3)
    assert first.last.finish_reason == 'length'
    assert server.snapshot().sessions == 1
    request, second = ask('two', 100)
    assert refused(server.sessions, 'a', user('x'), 3) is ErrorCode.SESSION_BUSY
    assert second.first.wait(10) and server.cancel(request.id)
    assert second.last.finish_reason == 'cancelled'
    request, third = ask('three', 3)  # free before the caller receives the end
    assert third.last.finish_reason == 'length' and request.report().session_id == 'a'
    assert request.prompt_tokens == 3  # one said three

    def fail(work):
        raise RuntimeError('the chip is on fire')
    engine.fail = fail
    assert ask('four', 3)[1].last.error is ErrorCode.ENGINE_FAILURE
    engine.fail = None
    assert ask('five', 3)[0].prompt_tokens == 5  # one said three said five
    wait_until(lambda: not server.snapshot().requests)
    ask('six', 100)
    assert server.stop()
    server.start()
    assert ask('seven', 3)[0].prompt_tokens == 7  # deactivated meanwhile: it was kept
