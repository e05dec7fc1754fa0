# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process of vLLM behind `VllmRunner`: how it is started, asked, and ended."""

from collections.abc import Mapping
import importlib.util
import json
from multiprocessing.connection import Connection
import os
from pathlib import Path
import socket
import subprocess
import sys
import tempfile
import threading
from types import MappingProxyType
import weakref

from slice_ros.errors import ModelError

PROGRAM = 'slice_ros.vllm.step_process'
LOAD_S = 1800.0         # for vLLM to load a model
STEP_S = 120.0          # for a step; a process that needs longer is given up
CONNECT_S = 10.0        # for a Ray cluster to answer
END_S = 10.0            # for the process to end by itself
STDERR = 2              # descriptor: answers of the node may be on its standard output
MOST_BYTES = 1 << 30    # of an answer: the logits of a step
OF_EVERY = MappingProxyType({'VLLM_NO_USAGE_STATS': '1', 'HF_HUB_OFFLINE': '1'})
# Model Runner V2 has its logits elsewhere. A token more than the model has positions is sampled
# where a context is full, and never fed.
OF_STEPS = MappingProxyType({
    'VLLM_USE_V2_MODEL_RUNNER': '0', 'VLLM_ENABLE_V1_MULTIPROCESSING': '0',
    'VLLM_ALLOW_LONG_MAX_MODEL_LEN': '1'})
_ENDED = 'the process of vLLM has ended: see the log, and configure the node again'


def find_python(named: str) -> str:
    """Return the Python that has vLLM: the one `named`, else this one.

    Raises ``ModelError`` where this one has no vLLM.
    """
    if not named and importlib.util.find_spec('vllm') is None:
        raise ModelError('engine.backend vllm needs vLLM, which this Python has not: name the '
                         'Python of an environment with vLLM in engine.vllm.python, see '
                         'docs/scaling.md')
    return named or sys.executable


def find_cluster(address: str) -> None:
    """Raise ``ModelError`` where nothing listens at HOST:PORT: Ray would wait for minutes."""
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ModelError(f'engine.vllm.ray_address: no Ray cluster answers at {address} '
                         f'({error}): begin one with `ray start --head`') from error


def environment(folder: Path, threads: int = 0) -> dict[str, str]:
    """Return the environment of a program in vLLM's Python, which finds this package in `folder`.

    It finds none of those beside it: they are of another environment. `threads` compute a step on
    a CPU, 0 = as vLLM has it.
    """
    (folder / 'slice_ros').symlink_to(Path(__file__).parents[2])
    settings = {name: value for name, value in os.environ.items() if name != 'PYTHONHOME'}
    # A ray.py where the node was started is not Ray.
    settings.update(OF_EVERY, PYTHONPATH=str(folder), PYTHONSAFEPATH='1')
    settings.setdefault('VLLM_LOGGING_LEVEL', 'WARNING')
    if threads:
        settings.update(OMP_NUM_THREADS=str(threads), VLLM_CPU_OMP_THREADS_BIND='nobind')
    return settings


class StepProcess:
    """The process of vLLM, and the socket to it: one step at a time is under way.

    It ends when this is closed or collected, and by itself where this program is killed. Raises
    ``ModelError`` when it cannot be started.
    """

    def __init__(self, python: str, threads: int, ray_address: str = '') -> None:
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        folder = tempfile.TemporaryDirectory(prefix='slice_vllm_')
        settings: Mapping = environment(Path(folder.name), threads) | OF_STEPS
        if ray_address:
            settings |= {'RAY_ADDRESS': ray_address}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [python, '-m', PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                    env=settings, stdin=subprocess.DEVNULL, stdout=STDERR,
                    start_new_session=True)
        except OSError as error:
            folder.cleanup()
            self._pipe.close()
            raise ModelError(f'engine.vllm.python: {python} cannot be run ({error})') from error
        self._waiting = 0    # answers that nobody has taken
        self.close = weakref.finalize(self, _end, self._pipe, self._process, folder)

    def load(self, options: dict) -> dict:
        """Return what vLLM says of the model that it loads. Raises ``ModelError``."""
        try:
            self._pipe.send_bytes(json.dumps(options).encode())
            about = self._answer(LOAD_S)
        except RuntimeError as error:
            self.close()
            raise ModelError(f'{options["model"]}: {error}') from error
        except OSError as error:
            self.close()
            raise ModelError(_ENDED) from error
        return about

    def send(self, order: dict) -> None:
        """Begin a step. Raises ``RuntimeError`` when the process has ended."""
        while self._waiting:   # a step whose tokens nobody wanted any more
            try:
                self.receive()
            except RuntimeError:
                if not self.close.alive:
                    raise
        try:
            self._pipe.send_bytes(json.dumps(order).encode())
        except OSError as error:
            raise RuntimeError(_ENDED) from error
        self._waiting += 1

    def receive(self) -> tuple[list[int], bytes]:
        """Wait for the oldest step. Raises ``RuntimeError`` when it has failed."""
        self._waiting -= 1
        answer, data = self._answer(STEP_S, rows=True)
        return answer['tokens'], data

    def _answer(self, timeout: float, rows: bool = False) -> dict | tuple[dict, bytes]:
        try:
            if not self._pipe.poll(timeout):
                self.close()
                raise RuntimeError(f'vLLM took longer than {timeout:g} s, and was ended')
            answer = json.loads(self._pipe.recv_bytes(MOST_BYTES))
            data = self._pipe.recv_bytes(MOST_BYTES) if rows else b''
        except (EOFError, OSError) as error:
            self.close()
            raise RuntimeError(_ENDED) from error
        if 'error' in answer:
            raise RuntimeError(f'vLLM failed: {answer["error"]}')
        return (answer, data) if rows else answer


def _end(pipe: Connection, process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    """Have the process end by closing its socket, and kill it if it does not; does not wait."""
    pipe.close()

    def wait() -> None:
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        folder.cleanup()
    # Not a daemon: the program ends when this process has.
    try:
        threading.Thread(target=wait, name='slice vllm').start()
    except RuntimeError:   # the interpreter is ending
        wait()
