"""What the demo keeps of each request, and how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
import threading
import uuid

from rclpy.qos import QoSProfile
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.cli.connection import Connection
from slice_ros.cli.robots_minute import Line
from slice_ros.errors import ErrorCode
from slice_ros.ros.conversions import report_from
from slice_ros.slo import SloReport

STYLES = {'control': 'red', 'navigation': 'yellow', 'dialogue': 'cyan'}


@dataclass
class Scene:
    """One request of the script and how it ended."""

    line: Line
    id: str = ''
    result: Generate.Result | None = None
    error: str = ''

    @property
    def over(self) -> bool:
        return self.result is not None or bool(self.error)

    @property
    def answered(self) -> bool:
        return (self.result is not None and self.result.error_code == ErrorCode.NONE
                and bool(self.result.text.strip()))


class Stage:
    """Sends the requests by the action and listens to the topics of the classes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.scenes: list[Scene] = []
        self._said: dict[str, list[str]] = {}   # request id -> texts of its topic so far
        for name in STYLES:
            connection.node.create_subscription(
                msg.TokenChunk, f'{connection.target}/{name}/tokens', self._heard,
                QoSProfile(depth=1000))

    def _heard(self, chunk: msg.TokenChunk) -> None:
        with self._lock:
            self._said.setdefault(chunk.request_id, []).append(chunk.text)

    def send(self, line: Line) -> None:
        scene = Scene(line)
        self.scenes.append(scene)
        goal = Generate.Goal(
            slo_class=line.slo_class, max_tokens=line.max_tokens,
            messages=[msg.ChatMessage(role=role, content=text) for role, text in line.messages])

        def accepted(future) -> None:
            handle = future.result()
            if not handle.accepted:
                scene.error = 'the node did not accept the goal'
                return
            scene.id = str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))
            handle.get_result_async().add_done_callback(ended)

        def ended(future) -> None:
            scene.result = future.result().result
        self._connection.send(goal, lambda feedback: None).add_done_callback(accepted)

    @property
    def waiting(self) -> bool:
        """Whether a request that was sent has not ended."""
        return any(not scene.over for scene in self.scenes)

    def said(self, scene: Scene) -> str:
        """Return what the topic of its class has said of a request so far."""
        with self._lock:
            return ''.join(self._said.get(scene.id, ()))

    def answered(self) -> int:
        """Return how many requests got an answer: by the action, and whole on the topic."""
        return sum(scene.answered and self.said(scene) == scene.result.text
                   for scene in self.scenes)

    def reports(self) -> list[SloReport]:
        return [report_from(s.result.report) for s in self.scenes if s.result is not None]

    def failures(self) -> list[str]:
        """Return a sentence for each request that got no answer."""
        sentences = []
        for scene in self.scenes:
            if not scene.answered:
                why = scene.error or 'no answer in time'
                if scene.result is not None:
                    code = ErrorCode(scene.result.error_code)
                    why = f'{code.name}: {scene.result.error_msg or "an empty answer"}'
            elif self.said(scene) != scene.result.text:
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
            panels.append(Panel(Text('\n').join(lines), title=f'/slice/{name}/tokens',
                                border_style=style, height=height))
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
    return scene.result is not None and scene.result.report.attained


def _verdict(scene: Scene) -> str:
    if not scene.over:
        return '...'
    if scene.result is None or scene.result.error_code:
        return f'[{scene.error or ErrorCode(scene.result.error_code).name}]'
    report = scene.result.report
    tpot = f', {report.tpot_ms:.0f} ms/token' if not math.isnan(report.tpot_ms) else ''
    return (f'[{"kept" if report.attained else "missed"}: first token {report.ttft_ms:.0f} ms'
            f'{tpot}, all {report.completion_ms:.0f} ms]')
