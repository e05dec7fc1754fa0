# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The course of a request: choose a node, send, pass its answer on; else try the next node."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
import math
import time

from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.router.link import Link
from slice_ros.router.node_choice import Forecast, left_of, soonest
from slice_ros.router.routed_call import Attempt, RoutedCall

MOST_STILL = 0.1      # seconds between two ticks that count; of more the process stood still
MAX_SESSIONS = 1024   # whose node is known; the one that was used least lately is forgotten
# Another node may serve what one has refused with these codes.
ELSEWHERE = frozenset((
    ErrorCode.UNKNOWN_SLO_CLASS, ErrorCode.PROMPT_TOO_LONG, ErrorCode.INFEASIBLE_SLO,
    ErrorCode.QUEUE_FULL, ErrorCode.OUT_OF_MEMORY, ErrorCode.ENGINE_FAILURE,
    ErrorCode.SHUTTING_DOWN, ErrorCode.NOT_READY))


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the router; seconds."""

    answer_within_s: float
    choose_s: float    # for further forecasts once a node has given one
    margin_s: float    # by which a first token may be later than twice as predicted
    max_live: int


class Forwarding:
    """The live requests of the router; everything runs in the executor's thread.

    `links` are in the order of preference. A caller that has received a piece of an answer gets no
    other answer: halves of two models are none. Before that, a request may go from node to node,
    to each once, until its deadline has passed.
    """

    def __init__(self, links: Iterable[Link], limits: Limits,
                 ended: Callable[[RoutedCall], None]) -> None:
        self.live: dict[str, RoutedCall] = {}
        self.moved = 0          # times that a request was sent to another node
        self.links = {link.name: link for link in links}
        self._limits, self._ended = limits, ended
        self._sessions: OrderedDict[str, str] = OrderedDict()   # -> its node
        self._patient = self._at = 0.0   # a clock that stands still while this process does

    def classes(self) -> dict[str, msg.SloClass]:
        """Return the classes that the nodes report; of one name, that of the first node."""
        found: dict[str, msg.SloClass] = {}
        for link in self.links.values():
            if link.status is not None:
                for status in link.status.scheduler.classes:
                    found.setdefault(status.slo.name, status.slo)
        return found

    def check_room(self) -> None:
        """Raise `RequestError` when no other request is taken in."""
        if len(self.live) >= self._limits.max_live:
            raise RequestError(ErrorCode.QUEUE_FULL, f'{len(self.live)} requests are live in the '
                               'router (max_live): send fewer, or later')

    def begin(self, call: RoutedCall) -> None:
        """Take in a call."""
        self.live[call.id] = call
        self._choose(call)

    def cancel(self, request_id: str, why: str,
               code: ErrorCode = ErrorCode.CANCELLED) -> bool:
        """End a request here and at its node; return whether it was live."""
        call = self.live.get(request_id)
        if call is None:
            return False
        self._leave(call)
        self._fail(call, code, why)
        return True

    def tick(self) -> None:
        """Go on where something has taken too long."""
        now = time.monotonic()
        self._patient += min(now - self._at, MOST_STILL)
        self._at = now
        for link in self.links.values():
            link.tick(self._patient)
        for call in list(self.live.values()):
            if call.id in self.live:
                if call.attempt is None:
                    self._choose(call)
                else:
                    self._watch(call, call.attempt)

    # -- choosing a node -----------------------------------------------------------------------

    def _candidates(self, call: RoutedCall) -> list[Link]:
        """Return the nodes that the call can be sent to now, in the order of preference."""
        home = self._home(call)
        return [link for link in self.links.values()
                if home in (None, link.name) and link.name not in call.tried
                and link.usable and len(link.goals.live) < self._limits.max_live]

    def _home(self, call: RoutedCall) -> str | None:
        """Return the node that has the conversation of a call; None where it may go anywhere."""
        if call.opens_session or call.goal.reset_session:
            return None
        return self._sessions.get(call.goal.session_id)

    def _choose(self, call: RoutedCall) -> None:
        """Send a call that is at no node, wait for forecasts, or end it."""
        if call.tried and call.age_ms / 1e3 >= call.slo.deadline:
            self._fail(call, ErrorCode.DEADLINE_MISSED, 'its deadline passed before another node '
                       f'could serve it; tried: {", ".join(sorted(call.tried))}')
            return
        candidates = self._candidates(call)
        if not candidates:
            if call.refusal is not None:
                self._pass_on(call, call.refusal)
            elif call.age_ms / 1e3 > self._limits.answer_within_s:
                self._fail(call, ErrorCode.NOT_READY, self._why_none(call))
            return   # else a node may answer in a moment
        if len(candidates) == 1:
            self._send(call, candidates[0], None)
            return
        forecasts, asking = {}, False
        for link in candidates:
            found = link.forecast(call.goal, self._reconsider)
            if found is True:
                asking = True
            elif found:
                forecasts[link.name] = found, link.delay_ms
        if asking and not (forecasts and call.age_ms / 1e3 > self._limits.choose_s):
            return
        name = soonest(forecasts, call.slo) if forecasts else candidates[0].name
        self._send(call, self.links[name], forecasts[name][0] if forecasts else None)

    def _reconsider(self) -> None:
        """Go on with the calls that wait for a forecast."""
        for call in [call for call in self.live.values() if call.attempt is None]:
            if call.id in self.live:
                self._choose(call)

    def _send(self, call: RoutedCall, link: Link, forecast: Forecast | None) -> None:
        patience = math.inf
        if forecast is not None and not math.isnan(forecast.ttft_ms):
            patience = (2 * forecast.ttft_ms + link.delay_ms) / 1e3 + self._limits.margin_s
        attempt = Attempt(link, call, self.answered, self._patient + patience)
        self.moved += bool(call.tried)
        call.tried.add(link.name)
        call.begin(attempt, link.delay_ms)
        goal, slo, spent = copy(call.goal), call.slo, call.offset_ms
        if slo.ttft_ms:
            goal.ttft_ms = left_of(slo.ttft_ms, spent)
        if slo.deadline_ms:
            goal.deadline_ms = left_of(slo.deadline_ms, spent)
        self._note_session(call, link.name)
        link.goals.begin(attempt, goal, None)

    # -- while a node serves it ----------------------------------------------------------------

    def _watch(self, call: RoutedCall, attempt: Attempt) -> None:
        """Leave a node that is gone or late, where that helps the caller."""
        link = attempt.link
        if call.streamed:
            if link.gone:
                self._leave(call)
                self._fail(call, ErrorCode.ENGINE_FAILURE, _cut(link.name))
            return
        late = math.isnan(call.first_ms) and self._patient > attempt.due
        if (link.gone or late) and self._candidates(call):
            self._leave(call)
            self._choose(call)

    def answered(self, attempt: Attempt, result: Generate.Result) -> None:
        """Take the end of an attempt; with ELSEWHERE codes the call may go on at another node."""
        call = attempt.call
        if call.attempt is not attempt or call.id not in self.live:
            return
        if result.error_code in ELSEWHERE and not call.streamed:
            call.attempt, call.refusal = None, result
            self._choose(call)
            return
        if result.error_code == ErrorCode.NOT_READY:   # after a piece: it went away
            self._fail(call, ErrorCode.ENGINE_FAILURE, _cut(attempt.link.name))
            return
        self._pass_on(call, result)

    def _leave(self, call: RoutedCall) -> None:
        """Cancel a call at the node that has it."""
        attempt, call.attempt = call.attempt, None
        if attempt is not None:
            attempt.link.goals.abandon(attempt)

    def _note_session(self, call: RoutedCall, name: str) -> None:
        session = call.goal.session_id
        if session:
            call.opens_session = self._home(call) is None
            self._sessions[session] = name
            self._sessions.move_to_end(session)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    # -- the end -------------------------------------------------------------------------------

    def _pass_on(self, call: RoutedCall, result: Generate.Result) -> None:
        call.finish(result)
        self._end(call)

    def _fail(self, call: RoutedCall, code: ErrorCode, message: str) -> None:
        call.fail(code, message)
        self._end(call)

    def _end(self, call: RoutedCall) -> None:
        del self.live[call.id]
        if call.opens_session and not call.report.served:
            self._sessions.pop(call.goal.session_id, None)
        self._ended(call)

    def _why_none(self, call: RoutedCall) -> str:
        home = self._home(call)
        if home is not None:
            return (f'the conversation is in {home}, which is {self.links[home].state}: wait, or '
                    'begin it anew with reset_session')
        return 'no node serves now: ' + ', '.join(
            f'{name} is {link.state}' for name, link in self.links.items())


def _cut(name: str) -> str:
    return (f'{name} went away in the middle of the answer, which no other node can finish: ask '
            'again')
