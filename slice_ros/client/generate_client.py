# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The client side of the action ~/generate: sends goals, receives, times out, cancels.

Everything runs in the callbacks of `Callbacks`, one at a time.
"""

from collections.abc import Callable
from functools import partial
import time
import uuid

from rclpy.action.client import ActionClient, ClientGoalHandle
from rclpy.task import Future
from rclpy.timer import Timer
from slice_ros.action import Generate
from slice_ros.client.answer import AnswerBuffer
from slice_ros.client.callbacks import Callbacks
from slice_ros.client.exceptions import Cancelled, SliceError, Timeout, Unavailable
from slice_ros.client.presence import Presence
from slice_ros.ros.callers.caller_ids import LEASE, lease_topic, new_client, new_request_id
from slice_ros.ros.compat import end_future
from slice_ros.ros.qos import NO_EVENTS, SERVICES, TOKENS
from std_msgs.msg import Empty
from unique_identifier_msgs.msg import UUID

DISCOVERY = 2.0     # seconds after its creation for which a client waits to discover the node
GRAPH_CHECK = 0.05  # seconds between two checks of the graph meanwhile
GRACE = 0.2         # seconds for the last messages of a node that has ended


class GoalClient(ActionClient):
    """Keeps no future of a goal that has ended.

    rclpy 9.1 adds two futures for each goal. It returns the second and never completes or removes
    the first, so that each goal would make the executor slower. `futures` are those kept.
    """

    def __init__(self, *args, **options) -> None:
        self.futures: list[Future] = []
        super().__init__(*args, **options)

    def add_future(self, future: Future) -> None:
        self.futures.append(future)
        super().add_future(future)

    def remove_future(self, future: Future) -> None:
        self.futures.remove(future)
        super().remove_future(future)

    def send_goal_async(self, *args, **options) -> Future:
        """Send a goal; arguments and result as of `ActionClient`."""
        before = len(self.futures)
        future = super().send_goal_async(*args, **options)
        for surplus in [added for added in self.futures[before:] if added is not future]:
            self.remove_future(surplus)
        return future


class _LiveGoal:
    """A request that the node may still be working on."""

    def __init__(self, buffer: AnswerBuffer, goal: Generate.Goal) -> None:
        self.buffer, self.goal = buffer, goal
        self.runs: frozenset[int] = frozenset()  # of the node, that may have received it
        self.futures: list[Future] = []          # calls to the node about it
        self.timer: Timer | None = None


class GenerateClient:
    """The live requests of one client to the node at `target`.

    The node knows by a lease that the process of the client runs, and ends its requests if not.
    """

    def __init__(self, callbacks: Callbacks, target: str) -> None:
        self.live: dict[str, _LiveGoal] = {}
        self._asked: dict[str, _LiveGoal] = {}   # their `_begin` is queued
        self._name = new_client()
        # Before the action's client, so that a node that has a goal has discovered the lease.
        self._lease = callbacks.node.create_publisher(
            Empty, lease_topic(target, self._name), LEASE, event_callbacks=NO_EVENTS)
        self.action = GoalClient(
            callbacks.node, Generate, f'{target}/generate', callback_group=callbacks.group,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_sub_qos_profile=TOKENS)
        self._presence = Presence(callbacks, target, partial(callbacks.run, self._runs_changed))
        self._callbacks, self._target = callbacks, target
        self._created = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether there is a node to send to."""
        return self.action.server_is_ready() and not self._presence.gone

    def new_request_id(self) -> str:
        """Return an id that names this client."""
        return new_request_id(self._name)

    def begin(self, buffer: AnswerBuffer, goal: Generate.Goal, timeout: float | None,
              asked_at: float | None = None) -> None:
        """Send a goal, which ends within `timeout` seconds; any thread may call this.

        They count from `asked_at` by the monotonic clock, None: from now.
        """
        live = _LiveGoal(buffer, goal)
        self._asked[buffer.request_id] = live
        self._callbacks.post(partial(
            self._begin, live, timeout, time.monotonic() if asked_at is None else asked_at))

    def abandon(self, buffer: AnswerBuffer) -> None:
        """Cancel a request; any thread may call this at any time."""
        self._callbacks.post(partial(self._stop, buffer, None))

    def abandon_all(self) -> None:
        """Cancel all requests; any thread may call this at any time."""
        self._callbacks.post(
            lambda: [self._stop(one.buffer, None) for one in list(self.live.values())])

    def close(self) -> list[AnswerBuffer]:
        """Cancel and forget all requests, and leave the graph; return those to be ended."""
        live = list(self.live.values())
        for one in live:
            self._cancel(one)
            self._forget(one)
        self.action.destroy()
        self._presence.close()
        self._callbacks.node.destroy_publisher(self._lease)
        return [one.buffer for one in (*live, *self._asked.values())]

    # -- the course of a goal ------------------------------------------------------------------

    def _begin(self, live: _LiveGoal, timeout: float | None, asked_at: float) -> None:
        self._asked.pop(live.buffer.request_id, None)
        if live.buffer.done:
            return
        self.live[live.buffer.request_id] = live
        if timeout is not None:
            left = max(timeout - (time.monotonic() - asked_at), 0.0)
            late = Timeout(f'no whole answer within {timeout:g} s')
            live.timer = self._later(left, partial(self._stop, live.buffer, late))
        self._send(live)

    def _send(self, live: _LiveGoal) -> None:
        if live.buffer.done:
            return
        if not self.ready:
            if time.monotonic() - self._created < DISCOVERY:
                self._later(GRAPH_CHECK, partial(self._send, live))
                return
            self._forget(live)
            live.buffer.end(Unavailable(
                f'there is no action {self._target}/generate: is the node running, under this '
                'name and namespace?'))
            return
        live.runs = self._presence.runs
        self._expect(live, self.action.send_goal_async(
            live.goal, lambda message: live.buffer.feed(message.feedback),
            _goal_id(live)), self._accepted)
        live.goal = None

    def _expect(self, live: _LiveGoal, future: Future,
                then: Callable[[_LiveGoal, Future], None]) -> None:
        live.futures.append(future)
        future.add_done_callback(
            lambda done: self._callbacks.post(partial(then, live, done)))

    def _accepted(self, live: _LiveGoal, future: Future) -> None:
        if future.cancelled():
            return
        handle = future.result()
        if not handle.accepted:
            self._remove(live)
            live.buffer.end(Unavailable('the node did not accept the goal'))
            return
        if live.buffer.done:  # cancelled, perhaps before the node knew the goal
            self._cancel(live)
        self._expect(live, handle.get_result_async(), self._answered)

    def _answered(self, live: _LiveGoal, future: Future) -> None:
        if not future.cancelled():
            self._remove(live)
            live.buffer.finish(future.result().result)

    def _stop(self, buffer: AnswerBuffer, error: SliceError | None) -> None:
        live = self.live.get(buffer.request_id)
        if live is not None and not buffer.done:
            if live.futures:
                self._cancel(live)
            else:
                self._remove(live)  # never sent
        buffer.end(error or Cancelled('cancelled by its caller'))

    def _cancel(self, live: _LiveGoal) -> None:
        if live.futures:
            # By its id alone, since the node may not have accepted the goal yet.
            live.futures.append(
                ClientGoalHandle(self.action, _goal_id(live), None).cancel_goal_async())

    def _remove(self, live: _LiveGoal) -> None:
        """Remove a request that has ended in the node as well."""
        self.live.pop(live.buffer.request_id, None)
        if live.timer is not None:
            self._callbacks.node.destroy_timer(live.timer)

    def _forget(self, live: _LiveGoal) -> None:
        """Remove a request that the node will not answer any more."""
        self._remove(live)
        for future in live.futures:
            end_future(future.cancel)

    # -- runs of the node ----------------------------------------------------------------------

    def _runs_changed(self) -> None:
        for live in self.live.values():
            if live.futures and not live.runs:  # sent before the node's run was seen
                live.runs = self._presence.runs
        if self.live:
            self._later(GRACE, self._end_orphans)

    def _end_orphans(self) -> None:
        """End the requests whose node has ended."""
        orphans = [live for live in self.live.values()
                   if live.runs and not live.runs & self._presence.runs]
        for live in orphans:
            self._cancel(live)  # in case the node was only disconnected
            self._forget(live)
        for live in orphans:
            live.buffer.end(Unavailable('the node went away'))

    def _later(self, seconds: float, function: Callable[[], None]) -> Timer:
        return self._callbacks.after(seconds, partial(self._callbacks.run, function))


def _goal_id(live: _LiveGoal) -> UUID:
    return UUID(uuid=list(uuid.UUID(live.buffer.request_id).bytes))
