# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A thought: parted from its answer token by token, within a budget, and closed in time.

The tags are found in the text, since not every model has tokens of its own for them. Once the
budget is spent, the end tag is fed in place of what was sampled.
"""

from collections import deque
from collections.abc import Callable, Sequence

from slice_ros.engine.chat_options import ChatOptions
from slice_ros.engine.text.constraint import Constraint
from slice_ros.engine.text.detokenizer import Detokenizer
from slice_ros.engine.text.reasoning.think_tags import ThinkTags
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.engine.text.vocabulary import Vocabulary

_TAIL = 64    # tokens at the end of a prompt in which its tags are looked for
_SILENT = 8   # tokens of blanks, or of the beginning of a tag, that may precede a thought


class Thinking:
    """How the model of an engine thinks. Thread-safe.

    `ids` returns the tokens of a text.
    """

    def __init__(self, tags: ThinkTags, vocabulary: Vocabulary, ids: Callable[[str], list[int]],
                 max_context: int, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self.tags, self.vocabulary, self.ids = tags, vocabulary, ids
        self.closing, self.gap = ids(tags.closing), ids(tags.closing.rpartition(tags.end)[2])
        opening, closing = ids(tags.start), ids(tags.end)
        self.start = opening[0] if len(opening) == 1 else None
        # Tokens of their own, which may be special ones: those have no text.
        self.texts = {found[0]: text for found, text in (
            (opening, tags.start), (closing, tags.end)) if len(found) == 1}
        self._beside = len(opening) + len(self.closing)   # tokens of a thought beside its text
        self._max_context = max_context

    def begin(self, tokens: Sequence[int], max_tokens: int, options: ChatOptions,
              then: Constraint | None) -> 'Thought | None':
        """Return the thought that may follow a prompt; None where the answer begins at once.

        It leaves `max_tokens` of the context to the answer, which `then` keeps in its format.
        """
        words = [token for token in tokens[-_TAIL:] if token < self._vocab_size]   # no images
        tail = self._text(words).rstrip()
        inside = tail.endswith(self.tags.start)
        if tail.endswith(self.tags.end) or (
                not inside and then is not None and self.start is None):
            return None
        room = self._max_context - len(tokens) - max_tokens - self._beside
        budget = max(min(options.budget, room), 0)
        return Thought(self, inside, budget, budget + self._beside, then)

    def _text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens with their tags, behind the last other special token.

        There the template opens the answer: what stands before it may be a caller's.
        """
        text, plain = '', []
        for token in tokens:
            if token in self.texts:
                text += self.vocabulary.decode(plain) + self.texts[token]
                plain = []
            elif token in self.vocabulary.special:
                text, plain = '', []
            else:
                plain.append(token)
        return text + self.vocabulary.decode(plain)


def thinking_of(encoder: PromptEncoder, max_context: int, vocab_size: int) -> Thinking | None:
    """Return how a model thinks; None where it does not, or its tags are no tokens of it."""
    if encoder.tags is None:
        return None
    made = Thinking(encoder.tags, encoder.vocabulary, encoder.ids, max_context, vocab_size)
    return made if max(made.closing) < vocab_size else None


