# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The planner's end of the node's action: sends goals, receives, times out, cancels.

All of it runs in the callbacks of `Callbacks`, one at a time.
"""

from collections.abc import Callable
from functools import partial
import time
import uuid

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from rclpy.timer import Timer
from slice_ros.action import Generate
from slice_ros.client.answer import Progress
from slice_ros.client.callbacks import Callbacks
from slice_ros.client.exceptions import Cancelled, SliceError, Timeout, Unavailable
from slice_ros.client.presence import Presence
from slice_ros.ros.qos import SERVICES, TOKENS
from unique_identifier_msgs.msg import UUID

DISCOVERY = 2.0     # seconds after its making in which a client waits for a node it cannot see
GRAPH_CHECK = 0.05  # seconds between looks at the graph meanwhile
LAST_WORDS = 0.2    # seconds in which what a node said before it left is still heard


class _Goals(ActionClient):
    """An action client that keeps nothing of a goal that is over."""

    def send_goal_async(self, *args, **options) -> Future:
        before = list(self._futures)
        future = super().send_goal_async(*args, **options)
        # rclpy makes a second future for each goal, which nobody completes and nobody removes:
        # each goal would make the next one slower.
        self._futures[:] = [*before, future]
        return future


class _Live:
    """A request that the node may still be working on."""

    def __init__(self, progress: Progress, goal: Generate.Goal) -> None:
        self.progress, self.goal = progress, goal
        self.runs: frozenset[int] = frozenset()  # of the node, that may have it
        self.futures: list[Future] = []          # what is asked of the node about it
        self.timer: Timer | None = None


class Requests:
    """The live requests of one client to the node at `target`."""

    def __init__(self, callbacks: Callbacks, target: str) -> None:
        self.live: dict[str, _Live] = {}
        self.action = _Goals(
            callbacks.node, Generate, f'{target}/generate', callback_group=callbacks.group,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_sub_qos_profile=TOKENS)
        self._presence = Presence(
            callbacks, target, partial(callbacks.do, self._node_came_or_went))
        self._callbacks, self._target = callbacks, target
        self._born = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether there is a node to send to."""
        return self.action.server_is_ready() and not self._presence.lost

    def begin(self, progress: Progress, goal: Generate.Goal, timeout: float | None) -> None:
        """Send a goal, which ends within `timeout` seconds from now; any thread may call this."""
        self._callbacks.say(
            partial(self._begin, _Live(progress, goal), timeout, time.monotonic()))

    def abandon(self, progress: Progress) -> None:
        """Cancel a request; any thread may call this, amid anything."""
        self._callbacks.say(partial(self._stop, progress, None))

    def close(self) -> list[Progress]:
        """Cancel and forget all, and leave the graph; return what is to be ended."""
        live = list(self.live.values())
        for one in live:
            self._cancel(one)
            self._forget(one)
        self.action.destroy()
        self._presence.close()
        return [one.progress for one in live]

    # -- a goal's way ------------------------------------------------------------------------

    def _begin(self, live: _Live, timeout: float | None, asked_at: float) -> None:
        if live.progress.done:
            return
        self.live[live.progress.request_id] = live
        if timeout is not None:
            left = max(timeout - (time.monotonic() - asked_at), 0.0)
            late = Timeout(f'no whole answer within {timeout:g} s')
            live.timer = self._later(left, partial(self._stop, live.progress, late))
        self._send(live)

    def _send(self, live: _Live) -> None:
        if live.progress.done:
            return
        if not self.ready:
            if time.monotonic() - self._born < DISCOVERY:
                self._later(GRAPH_CHECK, partial(self._send, live))
                return
            self._forget(live)
            live.progress.end(Unavailable(
                f'there is no action {self._target}/generate: is the node running, under this '
                'name and namespace?'))
            return
        live.runs = self._presence.runs
        self._expect(live, self.action.send_goal_async(
            live.goal, lambda message: live.progress.feed(message.feedback),
            _goal_id(live)), self._accepted)
        live.goal = None

    def _expect(self, live: _Live, future: Future, then: Callable[[_Live, Future], None]) -> None:
        live.futures.append(future)
        future.add_done_callback(
            lambda done: self._callbacks.say(partial(then, live, done)))

    def _accepted(self, live: _Live, future: Future) -> None:
        if future.cancelled():
            return
        handle = future.result()
        if not handle.accepted:
            self._leave(live)
            live.progress.end(Unavailable('the node did not accept the goal'))
            return
        if live.progress.done:  # given up meanwhile, maybe too early for the node to know the goal
            self._cancel(live)
        self._expect(live, handle.get_result_async(), self._answered)

    def _answered(self, live: _Live, future: Future) -> None:
        if not future.cancelled():
            self._leave(live)
            live.progress.finish(future.result().result)

    def _stop(self, progress: Progress, error: SliceError | None) -> None:
        live = self.live.get(progress.request_id)
        if live is not None and not progress.done:
            if live.futures:
                self._cancel(live)
            else:
                self._leave(live)  # never sent
        progress.end(error or Cancelled('cancelled by its caller'))

    def _cancel(self, live: _Live) -> None:
        if live.futures:
            # By the id alone: that need not wait until the node has accepted the goal.
            live.futures.append(
                ClientGoalHandle(self.action, _goal_id(live), None).cancel_goal_async())

    def _leave(self, live: _Live) -> None:
        """Let go of a request that is over for the node as well."""
        self.live.pop(live.progress.request_id, None)
        if live.timer is not None:
            self._callbacks.node.destroy_timer(live.timer)

    def _forget(self, live: _Live) -> None:
        """Let go of a request that the node will not answer any more."""
        self._leave(live)
        for future in live.futures:
            future.cancel()

    # -- the node's comings and goings -------------------------------------------------------

    def _node_came_or_went(self) -> None:
        for live in self.live.values():
            if live.futures and not live.runs:  # sent to a node that had not shown itself yet
                live.runs = self._presence.runs
        if self.live:
            self._later(LAST_WORDS, self._end_lost)

    def _end_lost(self) -> None:
        lost = [live for live in self.live.values()
                if live.runs and not live.runs & self._presence.runs]
        for live in lost:
            self._cancel(live)  # in case that it was only out of reach
            self._forget(live)
        for live in lost:
            live.progress.end(Unavailable('the node went away'))

    def _later(self, seconds: float, word: Callable[[], None]) -> Timer:
        return self._callbacks.after(seconds, partial(self._callbacks.do, word))


def _goal_id(live: _Live) -> UUID:
    return UUID(uuid=list(uuid.UUID(live.progress.request_id).bytes))
