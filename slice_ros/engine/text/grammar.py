# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Response formats: which tokens may be sampled next, and when an answer is complete.

The format of a request is compiled into a matcher (llguidance) when the request is opened. The
matcher consumes each sampled token. Before each token it computes a mask of the allowed ones. This
takes some tens of microseconds, in a thread of its own, while the forward pass runs.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
import json
import logging

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
import numpy as np
from slice_ros.engine.config import FORMATS, ResponseFormat
from slice_ros.engine.text.constraint import Constraint, gist_of
from slice_ros.engine.text.schema_limits import (
    check_regex, MAX_BYTES, MAX_REGEX_BYTES, read_schema)
from slice_ros.engine.text.tools.call_grammar import call_grammar, literally
from slice_ros.engine.text.tools.call_reader import CallReader
from slice_ros.engine.text.tools.call_syntax import CallSyntax
from slice_ros.engine.text.tools.plain_json import PLAIN_JSON
from slice_ros.engine.text.tools.tool_schemas import check_tools
from slice_ros.errors import ErrorCode, RequestError

logger = logging.getLogger(__name__)

_MAX_CHOICES = 256
_MAX_CHOICE_BYTES = 16384   # of all choices together
# Blanks only where json.dumps puts them: a small model may repeat optional ones for ever.
_JSON = {'item_separator': ', ', 'key_separator': ': ', 'whitespace_flexible': False}


