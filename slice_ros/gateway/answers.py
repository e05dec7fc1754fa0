# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The JSON of an answer, whole or in pieces, in the shapes of OpenAI's two completion calls."""

from dataclasses import dataclass, field
import math
import time

from slice_ros import msg
from slice_ros.client import Answer
from slice_ros.gateway.tool_bodies import calls_json


@dataclass(frozen=True)
class Shape:
    """One of the calls: what its answers are called, and where they carry the text."""

    prefix: str       # of the ids of answers
    whole: str        # `object` of a whole answer
    piece: str        # `object` of a piece of a stream
    chat: bool        # text in a message; otherwise plain


CHAT = Shape('chatcmpl-', 'chat.completion', 'chat.completion.chunk', True)
TEXT = Shape('cmpl-', 'text_completion', 'text_completion', False)


@dataclass(frozen=True)
class Reply:
    """An answer on its way to a caller."""

    shape: Shape
    request_id: str     # the node's, by which ~/cancel and the reports know it
    model: str          # as the caller named it
    created: int = field(default_factory=lambda: int(time.time()))   # seconds since 1970

    def whole(self, answer: Answer) -> dict:
        """Return the body of a whole answer."""
        said = {'text': answer.text}
        if self.shape.chat:
            calls = calls_json(answer.tool_calls, indices=False)
            said = {'message': {
                'role': 'assistant', 'content': None if calls and not answer.text else answer.text,
                'refusal': None, **({'tool_calls': calls} if calls else {}),
                **thought(answer.reasoning)}}
        return {**self._head(self.shape.whole), 'usage': usage(answer.report),
                'choices': [{'index': 0, **said, 'logprobs': None,
                             'finish_reason': finish_reason(answer)}],
                'slo_report': slo_report(answer.report)}

    def piece(self, text: str, first: bool = False, answer: Answer | None = None,
              reasoning: str = '') -> dict:
        """Return one event of a stream; with an `answer` it is the last one with a text."""
        said = {'text': text}
        if self.shape.chat:
            said = {'delta': {**({'role': 'assistant'} if first else {}),
                              **({'content': text} if first or text else {}),
                              **thought(reasoning)}}
        reason = None if answer is None else finish_reason(answer)
        event = {**self._head(self.shape.piece), 'choices': [
            {'index': 0, **said, 'logprobs': None, 'finish_reason': reason}]}
        return event if answer is None else {**event, 'slo_report': slo_report(answer.report)}

    def calls(self, answer: Answer) -> dict:
        """Return the event of a stream that has the tool calls of an answer."""
        event = self.piece('')
        event['choices'][0]['delta']['tool_calls'] = calls_json(answer.tool_calls, indices=True)
        return event

    def usage(self, answer: Answer) -> dict:
        """Return the event after the last text, for callers that want the usage."""
        return {**self._head(self.shape.piece), 'choices': [], 'usage': usage(answer.report)}

    def _head(self, kind: str) -> dict:
        return {'id': self.shape.prefix + self.request_id, 'object': kind,
                'created': self.created, 'model': self.model}


def finish_reason(answer: Answer) -> str:
    """Return why an answer ended: `length` also where its format is incomplete."""
    if answer.finish_reason != 'stop':
        return 'length'
    return 'tool_calls' if answer.tool_calls else 'stop'


def usage(report: msg.SloReport) -> dict:
    """Return the tokens of a request."""
    return {'prompt_tokens': report.prompt_tokens, 'completion_tokens': report.output_tokens,
            'total_tokens': report.prompt_tokens + report.output_tokens,
            'completion_tokens_details': {'reasoning_tokens': report.reasoning_tokens},
            'prompt_tokens_details': {'cached_tokens': report.reused_tokens}}


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
