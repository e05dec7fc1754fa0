# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a request enters the server: size limits, admission, a place in the queue, its images.

Below `max_queued` waiting requests everyone gets a place. In a full queue

1. a request displaces the least useful waiting one, if its own utility is higher;
2. otherwise it displaces one of a class that has more than its share of the queue;
3. a class that has its share gets no further place at the expense of others.

A displaced request ends with QUEUE_FULL. One whose answer has begun, and which waits again because
its KV cache was needed, is displaced last. A refusal is a `RequestError` with a code and a
sentence that tells its caller what to change.

A request is live before its images are encoded: whoever is refused costs no encoding. Until they
are, no step takes it. Their time, and that of those encoded before, is part of its prediction.
"""

from collections import Counter
from collections.abc import Callable, Sequence
import logging
import math
from typing import TYPE_CHECKING
import uuid

from slice_ros.engine.vision.encoding_queue import Encoding
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.scheduling.admission import admit, encoding_order, Prediction
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.job import Job
from slice_ros.serving.server_config import ServerConfig
from slice_ros.serving.sessions import Turn
from slice_ros.serving.shared_state import Ending, SharedState
from slice_ros.slo import SloClass

if TYPE_CHECKING:
    from slice_ros.engine import Engine, EngineInfo, TokenSequence
    from slice_ros.engine.vision.image_tokens import SeenImage

log = logging.getLogger('slice_ros.serving')


class Intake:
    """Checks requests and makes them live; any thread may call it.

    `predict` returns how a request would be served now, or after some seconds; `accepting` tells
    whether the loop runs.
    """

    def __init__(self, engine: 'Engine', shared: SharedState,
                 predict: Callable[[Request, float], Prediction], clock: Callable[[], float],
                 accepting: Callable[[], bool]) -> None:
        self._engine, self._shared, self._clock = engine, shared, clock
        self._predict, self._accepting = predict, accepting

    def submit(self, slo: SloClass, prompt_tokens: int, max_tokens: int,
               open_sequence: Callable[[Request], 'TokenSequence'],
               on_output: Callable[[Delivery], bool | None], *, request_id: str = '',
               caller: str = '', arrival: float | None = None, turn: Turn | None = None,
               images: 'Sequence[SeenImage]' = ()) -> Request:
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
            self._make_live(Job(request, sequence, on_output, turn), images)
        except BaseException as error:   # native code may raise more than `Exception`
            code = error.code if isinstance(error, RequestError) else ErrorCode.ENGINE_FAILURE
            request.end(State.CANCELLED if code is ErrorCode.CANCELLED else State.REJECTED,
                        self._clock(), code)
            self._shared.count(request)
            raise
        return request

    def _make_live(self, job: Job, images: 'Sequence[SeenImage]') -> None:
        shared, request = self._shared, job.request
        infeasible = self._admit(request, images, shared.config)
        job.encoding = any(image.rows is None for image in images)
        with shared.changed:
            error = (self._refusal(request, job.turn) or infeasible
                     or _take_place(request, shared))
            if error is None:
                shared.add(job)
        if error is not None:
            self._engine.close(job.sequence)
            raise error
        if job.encoding:
            self._encode(job, images)

    def until_encoded(self, slo: SloClass, arrival: float, images: 'Sequence[SeenImage]'
                      ) -> float:
        """Return the seconds until the images of a request would be encoded."""
        if not any(image.rows is None for image in images):
            return 0.0
        return self._engine.vision.queue.seconds_until(
            images, lambda left: encoding_order(slo, arrival, self._clock() + left))

    def _encode(self, job: Job, images: 'Sequence[SeenImage]') -> None:
        """Have the images of a live job encoded while it has a chance, and steps take it then."""
        shared, request = self._shared, job.request

        def order(left: float) -> tuple:
            return encoding_order(request.slo, request.arrival, self._clock() + left)

        def alive() -> bool:
            with shared.changed:
                return shared.goes_on(job)

        def wanted(left: float) -> bool:
            late = order(left)[0]
            with shared.changed:
                if late and shared.goes_on(job) and shared.config.drops_missed:
                    self._engine.vision.doubt()
                    shared.decide(request.id, Ending(
                        State.FAILED, ErrorCode.DEADLINE_MISSED, 'its objectives were out of '
                        'reach before its images could be encoded'))
                return shared.goes_on(job)

        def ended(error: BaseException | None) -> None:
            code, sentence = ErrorCode.ENGINE_FAILURE, 'an image cannot be encoded: see the log'
            if isinstance(error, RequestError):
                code, sentence = error.code, error.message
            elif error is not None:
                log.error('images of request %s cannot be encoded', request.id, exc_info=error)
            with shared.changed:
                if shared.goes_on(job) and error is None:
                    shared.encoded(job)
                elif shared.goes_on(job):
                    shared.decide(request.id, Ending(State.FAILED, code, sentence))
        self._engine.vision.queue.put(Encoding(images, order, wanted, ended, alive))

    def _admit(self, request: Request, images: 'Sequence[SeenImage]', config: ServerConfig
               ) -> RequestError | None:
        """Set the class that a request is served in, or return why it is refused."""
        if config.admission == 'accept':
            return None
        before = 0.0
        try:
            before = self.until_encoded(request.slo, request.arrival, images)
            request.slo = admit(self._predict(request, before), request.slo, config.admission,
                                {c.name: c for c in config.classes})
        except RequestError as error:
            if before:
                self._engine.vision.doubt()
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
