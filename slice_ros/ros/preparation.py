# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Between the arrival of a request and its first moment in the server: read in a worker thread.

The executor only checks lengths. What takes longer the more a caller sends runs in a worker:
conversion, the chat template, tokenising, and the compilation of a grammar.
"""

from collections.abc import Callable
import threading

from slice_ros.engine.vision.image_tokens import images_of
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros import conversions
from slice_ros.ros.callers.caller_ids import client_of
from slice_ros.ros.calls import Call
from slice_ros.ros.isolation.bounds import is_heavy
from slice_ros.ros.isolation.camera_images import images_in, with_pictures
from slice_ros.ros.isolation.workers import Work, Workers
from slice_ros.ros.parameters import Settings
from slice_ros.serving import Server


class Preparation:
    """The requests that are being read, by id. `submitted` is called when one has become live.

    A call that is cancelled meanwhile ends at once. Its request never becomes live, or, where the
    server has it in hand already, is cancelled there.
    """

    def __init__(self, workers: Workers, submitted: Callable[[], None]) -> None:
        self._workers, self._submitted = workers, submitted
        self._lock = threading.Lock()
        self._works: dict[str, tuple[Call, Work]] = {}   # by request id

    def __len__(self) -> int:
        """Return how many requests are being read."""
        return len(self._works)

    def begin(self, call: Call, goal, server: Server, settings: Settings) -> None:
        """Have a worker submit `goal` for `call`, whose class and arrival are known.

        Raises `RequestError`: QUEUE_FULL, SHUTTING_DOWN.
        """
        def run() -> None:
            if self._knows(call):
                self._prepare(call, goal, server, settings)

        def refuse(error: RequestError) -> None:
            self.forget(call)
            call.refuse(error)
        work = Work(run, refuse, call.slo.utility, call.session_id, is_heavy(goal),
                    any(images_in(goal)))
        with self._lock:
            self._works[call.id] = call, work
        try:
            self._workers.submit(work, settings.server.max_queued)
        except BaseException:
            self.forget(call)
            raise

    def cancel(self, request_id: str, why: str) -> bool:
        """End a request that is being read; return whether it was."""
        with self._lock:
            call, work = self._works.pop(request_id, (None, None))
        if call is None:
            return False
        self._workers.withdraw(work)
        call.refuse(RequestError(ErrorCode.CANCELLED, why), 'cancelled')
        return True

    def of_class(self, name: str) -> list[str]:
        """Return the ids of the requests of a class that are being read."""
        with self._lock:
            return [i for i, (call, *_) in self._works.items() if call.slo_class == name]

    def _prepare(self, call: Call, goal, server: Server, settings: Settings) -> None:
        """Convert a goal and submit it; runs in a worker. Raises `RequestError`."""
        response_format = conversions.response_format(goal)
        tools = response_format.tools
        sampling = conversions.sampling(goal.sampling)
        vision = server.engine.vision
        messages = with_pictures(conversions.messages(goal, settings), goal, vision)
        if images_of(messages):
            messages = vision.glanced(messages)
        options = conversions.chat_options(goal, settings.chat[call.slo_class])
        turn = server.sessions.begin(call.session_id, messages, goal.max_tokens,
                                     goal.reset_session, tools, options
                                     ) if call.session_id else None
        try:
            tokens = turn.tokens if turn else server.engine.encode_chat(messages, tools, options)
            with self._lock:   # who is cancelled before counts at once, after by the server
                self._check_known(call)
                call.submitted = True
            server.submit(call.slo, tokens, goal.max_tokens, sampling, call, stop=goal.stop,
                          response_format=response_format, request_id=call.id,
                          caller=client_of(call.id) or '', arrival=call.arrival, turn=turn,
                          adapter=goal.adapter, options=options,
                          images=images_of(turn.messages if turn else messages))
        except BaseException:
            if turn:
                turn.end()
            raise
        if not self.forget(call):   # cancelled while it was submitted
            server.cancel(call.id)
        self._submitted()

    def _check_known(self, call: Call) -> None:
        """Raise `RequestError` when a call is not being read any more."""
        if not self._knows(call):
            raise RequestError(ErrorCode.CANCELLED, 'cancelled by its caller')

    def forget(self, call: Call) -> bool:
        """Forget a call; return whether it was being read until now."""
        with self._lock:
            known = self._knows(call)
            if known:
                del self._works[call.id]
            return known

    def _knows(self, call: Call) -> bool:
        return self._works.get(call.id, (None,))[0] is call   # another may have the same id
