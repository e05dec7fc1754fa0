# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The link to one slice node: whether it answers, how long that takes, and what it predicts."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
import time

from rclpy.client import Client
from rclpy.task import Future
from slice_ros import srv
from slice_ros.client.callbacks import Callbacks
from slice_ros.client.generate_client import GenerateClient
from slice_ros.errors import ErrorCode
from slice_ros.ros.qos import SERVICES
from slice_ros.router.node_choice import bucket, Forecast, prompt_tokens

PINGS = 9           # round trips whose median is the delay of the link
MOST_CACHED = 256   # forecasts; more are all forgotten
MOST_EMBEDDING = 16   # calls of ~/embed at once


@dataclass(eq=False, slots=True)
class _Pending:
    """A call of the node that it has not answered yet."""

    client: Client
    future: Future
    since: float                                  # on the clock of `tick`
    then: Callable[[object | None], object]       # gets the answer; None when there is none
    patient: bool = False                         # waits as long as the node is there


class Link:
    """One slice node, as far as its answers tell.

    It is asked for its status every `ping_s`. A call without an answer for `answer_within_s`,
    while no other sign of the node comes, makes it `gone` until the next sign. That time passes by
    the clock of `tick` alone, which stands still while this process does.
    """

    def __init__(self, callbacks: Callbacks, name: str, answer_within_s: float, ping_s: float,
                 cache_s: float) -> None:
        node = callbacks.node
        self.name, self.gone, self._log = name, False, node.get_logger()
        self.status: srv.GetStatus.Response | None = None
        self.goals = GenerateClient(callbacks, name)
        self._admission, self._ping, self._embed = (
            node.create_client(kind, f'{name}/{what}', qos_profile=SERVICES,
                               callback_group=callbacks.group)
            for kind, what in ((srv.CheckAdmission, 'check_admission'),
                               (srv.GetStatus, 'get_status'), (srv.Embed, 'embed')))
        self._answer_within, self._ping_every, self._cache = answer_within_s, ping_s, cache_s
        self._pending: list[_Pending] = []
        self._round_trips: deque[float] = deque(maxlen=PINGS)
        self._forecasts: dict[tuple, tuple[float, Forecast | None]] = {}   # good until
        self._asking: set[tuple] = set()
        self._now = self._sign_at = self._pinged_at = 0.0

    @property
    def delay_ms(self) -> float:
        """The round trip of a small call."""
        return median(self._round_trips) * 1e3 if self._round_trips else 0.0

    @property
    def usable(self) -> bool:
        """Whether a request can be sent to the node now."""
        return (not self.gone and self.state == 'ready' and self.goals.ready
                and self._admission.service_is_ready())

    @property
    def state(self) -> str:
        """The state that the node reports, or why it reports none."""
        if self.gone or self.status is None or not self._ping.service_is_ready():
            return 'not answering'
        return self.status.state

    def sign(self) -> None:
        """Note that something has come from the node."""
        if self.gone:
            self._log.info(f'{self.name} answers again')
        self._sign_at, self.gone = self._now, False

    def tick(self, now: float) -> None:
        """Give up what has taken too long, and ask for the status when it is due."""
        self._now = now
        late = [p for p in self._pending if (
            self.gone or not p.client.service_is_ready() if p.patient
            else now - p.since > self._answer_within)]
        for pending in late:
            self._pending.remove(pending)
            pending.client.remove_pending_request(pending.future)
            if self._sign_at <= pending.since and not self.gone:
                self.gone = True
                self._log.warning(f'{self.name} has not answered for {self._answer_within:g} s')
        for pending in late:
            pending.then(None)
        if (now - self._pinged_at >= self._ping_every and self._ping.service_is_ready()
                and not any(p.client is self._ping for p in self._pending)):
            self._pinged_at, begin = now, time.monotonic()
            self._call(self._ping, srv.GetStatus.Request(),
                       lambda answer: self._pong(answer, begin))

    def forecast(self, goal, changed: Callable[[], None]) -> Forecast | bool:
        """Return what the node predicts for requests like `goal`; False if it predicts nothing.

        True when it is being asked; `changed` is called once it has answered, or has not in time.
        """
        key = bucket(goal)
        until, found = self._forecasts.get(key, (0.0, None))
        if self._now < until:
            return found or False
        if key not in self._asking:
            def answered(answer: srv.CheckAdmission.Response | None) -> None:
                self._asking.discard(key)
                if len(self._forecasts) >= MOST_CACHED:
                    self._forecasts.clear()
                self._forecasts[key] = self._now + self._cache, _forecast(answer)
                changed()
            self._asking.add(key)
            self.ask(srv.CheckAdmission.Request(
                slo_class=goal.slo_class, prompt_tokens=prompt_tokens(goal),
                max_tokens=goal.max_tokens, ttft_ms=goal.ttft_ms, tpot_ms=goal.tpot_ms,
                deadline_ms=goal.deadline_ms, reasoning=goal.reasoning,
                reasoning_budget=goal.reasoning_budget), answered)
        return True

    def ask(self, request: srv.CheckAdmission.Request,
            then: Callable[[srv.CheckAdmission.Response | None], object]) -> None:
        """Ask the node what it predicts; `then` gets None when it does not answer in time."""
        self._call(self._admission, request, then)

    @property
    def embeds(self) -> bool:
        """Whether texts can be sent to the node now, whose model makes embeddings."""
        return (not self.gone and self.state == 'ready' and self._embed.service_is_ready()
                and self.status.engine.embedding_size > 0)

    @property
    def embedding(self) -> int:
        """How many calls of ~/embed it has."""
        return sum(p.client is self._embed for p in self._pending)

    def embed(self, request: srv.Embed.Request,
              then: Callable[[srv.Embed.Response | None], object]) -> None:
        """Have the node compute embeddings; `then` gets None when it goes away."""
        self._call(self._embed, request, then, patient=True)

    def end_embedding(self, answer: srv.Embed.Response) -> None:
        """Give this answer to every call of ~/embed."""
        for pending in [p for p in self._pending if p.client is self._embed]:
            self._pending.remove(pending)
            pending.client.remove_pending_request(pending.future)
            pending.then(answer)

    def close(self) -> None:
        """Cancel what is live there, and leave the graph."""
        for pending in self._pending:
            pending.client.remove_pending_request(pending.future)
        self._pending.clear()
        self.goals.close()

    def _pong(self, answer: srv.GetStatus.Response | None, begin: float) -> None:
        if answer is not None:
            self.status = answer
            self._round_trips.append(time.monotonic() - begin)

    def _call(self, client: Client, request, then: Callable[[object | None], object],
              patient: bool = False) -> None:
        pending = _Pending(client, client.call_async(request), self._now, then, patient)

        def answered(future: Future) -> None:
            if pending in self._pending and not future.cancelled():
                self._pending.remove(pending)
                self.sign()
                then(future.result())
        self._pending.append(pending)
        pending.future.add_done_callback(answered)


def _forecast(answer: srv.CheckAdmission.Response | None) -> Forecast | None:
    if answer is None or answer.error_code != ErrorCode.NONE:
        return None
    return Forecast(answer.feasible, answer.ttft_ms, answer.completion_ms)
