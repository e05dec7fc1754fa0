# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of an exception that nobody foresaw: an answer for this caller, and a traceback.

Every way into the node ends here: services (`guard_services`), and actions, topics and threads
(`answering`). The faults of native libraries count, which are no `Exception`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import inspect
import logging

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from slice_ros import srv
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros.compat import service_name

log = logging.getLogger('slice_ros.ros')

MAX_SENTENCE = 500   # characters of a sentence for a caller
# What ends the process or a coroutine is no fault of a request.
_PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)


def refusal(error: BaseException, what: str) -> RequestError:
    """Return the answer to a caller for whom `what` raised; log it, if nobody foresaw it."""
    if isinstance(error, RequestError):
        return RequestError(error.code, error.message[:MAX_SENTENCE])
    log.error('%s failed', what, exc_info=error)
    memory = isinstance(error, MemoryError)
    return RequestError(
        ErrorCode.OUT_OF_MEMORY if memory else ErrorCode.ENGINE_FAILURE,
        f'{what} failed in the node ({type(error).__name__:.80}): try again, and report what the '
        'log of the node says')


@contextmanager
def answering(refuse: Callable[[RequestError], object], what: str) -> Iterator[None]:
    """Run a block; `refuse` gets whatever it raises, as an answer for the caller."""
    try:
        yield
    except _PASSED_ON:
        raise
    except BaseException as error:
        refuse(refusal(error, what))


def logging_faults(what: str):
    """Run a block for which nobody waits: whatever it raises is logged."""
    return answering(lambda error: None, what)


def guard_services(node: Node) -> None:
    """Have every service of `node` answer, whatever its callback raises."""
    for service in node.services:
        service.callback = _answered(service.callback, service.srv_type, service_name(service))


def _answered(callback: Callable, kind: type, name: str) -> Callable:
    async def answered(request, response):
        refused = []
        with answering(refused.append, f'the service {name}'):
            answer = callback(request, response)
            return await answer if inspect.isawaitable(answer) else answer
        return _refused(kind, request, *refused)
    return answered


def _refused(kind: type, request, error: RequestError):
    """Return a response that carries `error`, as far as its type has fields for that."""
    response = kind.Response()
    if hasattr(response, 'error_msg'):
        response.error_code, response.error_msg = int(error.code), error.message
        if hasattr(response, 'reason'):
            response.reason = error.message
    elif kind is srv.GetStatus:
        response.state = f'unknown: {error.message}'
    elif kind is SetParameters:
        response.results = [SetParametersResult(reason=error.message) for _ in request.parameters]
    elif kind is SetParametersAtomically:
        response.result = SetParametersResult(reason=error.message)
    return response
