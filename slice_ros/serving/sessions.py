# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sessions: conversations of several turns, with the exact tokens of each.

The prompt of the next turn begins with exactly the tokens of the last prompt and its answer, so
that the engine finds them in its KV cache and computes only the rest. A turn that is served to its
end extends the conversation; one that is refused, cancelled or fails leaves it unchanged. A turn
that resets the session ends the live one, which no longer changes anything.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
import threading
from typing import TYPE_CHECKING

from slice_ros.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from slice_ros.engine import ChatOptions, Engine, TokenSequence, Tool

Messages = list[tuple]   # each a `Message` of the engine, or its first fields; oldest first


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds on the memory of all conversations; 0 tokens = room of the context."""

    max_count: int = 64         # conversations kept; the least recently used goes
    ttl: float = 1800.0         # seconds since the last use after which one is forgotten
    max_tokens: int = 0         # of one conversation, with max_tokens of the next answer
    max_prompt_tokens: int = 0  # of one conversation, without the next answer


@dataclass(eq=False, slots=True)
class _Session:
    used: float                                        # when it was last used
    messages: Messages = field(default_factory=list)   # the last is an answer
    tokens: list[int] = field(default_factory=list)    # of the last prompt and its answer
    prompt_tokens: int = 0                             # number of these in the prompt
    manner: tuple = ()                                 # tools and options of this prompt
    turn: 'Turn | None' = None                         # the live one


class Turn:
    """One request of a session: its prompt, and the conversation that the answer extends.

    `tokens` are the prompt. `end` must be called when the request has ended or was refused.
    `abandoned` is why its request must not become live, empty while it may.
    """

    def __init__(self, tokens: list[int], session_id: str = '', messages: Sequence = (),
                 end: Callable[['Turn', 'TokenSequence | None'], None] | None = None,
                 manner: tuple = ()) -> None:
        self.tokens, self.session_id, self.messages = tokens, session_id, messages
        self.manner = manner
        self.abandoned = ''
        self._end = end

    def end(self, answer: 'TokenSequence | None' = None) -> None:
        """Free the session; `answer` is the sequence if it was served to its end.

        A second call does nothing.
        """
        end, self._end = self._end, None
        if end is not None:
            end(self, answer)


class Sessions:
    """The conversations of one engine, by session id. Thread-safe; no call waits for a turn.

    `abandon` is called with a live turn that is to be ended, and why.
    """

    def __init__(self, engine: 'Engine', limits: SessionLimits, clock: Callable[[], float],
                 abandon: Callable[[Turn, str], None] = lambda turn, why: None) -> None:
        self.limits = limits
        self._engine, self._clock, self._abandon = engine, clock, abandon
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        """Return how many conversations are kept."""
        with self._lock:
            self._forget()
            return sum(bool(s.messages) for s in self._sessions.values())

    def begin(self, session_id: str, messages: Messages, max_tokens: int,
              reset: bool = False, tools: tuple['Tool', ...] = (),
              options: 'ChatOptions | None' = None) -> Turn:
        """Return the next turn of a session: `messages`, and an answer of `max_tokens` at most.

        `tools` and `options` are those of this turn alone. With `reset` the conversation is
        deleted and its live turn abandoned first, also if the new turn is refused. When a
        conversation does not fit any more, the older half of its turns is deleted, repeatedly if
        necessary; a leading system message stays. Raises `RequestError`: SESSION_BUSY,
        PROMPT_TOO_LONG, or INVALID_REQUEST for messages that cannot be appended or a `max_tokens`
        without room.
        """
        longest = self._room(max_tokens)
        manner = (tools,) if options is None else (tools, options)
        turn = Turn([], session_id, manner=manner)
        with self._lock:
            self._forget()
            abandoned = self._reset(session_id) if reset else None
            session = self._take(turn)
        turn._end = partial(self._ended, session)
        if abandoned is not None:
            self._abandon(abandoned, 'a later request has reset its session')
        try:
            if any(role == 'system' for role, *_ in messages[bool(not session.messages):]):
                raise RequestError(
                    ErrorCode.INVALID_REQUEST, 'a system message can only be the first of a '
                    'session: leave it out, or set reset_session')
            earlier, turn.tokens = self._encode(session, messages, longest, manner)
        except BaseException:
            turn.end()
            raise
        turn.messages = [*earlier, *messages]
        return turn

    def _room(self, max_tokens: int) -> int:
        limits, info = self.limits, self._engine.info
        context = min(info.max_context, info.kv_tokens)
        bound = min(limits.max_tokens or context, context)
        if max_tokens >= bound:
            raise RequestError(
                ErrorCode.INVALID_REQUEST, f'max_tokens is {max_tokens} and a session holds '
                f'{bound} tokens: choose less, or raise sessions.max_tokens')
        return min(limits.max_prompt_tokens or bound, bound - max_tokens)

    def _reset(self, session_id: str) -> Turn | None:
        """Delete a conversation; return its live turn. The lock must be locked."""
        session = self._sessions.pop(session_id, None)
        return session.turn if session is not None else None

    def _take(self, turn: Turn) -> _Session:
        """Return the session of a new turn, which is its live one now; the lock must be locked."""
        session = self._sessions.get(turn.session_id)
        if session is not None and session.turn is not None:
            raise RequestError(
                ErrorCode.SESSION_BUSY, 'this session answers another request: wait until that '
                'has ended, cancel it, or set reset_session')
        if session is None:
            busy = sum(s.turn is not None for s in self._sessions.values())
            if busy >= self.limits.max_count:
                raise RequestError(
                    ErrorCode.SESSION_BUSY, f'{busy} sessions answer requests: wait until '
                    'one has ended, or raise sessions.max_count')
            session = self._sessions[turn.session_id] = _Session(self._clock())
        session.turn = turn
        return session

    def _encode(self, session: _Session, messages: Messages, longest: int,
                manner: tuple) -> tuple[Messages, list[int]]:
        """Return the earlier messages that fit, and the tokens of these and the new ones."""
        earlier, error = session.messages, None
        while True:
            try:
                if earlier and earlier is session.messages and manner == session.manner:
                    tokens = self._engine.extend_chat(
                        session.tokens, session.prompt_tokens, earlier, messages, *manner)
                else:
                    tokens = self._engine.encode_chat([*earlier, *messages], *manner)
                if len(tokens) <= longest:
                    return earlier, tokens
                error = RequestError(
                    ErrorCode.PROMPT_TOO_LONG,
                    f'the turn alone has {len(tokens)} tokens, and beside max_tokens there is '
                    f'room for {longest}: shorten it, or lower max_tokens')
            except RequestError as refusal:
                if refusal.code is not ErrorCode.PROMPT_TOO_LONG:
                    # Where the call of a result was deleted, that is not the caller's fault.
                    raise (error or refusal) from refusal
                error = refusal
            shorter = without_older_half(earlier)
            if shorter == earlier:
                raise error
            earlier = shorter

    def _ended(self, session: _Session, turn: Turn, answer: 'TokenSequence | None') -> None:
        with self._lock:
            session.turn = None   # first: whatever follows, the session is free
            if self._sessions.get(turn.session_id) is not session:
                return   # it was reset meanwhile
            if answer is not None:
                session.messages = [
                    *turn.messages, ('assistant', answer.text, answer.tool_calls)]
                session.tokens, session.prompt_tokens = answer.tokens, answer.prompt_tokens
                session.manner = turn.manner
            session.used = self._clock()
            self._sessions.move_to_end(turn.session_id)
            if not session.messages:
                del self._sessions[turn.session_id]
            self._forget()

    def _forget(self) -> None:
        """Delete sessions that expired or exceed the limit; the lock must be locked."""
        expired = self._clock() - self.limits.ttl
        # A first turn, which may still be refused, displaces no other session.
        extra = sum(bool(s.messages) for s in self._sessions.values()) - self.limits.max_count
        for session_id, session in list(self._sessions.items()):
            if extra <= 0 and session.used >= expired:
                return
            if session.turn is None:
                del self._sessions[session_id]
                extra -= 1


def without_older_half(messages: Messages) -> Messages:
    """Return a conversation without the older half of its turns; a leading system message stays.

    A turn begins with a user message that follows a message of another role.
    """
    head = messages[:1] if messages and messages[0][0] == 'system' else []
    rest = messages[len(head):]
    starts = [i for i, (role, *_) in enumerate(rest)
              if i == 0 or role == 'user' and rest[i - 1][0] != 'user']
    if not starts:
        return head
    half = (len(starts) + 1) // 2
    return head + (rest[starts[half]:] if half < len(starts) else [])
