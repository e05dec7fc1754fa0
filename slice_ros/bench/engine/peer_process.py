# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A peer in a process of its own, which is stopped except while it answers."""

from collections.abc import Callable, Sequence
import ctypes
import multiprocessing
from multiprocessing.connection import Connection
import os
import signal

from slice_ros.errors import ModelError

_KILL_WITH_PARENT = 1   # PR_SET_PDEATHSIG
_START_S = 300.0        # to load, and to requantise if asked


class Peer:
    """Another engine in a child process, where `make(*options)` builds it.

    The engine has `settings` and the methods below. Its threads spin while they wait, which is
    quickest. So that they do not spin while others are measured, the child is stopped between the
    calls. Raises ``ValueError`` as `make` does, and when the process has ended.
    """

    def __init__(self, name: str, make: Callable, *options: object) -> None:
        self._name = name
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, daemon=True, args=(theirs, make, *options))
        before = os.environ.get('OMP_WAIT_POLICY')
        os.environ['OMP_WAIT_POLICY'] = 'ACTIVE'  # copied by the child
        try:
            self._process.start()
        finally:
            if before is None:
                del os.environ['OMP_WAIT_POLICY']
            else:
                os.environ['OMP_WAIT_POLICY'] = before
        theirs.close()
        try:
            self.settings: dict = self._answer(_START_S)
        except BaseException:
            self.close()
            raise

    def decode(self, batch: int, context: int) -> float:
        """Return the seconds of a decode step of `batch` requests with `context` tokens each."""
        return self._call('decode', batch, context)

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Return the seconds of a prefill of `tokens` after `context` cached tokens."""
        return self._call('prefill', tokens, context)

    def perplexity(self, tokens: Sequence[int]) -> float:
        """Return the perplexity of a text."""
        return self._call('perplexity', list(tokens))

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that greedy decoding adds to a prompt."""
        return self._call('greedy', list(prompt), count)

    def close(self) -> None:
        """End the process; idempotent."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()

    def _call(self, name: str, *arguments: object):
        self._signal(signal.SIGCONT)
        try:
            self._pipe.send((name, arguments))
        except OSError as error:
            raise ValueError(f'the process of {self._name} has ended') from error
        return self._answer()

    def _answer(self, timeout: float | None = None):
        try:
            if not self._pipe.poll(timeout):  # sleeps until there is an answer
                raise ValueError(f'{self._name} took too long to load')
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ValueError(f'the process of {self._name} has ended') from error
        self._signal(signal.SIGSTOP)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, number)


def _serve(pipe: Connection, make: Callable, *options: object) -> None:
    """Answer calls until the other end is closed: the body of the child process."""
    prctl = getattr(ctypes.CDLL(None), 'prctl', None)
    if prctl is not None:  # Linux: else a stopped child outlives a killed parent
        prctl(_KILL_WITH_PARENT, signal.SIGKILL)
    try:
        engine = make(*options)
    except (ValueError, ModelError) as error:
        pipe.send(error)
        return
    answer = engine.settings
    while True:
        pipe.send(answer)
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(engine, name)(*arguments)
        except ValueError as error:
            answer = error
