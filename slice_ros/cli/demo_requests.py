# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The requests of the demo, their answers, and how they are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
import time

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text
from slice_ros import msg
from slice_ros.cli.connection import Connection
from slice_ros.cli.robots_minute import Line
from slice_ros.client import Stream
from slice_ros.ros.conversions import report_from
from slice_ros.ros.qos import TOKENS
from slice_ros.slo import SloReport

STYLES = {'control': 'red', 'navigation': 'yellow', 'dialogue': 'cyan'}


@dataclass
class DemoRequest:
    """One request of the script and its answer."""

    line: Line
    stream: Stream

    @property
    def over(self) -> bool:
        return self.stream.done

    @property
    def answered(self) -> bool:
        return self.over and self.stream.error is None and bool(self.stream.result.text.strip())


class DemoRequests:
    """Sends the requests through the action and subscribes to the topics of the classes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sent: list[DemoRequest] = []
        self._texts: dict[str, list[str]] = {}   # request id -> texts of its topic so far
        for name in STYLES:
            connection.node.create_subscription(
                msg.TokenChunk, f'{connection.client.target}/{name}/tokens', self._on_chunk,
                TOKENS)

    def _on_chunk(self, chunk: msg.TokenChunk) -> None:
        self._texts.setdefault(chunk.request_id, []).append(chunk.text)

    def send(self, line: Line) -> None:
        self.sent.append(DemoRequest(line, self.connection.client.generate(
            line.messages, line.slo_class, max_tokens=line.max_tokens)))

    @property
    def waiting(self) -> bool:
        """Whether a request that was sent is live."""
        return any(not request.over for request in self.sent)

    def wait_for_topics(self, seconds: float) -> None:
        """Wait until the topics have delivered the text of every answer, `seconds` at most."""
        end = time.monotonic() + seconds
        while (time.monotonic() < end
               and any(request.answered and self.topic_text(request) != request.stream.text
                       for request in self.sent)):
            self.connection.spin(0.02)

    def topic_text(self, request: DemoRequest) -> str:
        """Return the text of a request on the topic of its class so far."""
        return ''.join(self._texts.get(request.stream.request_id, ()))

    def answered(self) -> int:
        """Return how many requests have the same answer from the action and on the topic."""
        return sum(request.answered and self.topic_text(request) == request.stream.text
                   for request in self.sent)

    def reports(self) -> list[SloReport]:
        return [report_from(request.stream.result.report) for request in self.sent
                if request.stream.result is not None]

    def failures(self) -> list[str]:
        """Return a sentence for each request that got no answer."""
        sentences = []
        for request in self.sent:
            if not request.answered:
                why = 'an empty answer' if request.over else 'no answer in time'
                if request.stream.error is not None:
                    why = _error(request)
            elif self.topic_text(request) != request.stream.text:
                why = 'the text on its topic differs from that of the action'
            else:
                continue
            sentences.append(f'{request.line.slo_class}: {request.line.user!r}: {why}')
        return sentences


class DemoScreen:
    """Draws the requests: a panel for each class in a terminal, lines elsewhere."""

    def __init__(self, requests: DemoRequests, script: Sequence[Line]) -> None:
        self._requests, self._script = requests, script
        self._shown: set[tuple[int, str]] = set()   # events of requests, as lines

    def render(self, now: float, console: Console) -> Group:
        """Return the panels, the newest requests of each class at the bottom."""
        height = max(6, (console.height - 4) // len(STYLES))
        width = max(20, console.width - 4)
        over = sum(request.over for request in self._requests.sent)
        panels = [Text(f"a robot's minute: {now:5.1f} s, {len(self._requests.sent)} of "
                       f'{len(self._script)} requests sent, {over} ended', style='bold')]
        for name, style in STYLES.items():
            text = Text()
            for request in self._requests.sent:
                if request.line.slo_class == name:
                    text.append(f'> {request.line.user}\n', style='dim')
                    text.append(f'{self._requests.topic_text(request).strip()} ')
                    text.append(f'{_verdict(request)}\n',
                                style='green' if _attained(request) else 'red')
            text.rstrip()
            lines = text.wrap(console, width)[-(height - 2):]
            topic = f'{self._requests.connection.client.target}/{name}/tokens'
            panels.append(Panel(Text('\n').join(lines), title=topic, border_style=style,
                                height=height))
        return Group(*panels)

    def new_lines(self, now: float) -> list[str]:
        """Return a line for each request that was sent or has ended since the last call."""
        lines = []
        for number, request in enumerate(self._requests.sent):
            for event in ('sent', 'ended') if request.over else ('sent',):
                if (number, event) in self._shown:
                    continue
                self._shown.add((number, event))
                text = f'> {request.line.user}'
                if event == 'ended':
                    text = f'{self._requests.topic_text(request).strip()} {_verdict(request)}'
                lines.append(f'{now:5.1f} s  {request.line.slo_class:<10} {text}')
        return lines


def _attained(request: DemoRequest) -> bool:
    return request.stream.result is not None and request.stream.result.report.attained


def _error(request: DemoRequest) -> str:
    return f'{type(request.stream.error).__name__}: {request.stream.error}'


def _verdict(request: DemoRequest) -> str:
    if not request.over:
        return '...'
    if request.stream.error is not None:
        return f'[{_error(request)}]'
    report = request.stream.result.report
    tpot = f', {report.tpot_ms:.0f} ms/token' if not math.isnan(report.tpot_ms) else ''
    return (f'[{"attained" if report.attained else "missed"}: first token {report.ttft_ms:.0f} ms'
            f'{tpot}, all {report.completion_ms:.0f} ms]')
