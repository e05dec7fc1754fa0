# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a request enters the server: size limits, admission, a place in the queue.

Below `max_queued` waiting requests everyone gets a place. In a full queue

1. a request displaces the least useful waiting one, if its own utility is higher;
2. otherwise it displaces one of a class that has more than its share of the queue;
3. a class that has its share gets no further place at the expense of others.

A displaced request ends with QUEUE_FULL. One whose answer has begun, and which waits again because
its KV cache was needed, is displaced last. A refusal is a `RequestError` with a code and a
sentence that tells its caller what to change.
"""

from collections import Counter
from collections.abc import Callable
import math
from typing import TYPE_CHECKING
import uuid

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.scheduling.admission import admit, Prediction
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.job import Job
from slice_ros.serving.server_config import ServerConfig
from slice_ros.serving.sessions import Turn
from slice_ros.serving.shared_state import Ending, SharedState
from slice_ros.slo import SloClass

if TYPE_CHECKING:
    from slice_ros.engine import Engine, EngineInfo, TokenSequence


class Intake:
    """Checks requests and makes them live; any thread may call it.

    `predict` returns how a request would be served now; `accepting` tells whether the loop
    runs.
    """

    def __init__(self, engine: 'Engine', shared: SharedState,
                 predict: Callable[[Request], Prediction], clock: Callable[[], float],
                 accepting: Callable[[], bool]) -> None:
        self._engine, self._shared, self._clock = engine, shared, clock
        self._predict, self._accepting = predict, accepting

    def submit(self, slo: SloClass, prompt_tokens: int, max_tokens: int,
               open_sequence: Callable[[Request], 'TokenSequence'],
               on_output: Callable[[Delivery], bool | None], *, request_id: str = '',
               caller: str = '', arrival: float | None = None, turn: Turn | None = None
               ) -> Request:
        """Make a request live and return it. Raises as `Server.submit` does.

        `open_sequence` returns the sequence of a request. A request that is refused, for whatever
        reason, counts in its class.
        """
        request = Request(request_id or str(uuid.uuid4()), slo,
                          self._clock() if arrival is None else arrival, prompt_tokens, max_tokens,
                          session_id=turn.session_id if turn else '', caller=caller)
        try:
            check_size(self._shared.config, self._engine.info, prompt_tokens, max_tokens)
            sequence = open_sequence(request)
            self._make_live(Job(request, sequence, on_output, turn))
        except BaseException as error:   # native code may raise more than `Exception`
            code = error.code if isinstance(error, RequestError) else ErrorCode.ENGINE_FAILURE
            request.end(State.CANCELLED if code is ErrorCode.CANCELLED else State.REJECTED,
                        self._clock(), code)
            self._shared.count(request)
            raise
        return request

    def _make_live(self, job: Job) -> None:
        shared, request = self._shared, job.request
        infeasible = self._admit(request, shared.config)
        with shared.changed:
            error = (self._refusal(request, job.turn) or infeasible
                     or _take_place(request, shared))
            if error is None:
                shared.add(job)
                return
        self._engine.close(job.sequence)
        raise error

    def _admit(self, request: Request, config: ServerConfig) -> RequestError | None:
        """Set the class that a request is served in, or return why it is refused."""
        if config.admission == 'accept':
            return None
        try:
            request.slo = admit(self._predict(request), request.slo, config.admission,
                                {c.name: c for c in config.classes})
        except RequestError as error:
            return error
        return None

    def _refusal(self, request: Request, turn: Turn | None) -> RequestError | None:
        """Return why a request cannot become live; the lock of the shared state is taken."""
        shared = self._shared
        if turn is not None and turn.abandoned:
            return RequestError(ErrorCode.CANCELLED, turn.abandoned)
        if request.id in shared.jobs:
            return RequestError(
                ErrorCode.INVALID_REQUEST,
                f'a request with the id {request.id!r:.80} is live: choose another id')
        if shared.stop_at < math.inf or not self._accepting():
            return RequestError(ErrorCode.SHUTTING_DOWN, 'the server takes no requests any more')
        return None


def _take_place(request: Request, shared: SharedState) -> RequestError | None:
    """Have `request` find a place in the queue, or return why it has none; `shared` is locked."""
    config = shared.config
    waiting = shared.waiting()
    ending = sum(not job.request.cached for job in shared.jobs.values()) - len(waiting)
    if len(waiting) < config.max_queued and ending < config.max_queued:
        return None
    name, share = request.slo.name, max(int(config.class_share * config.max_queued), 1)
    places = Counter(job.request.slo.name for job in waiting)
    victim, why = _to_displace(request.slo, waiting, places, share)
    if victim is not None and ending < config.max_queued:
        shared.decide(victim.request.id, Ending(
            State.FAILED if victim.request.generated else State.REJECTED, ErrorCode.QUEUE_FULL,
            f'displaced from the full queue by a request of class {name}, {why}: try again '
            'later, or raise limits.max_queued'))
        return None
    if places[name] >= share and len(places) > 1:
        return RequestError(
            ErrorCode.QUEUE_FULL, f'{len(waiting)} requests wait already and class {name} has its '
            f'share, {share} of {config.max_queued} places: try again later, or raise '
            'limits.max_queued or limits.class_share')
    return RequestError(
        ErrorCode.QUEUE_FULL,
        f'{len(waiting)} requests wait already: try again later, or raise limits.max_queued')


def _to_displace(slo: SloClass, waiting: list[Job], places: Counter, share: int
                 ) -> tuple[Job | None, str]:
    """Return whom a request of class `slo` displaces from the full queue, if anyone, and why.

    `places` counts `waiting` by class; `share` is how many a class has at most.
    """
    has_share = places[slo.name] >= share
    jobs = [job for job in waiting if not has_share or job.request.slo.name == slo.name]
    lower = [job for job in jobs if job.request.slo.utility < slo.utility]
    if lower:
        return _least_useful(lower), 'which has a higher utility'
    above = [job for job in jobs if places[job.request.slo.name] > share]
    if above and not has_share:
        victim = _least_useful(above)
        return victim, (f'because class {victim.request.slo.name} has more than its share of it '
                        '(limits.class_share)')
    return None, ''


def _least_useful(jobs: list[Job]) -> Job:
    """Return the job of the lowest utility; of several the newest that has had no token."""
    return min(jobs, key=lambda job: (job.request.slo.utility, job.request.generated > 0,
                                      -job.request.arrival))


def check_size(config: ServerConfig, info: 'EngineInfo', prompt_tokens: int,
               max_tokens: int) -> None:
    """Raise `RequestError` when no request of this size is ever served."""
    if not 1 <= max_tokens <= config.max_tokens:
        raise RequestError(
            ErrorCode.INVALID_REQUEST,
            f'max_tokens is {max_tokens}: choose between 1 and {config.max_tokens}')
    if prompt_tokens < 1:
        raise RequestError(ErrorCode.INVALID_REQUEST, 'the prompt is empty: say something')
    context = min(info.max_context, info.kv_tokens)
    limit = min(config.max_prompt_tokens or context, context - 1)
    if prompt_tokens > limit:
        raise RequestError(
            ErrorCode.PROMPT_TOO_LONG,
            f'the prompt has {prompt_tokens} tokens: shorten it to {limit}')
    if prompt_tokens + max_tokens > context:
        raise RequestError(
            ErrorCode.PROMPT_TOO_LONG,
            f'prompt ({prompt_tokens} tokens) and max_tokens ({max_tokens}) exceed the '
            f'context of {context} tokens: shorten either')