class Thought:
    """The state of one thought; `room` is how many tokens it may take.

    `take` says of each token of a request which one follows. Then `taken` is whether that belongs
    to the thought, or may, and `piece` the text of the thought that came with it. `over` is True
    when the next token is the answer's, and so were those in `early`, whose text is still missing.
    """

    def __init__(self, thinking: Thinking, inside: bool, budget: int, room: int,
                 then: Constraint | None) -> None:
        self.room, self.then = room, then
        self.over, self.taken = False, True
        self.piece = ''
        self.pieces: list[str] = []
        self.early: list[int] = []   # tokens that may be the start tag, or else the answer's
        self._blank = False          # the answer behind it has only had blanks so far
        self._thinking, self.inside, self._left = thinking, inside, budget
        self._decoder = Detokenizer(thinking.vocabulary)
        self._unread = ''            # text that may belong to a tag, or blanks before one
        self._next: deque[int] = deque()   # tokens that are fed, whatever is sampled
        self._allowed = False        # what the format says of a start tag
        if inside and not budget:
            self._next.extend(thinking.closing)
        if not inside and then is not None:
            self._allowed = then.allow(thinking.start, True)

    @property
    def forced(self) -> int | None:
        """The next token, where it is known without a step."""
        return self._next[0] if self._next else None

    def take(self, token: int, stop_tokens: frozenset[int]) -> int:
        """Return the token that follows where `token` was sampled."""
        self.piece = ''
        if self.over:
            self.taken = False
            return token
        if self._next:
            return self._fed()
        if not self.inside:
            return self._before(token, stop_tokens)
        if token in stop_tokens:   # it has no answer yet
            return self._close()
        new = self._piece(token)
        text = self._unread + new
        thought, tag, rest = text.partition(self._thinking.tags.end)
        if tag:
            return self._end(token, thought, new, rest)
        self._left -= 1
        self._unread = text[self._settled(text):]
        self._release(text[:len(text) - len(self._unread)])
        if self._left <= 0:
            self._next.extend(self._thinking.closing)
            self._release(self._unread.rstrip())
        return token

    def _before(self, token: int, stop_tokens: frozenset[int]) -> int:
        """Return `token`, at a place where the answer may begin, with or without a thought."""
        start = self._thinking.tags.start
        self.early.append(token)
        if self.then is not None:   # then the tag is a token, and the answer's format has begun
            self.then.allow(self._thinking.start, self._allowed)
            self.inside, possible = token == self._thinking.start, False
        else:
            self._unread += '' if token in stop_tokens else self._piece(token)
            begun = self._unread.lstrip()
            self.inside = begun.startswith(start)
            possible = (start.startswith(begun) and len(self.early) < _SILENT
                        and token not in stop_tokens)
        if self.inside:
            self.early, self._unread = [], self._unread.partition(start)[2]
            if self._left <= 0:
                self._next.extend(self._thinking.closing)
        elif not possible:
            self.over, self.taken = True, False   # without a thought
        return token

    def _end(self, token: int, thought: str, new: str, rest: str) -> int:
        """Return the token with which the model itself ends the thought.

        Of a token that has more than the end of the tag, the rest is sampled again. A format
        begins behind the blank line that would follow.
        """
        self._release(thought.rstrip())
        if rest.strip():
            token, *behind = self._thinking.ids(new[:len(new) - len(rest)])
            self._next.extend(behind)
        if self.then is not None and not rest.isspace():
            self._next.extend(self._thinking.gap)
        if not self._next:
            self._finish()
        return token

    def _close(self) -> int:
        self._release(self._unread.rstrip())
        self._next.extend(self._thinking.closing)
        return self._fed()

    def _fed(self) -> int:
        token = self._next.popleft()
        if not self._next:
            self._finish()
        return token

    def _finish(self) -> None:
        self.over = self._blank = True

    def without_blanks(self, text: str) -> str:
        """Return a text of the answer without blanks at the beginning, behind a thought."""
        if self._blank:
            text = text.lstrip()
            self._blank = not text
        return text

    def _piece(self, token: int) -> str:
        return self._thinking.texts.get(token) or self._decoder.push(token)[0]

    def _settled(self, text: str) -> int:
        """Return how much of a text is the thought's, blanks and parts of the end tag excepted."""
        end = self._thinking.tags.end
        keep = next((n for n in range(min(len(end) - 1, len(text)), 0, -1)
                     if text.endswith(end[:n])), 0)
        return len(text[:len(text) - keep].rstrip())

    def _release(self, text: str) -> None:
        if not self.pieces:
            text = text.lstrip()
        if text:
            self.piece += text
            self.pieces.append(text)
