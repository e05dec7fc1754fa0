# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The JSON of answers, whole or in pieces, in the shapes of OpenAI's two completion calls."""

import codecs
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
import math
import time

from slice_ros import msg
from slice_ros.client import Answer, Cancelled, SliceError, TokenLogprob
from slice_ros.gateway import http_errors
from slice_ros.gateway.tool_bodies import calls_json

UNLIKELY = -9999.0   # stands for all that is less likely, as in OpenAI's API


@dataclass(frozen=True)
class Shape:
    """One of the calls: what its answers are called, and where they carry the text."""

    prefix: str       # of the ids of answers
    whole: str        # `object` of a whole answer
    piece: str        # `object` of a piece of a stream
    chat: bool        # text in a message; otherwise plain


CHAT = Shape('chatcmpl-', 'chat.completion', 'chat.completion.chunk', True)
TEXT = Shape('cmpl-', 'text_completion', 'text_completion', False)


class Offsets:
    """Where the tokens of one answer begin in its text, one after the other."""

    def __init__(self) -> None:
        self._decoder, self._at = codecs.getincrementaldecoder('utf-8')('replace'), 0

    def next(self, token: TokenLogprob) -> int:  # noqa: A003
        """Return where a token begins; those that make one character together, in one place."""
        at = self._at
        if not token.special:
            self._at += len(self._decoder.decode(token.data))
        return at


@dataclass(frozen=True)
class Reply:
    """One or several answers on their way to a caller."""

    shape: Shape
    request_id: str     # the node's of the first, by which ~/cancel and the reports know it
    model: str          # as the caller named it
    n: int = 1          # answers
    ranked: bool = False   # with log-probabilities
    created: int = field(default_factory=lambda: int(time.time()))   # seconds since 1970
    offsets: defaultdict[int, Offsets] = field(default_factory=lambda: defaultdict(Offsets))

    def whole(self, ends: Sequence[Answer | SliceError]) -> dict:
        """Return the body of whole answers; one that failed has the reason in its place."""
        return {**self._head(self.shape.whole), 'usage': usage(ends),
                'choices': [self._choice(index, end) for index, end in enumerate(ends)],
                'slo_report': slo_report(_reports(ends)[0])}

    def _choice(self, index: int, end: Answer | SliceError) -> dict:
        answer = end if isinstance(end, Answer) else end.answer
        said = {'text': answer.text if answer else ''}
        if self.shape.chat:
            calls = calls_json(answer.tool_calls, indices=False) if answer else []
            said = {'message': {
                'role': 'assistant', 'content': None if calls and not said['text'] else
                said['text'], 'refusal': None, **({'tool_calls': calls} if calls else {}),
                **thought(answer.reasoning if answer else '')}}
        ranks = self._logprobs(index, answer.logprobs) if answer and self.ranked else None
        return {'index': index, **said, 'logprobs': ranks, **self._end(end)}

    def _end(self, end: Answer | SliceError) -> dict:
        """Return why a choice ended, and beside others, what became of its objectives."""
        found = {'finish_reason': finish_reason(end)}
        if isinstance(end, SliceError):
            failed = http_errors.as_http(end)
            found |= http_errors.error_object(failed.message, failed.reply)
        reports = _reports([end])
        return found | ({'slo_report': slo_report(reports[0])} if self.n > 1 and reports else {})

    def piece(self, index: int, text: str = '', first: bool = False,
              end: Answer | SliceError | None = None, reasoning: str = '',
              ranks: Sequence[TokenLogprob] = ()) -> dict:
        """Return one event of a stream; with an `end` it is the last one of its choice."""
        said = {'text': text}
        if self.shape.chat:
            said = {'delta': {**({'role': 'assistant'} if first else {}),
                              **({'content': text} if first or text else {}),
                              **thought(reasoning)}}
        event = {**self._head(self.shape.piece), 'choices': [
            {'index': index, **said, 'logprobs': self._logprobs(index, ranks) if ranks else None,
             **({'finish_reason': None} if end is None else self._end(end))}]}
        return event if end is None else {
            **event, **{'slo_report': slo_report(report) for report in _reports([end])}}

    def calls(self, index: int, answer: Answer) -> dict:
        """Return the event of a stream that has the tool calls of an answer."""
        event = self.piece(index)
        event['choices'][0]['delta']['tool_calls'] = calls_json(answer.tool_calls, indices=True)
        return event

    def usage(self, ends: Sequence[Answer | SliceError]) -> dict:
        """Return the event after the last text, for callers that want the usage."""
        return {**self._head(self.shape.piece), 'choices': [], 'usage': usage(ends)}

    def _logprobs(self, index: int, ranks: Sequence[TokenLogprob]) -> dict:
        if self.shape.chat:
            return {'content': [{**_entry(one), 'top_logprobs': list(map(_entry, one.top))}
                                for one in ranks], 'refusal': None}
        return {'tokens': [one.text for one in ranks],
                'token_logprobs': [_number(one.logprob) for one in ranks],
                'top_logprobs': [{other.text: _number(other.logprob)
                                  for other in (*one.top, one)} for one in ranks],
                'text_offset': [self.offsets[index].next(one) for one in ranks]}

    def _head(self, kind: str) -> dict:
        return {'id': self.shape.prefix + self.request_id, 'object': kind,
                'created': self.created, 'model': self.model}


def _entry(one: TokenLogprob) -> dict:
    return {'token': one.text, 'bytes': None if one.special else list(one.data),
            'logprob': _number(one.logprob)}


def _number(logprob: float) -> float:
    return round(logprob, 6) if logprob > UNLIKELY else UNLIKELY


def finish_reason(end: Answer | SliceError) -> str:
    """Return why an answer ended: `length` also where its format is incomplete."""
    if isinstance(end, SliceError):
        return 'cancelled' if isinstance(end, Cancelled) else 'error'
    if end.finish_reason != 'stop':
        return 'length'
    return 'tool_calls' if end.tool_calls else 'stop'


def _reports(ends: Sequence[Answer | SliceError]) -> list[msg.SloReport]:
    answers = [end if isinstance(end, Answer) else end.answer for end in ends]
    return [answer.report for answer in answers if answer is not None]


def usage(ends: Sequence[Answer | SliceError]) -> dict:
    """Return the tokens of all answers, and those of their prompt, once."""
    reports = _reports(ends)
    output = sum([report.output_tokens for report in reports])
    return {'prompt_tokens': reports[0].prompt_tokens, 'completion_tokens': output,
            'total_tokens': reports[0].prompt_tokens + output,
            'completion_tokens_details': {
                'reasoning_tokens': sum([report.reasoning_tokens for report in reports])},
            'prompt_tokens_details': {'cached_tokens': reports[0].reused_tokens}}


def slo_report(report: msg.SloReport) -> dict:
    """Return what msg/SloReport says beside the usage; times are milliseconds, null = none."""
    return {'slo_class': report.slo.name, 'attained': report.attained,
            'ttft_ms': finite(report.ttft_ms), 'answer_ms': finite(report.answer_ms),
            'tpot_ms': finite(report.tpot_ms), 'completion_ms': finite(report.completion_ms),
            'objectives': {name: getattr(report.slo, name)
                           for name in ('ttft_ms', 'tpot_ms', 'deadline_ms')}}


def thought(reasoning: str) -> dict:
    """Return the thought of a message or a delta, where vLLM and DeepSeek have it."""
    return {'reasoning_content': reasoning} if reasoning else {}


def finite(value: float) -> float | None:
    """Return a number that JSON has, None for NaN and infinity."""
    return round(value, 3) if math.isfinite(value) else None