class Grammars:
    """Compiles formats for one tokenizer, and computes masks in the background.

    `compile` may be called from any thread, `prepare` from the one that runs the loop.
    """

    def __init__(self, tokenizer, vocab_size: int, stop_tokens: frozenset[int],
                 syntax: CallSyntax = PLAIN_JSON) -> None:
        self._tokenizer, self._syntax = None, syntax
        self._why_not = 'its tokenizer is of an unknown kind'
        self._worker = ThreadPoolExecutor(1, 'slice masks')
        stops = sorted(token for token in stop_tokens if token < vocab_size)
        backend = getattr(tokenizer, 'backend_tokenizer', None)
        if not stops:
            self._why_not = 'it has no token that ends an answer'
        elif backend is not None:
            try:
                self._tokenizer = LLTokenizer(_within(backend, vocab_size),
                                              n_vocab=vocab_size, eos_token=stops)
            except ValueError as error:
                logger.warning('this model cannot keep to a response format: %s', error)
        added = {} if backend is None else backend.get_added_tokens_decoder()
        self._special = {token.content: number for number, token in added.items()
                         if token.special and number < vocab_size}
        self._not_stops = np.full(-(-vocab_size // 32) * 32, 1, np.uint8)
        self._not_stops[stops] = 0
        self._vocab_size = vocab_size

    def compile(self, wanted: ResponseFormat) -> Constraint | None:  # noqa: A003
        """Return the constraint that keeps an answer in a format; None for free text.

        With tools it keeps their calls in their form. Raises ``RequestError``, INVALID_REQUEST,
        when the format or a tool is unknown, too large or too costly, or no answer can have it.
        """
        kind, choices, grammar = wanted.kind, wanted.choices, wanted.grammar
        if kind not in FORMATS:
            raise _invalid(f'type is {kind[:80]!r}: choose one of {", ".join(FORMATS)}')
        if choices and kind != 'choice':
            raise _invalid(f'choices are given, but the type is {kind}: set the type to choice')
        if grammar and kind not in ('json_schema', 'regex'):
            raise _invalid(f'a grammar is given, but the type is {kind}: set the type to '
                           'json_schema or regex')
        if wanted.tools:
            return self._compile_calls(wanted)
        if kind == 'text':
            return None
        if self._tokenizer is None:
            raise _invalid(f'this model cannot keep to one ({self._why_not}): choose text')
        endings: tuple[bytes, ...] = ()
        try:
            if kind == 'choice':
                endings = _encoded(choices)
                compiled = LLMatcher.grammar_from_regex('|'.join(map(literally, choices)))
            elif kind == 'regex':
                _check_size(grammar, MAX_REGEX_BYTES)
                check_regex(grammar)
                # \d is 0 to 9 alone: few programs can read other Unicode digits.
                compiled = LLMatcher.grammar_from_lark(f'start: /{regex_to_lark(grammar, "d")}/')
            else:
                _check_size(grammar, MAX_BYTES)
                compiled = LLMatcher.grammar_from_json_schema(
                    json.dumps(read_schema(grammar)), overrides=_JSON)
        except UnicodeEncodeError:
            raise _refused(kind, 'it is no Unicode text') from None
        except ValueError as error:
            raise _refused(kind, str(error)) from None
        matcher = self._matcher(compiled)
        if matcher.is_error():
            raise _refused(kind, matcher.get_error())
        return self._constraint(matcher, kind, endings)

    def _compile_calls(self, wanted: ResponseFormat) -> Constraint:
        if wanted.kind != 'text':
            raise _invalid('a format and tools are given: leave either out')
        check_tools(wanted.tools)
        if self._tokenizer is None:
            raise _no_tools(f'this model cannot keep to their form ({self._why_not}): leave them '
                            'out')
        matcher = self._matcher(LLMatcher.grammar_from_lark(call_grammar(
            wanted.tools, wanted.tool_choice, self._syntax, self._special, _JSON)))
        if matcher.is_error():
            raise _refused('tools', matcher.get_error())
        reader = CallReader(self._syntax, wanted.tool_choice != 'auto')
        return self._constraint(matcher, 'tools', reader=reader)

    def _matcher(self, compiled: str) -> LLMatcher:
        limits = LLParserLimits(
            max_items_in_row=1000, initial_lexer_fuel=300_000, step_lexer_fuel=100_000,
            step_max_items=20_000, max_lexer_states=20_000, max_grammar_size=50_000,
            verbose_errors=False)
        return LLMatcher(self._tokenizer, compiled, log_level=0, limits=limits)

    def _constraint(self, matcher: LLMatcher, kind: str, endings: tuple[bytes, ...] = (),
                    reader: CallReader | None = None) -> Constraint:
        answer = Constraint(matcher, self._tokenizer, self._not_stops, self._vocab_size, endings,
                            reader)
        answer.prepare()
        if answer.error:
            raise _refused(kind, answer.error)
        return answer

    def prepare(self, answers: Sequence[tuple[Constraint, Sequence[int]]]) -> Future | None:
        """Start computing the masks of the next tokens; the future is done when they are.

        Each answer comes with guesses, behind which a mask is needed too. None when there are no
        `answers`.
        """
        if not answers:
            return None
        return self._worker.submit(lambda: [
            answer.prepare(guesses) for answer, guesses in answers])


def _within(backend, vocab_size: int) -> str:
    """Return a tokenizer as text, without added tokens for which the model has no logits."""
    text = backend.to_str()
    if max(backend.get_added_tokens_decoder(), default=-1) < vocab_size:
        return text
    made = json.loads(text)
    made['added_tokens'] = [t for t in made['added_tokens'] if t['id'] < vocab_size]
    return json.dumps(made)


def _encoded(choices: tuple[str, ...]) -> tuple[bytes, ...]:
    if not 0 < len(choices) <= _MAX_CHOICES:
        raise ValueError(f'give 1 to {_MAX_CHOICES} choices, not {len(choices)}')
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise ValueError('a choice must be a text that is not empty')
    if sum(map(len, choices)) > _MAX_CHOICE_BYTES:
        raise ValueError(f'all choices together may have {_MAX_CHOICE_BYTES} bytes')
    encoded = tuple(dict.fromkeys(choice.encode() for choice in choices))
    if sum(map(len, encoded)) > _MAX_CHOICE_BYTES:
        raise ValueError(f'all choices together may have {_MAX_CHOICE_BYTES} bytes')
    return encoded


def _check_size(grammar: str, limit: int) -> None:
    if not grammar:
        raise ValueError('grammar is empty')
    size = len(grammar) if len(grammar) > limit else len(grammar.encode())
    if size > limit:
        raise ValueError(f'it has {size} bytes, {limit} are possible')


def _refused(kind: str, reason: str) -> RequestError:
    what = {'choice': 'the choices', 'regex': 'the regular expression',
            'json_schema': 'the JSON schema', 'tools': 'their schemas'}[kind]
    refusal = _no_tools if kind == 'tools' else _invalid
    return refusal(f'{what} cannot be used: {gist_of(reason)}')


def _no_tools(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, f'tools: {sentence}')


def _invalid(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, f'response_format: {sentence}')
