# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo keeps of each request, and how it is drawn."""

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
class Scene:
    """One request of the script and how it ended."""

    line: Line
    stream: Stream

    @property
    def over(self) -> bool:
        return self.stream.done

    @property
    def answered(self) -> bool:
        return self.over and self.stream.error is None and bool(self.stream.result.text.strip())


class Stage:
    """Sends the requests by the action and listens to the topics of the classes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.scenes: list[Scene] = []
        self._said: dict[str, list[str]] = {}   # request id -> texts of its topic so far
        for name in STYLES:
            connection.node.create_subscription(
                msg.TokenChunk, f'{connection.client.target}/{name}/tokens', self._heard, TOKENS)

    def _heard(self, chunk: msg.TokenChunk) -> None:
        self._said.setdefault(chunk.request_id, []).append(chunk.text)

    def send(self, line: Line) -> None:
        self.scenes.append(Scene(line, self.connection.client.generate(
            line.messages, line.slo_class, max_tokens=line.max_tokens)))

    @property
    def waiting(self) -> bool:
        """Whether a request that was sent has not ended."""
        return any(not scene.over for scene in self.scenes)

    def listen(self, seconds: float) -> None:
        """Give the topics so long to say what the action has said."""
        end = time.monotonic() + seconds
        while (time.monotonic() < end
               and any(scene.answered and self.said(scene) != scene.stream.text
                       for scene in self.scenes)):
            self.connection.spin(0.02)

    def said(self, scene: Scene) -> str:
        """Return what the topic of its class has said of a request so far."""
        return ''.join(self._said.get(scene.stream.request_id, ()))

    def answered(self) -> int:
        """Return how many requests got an answer: by the action, and whole on the topic."""
        return sum(scene.answered and self.said(scene) == scene.stream.text
                   for scene in self.scenes)

    def reports(self) -> list[SloReport]:
        return [report_from(scene.stream.result.report) for scene in self.scenes
                if scene.stream.result is not None]

    def failures(self) -> list[str]:
        """Return a sentence for each request that got no answer."""
        sentences = []
        for scene in self.scenes:
            if not scene.answered:
                why = 'an empty answer' if scene.over else 'no answer in time'
                if scene.stream.error is not None:
                    why = _error(scene)
            elif self.said(scene) != scene.stream.text:
                why = 'its topic did not say what the action did'
            else:
                continue
            sentences.append(f'{scene.line.slo_class}: {scene.line.user!r}: {why}')
        return sentences


class Screen:
    """Draws a stage: a panel for each class in a terminal, lines elsewhere."""

    def __init__(self, stage: Stage, script: Sequence[Line]) -> None:
        self._stage, self._script = stage, script
        self._told: set[tuple[int, str]] = set()

    def render(self, now: float, console: Console) -> Group:
        """Return the panels, the newest requests of each class at the bottom."""
        height = max(6, (console.height - 4) // len(STYLES))
        width = max(20, console.width - 4)
        over = sum(scene.over for scene in self._stage.scenes)
        panels = [Text(f"a robot's minute: {now:5.1f} s, {len(self._stage.scenes)} of "
                       f'{len(self._script)} requests sent, {over} ended', style='bold')]
        for name, style in STYLES.items():
            text = Text()
            for scene in self._stage.scenes:
                if scene.line.slo_class == name:
                    text.append(f'> {scene.line.user}\n', style='dim')
                    text.append(f'{self._stage.said(scene).strip()} ')
                    text.append(f'{_verdict(scene)}\n', style='green' if _kept(scene) else 'red')
            text.rstrip()
            lines = text.wrap(console, width)[-(height - 2):]
            topic = f'{self._stage.connection.client.target}/{name}/tokens'
            panels.append(Panel(Text('\n').join(lines), title=topic, border_style=style,
                                height=height))
        return Group(*panels)

    def news(self, now: float) -> list[str]:
        """Return a line for each request that was sent or has ended since the last call."""
        lines = []
        for number, scene in enumerate(self._stage.scenes):
            for event in ('sent', 'ended') if scene.over else ('sent',):
                if (number, event) in self._told:
                    continue
                self._told.add((number, event))
                said = f'> {scene.line.user}'
                if event == 'ended':
                    said = f'{self._stage.said(scene).strip()} {_verdict(scene)}'
                lines.append(f'{now:5.1f} s  {scene.line.slo_class:<10} {said}')
        return lines


def _kept(scene: Scene) -> bool:
    return scene.stream.result is not None and scene.stream.result.report.attained


def _error(scene: Scene) -> str:
    return f'{type(scene.stream.error).__name__}: {scene.stream.error}'


def _verdict(scene: Scene) -> str:
    if not scene.over:
        return '...'
    if scene.stream.error is not None:
        return f'[{_error(scene)}]'
    report = scene.stream.result.report
    tpot = f', {report.tpot_ms:.0f} ms/token' if not math.isnan(report.tpot_ms) else ''
    return (f'[{"kept" if report.attained else "missed"}: first token {report.ttft_ms:.0f} ms'
            f'{tpot}, all {report.completion_ms:.0f} ms]')
