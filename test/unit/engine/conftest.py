# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that the engine tests share: the embedded one, and tiny ones with random weights."""

import os

# As the engine sets it; here because another conftest may import torch before it.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import pytest  # noqa: E402
import torch  # noqa: E402

if not torch.cuda.is_available():
    # Triton reads it when it is first imported, which the models of transformers may do.
    os.environ['TRITON_INTERPRET'] = '1'

from slice_ros.engine import EngineConfig, load_engine  # noqa: E402,I100
from slice_ros.engine.runners import choose  # noqa: E402
from slice_ros.engine.runners.cuda import graph_runner  # noqa: E402,I100
from slice_ros.engine.runners.native import load_library  # noqa: E402
import tiny  # noqa: E402

NATIVE, WHY_NOT = load_library()
# Both forwards of the flat batch where both are there; the torch path is there always.
KERNELS = ['torch'] if NATIVE is None else ['torch', 'native']


def sampled(cases, kept):
    """Return the parameters of a test, of which all but `kept` are for `make test-matrix`."""
    return [case if case in kept else pytest.param(
        *(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.matrix)
        for case in cases]


def use_kernels(patch, kernels):
    """Have models loaded from here on run on `kernels`."""
    if kernels == 'torch':
        patch.setattr(choose, 'load_library', lambda: (None, 'torch path: a test wants it'))


@pytest.fixture(scope='session', params=KERNELS)
def embedded(request):
    """Return the embedded model, in the weights that give transformers' own text."""
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch, request.param)
        return load_engine(EngineConfig(weights='fp16', max_context=512, slots=12,
                                        threads=2))


@pytest.fixture(params=KERNELS)
def kernels(request, monkeypatch):
    """Have the test run on each of the kernels that are there."""
    use_kernels(monkeypatch, request.param)
    return request.param


@pytest.fixture(scope='session')
def tiny_directory(tmp_path_factory):
    """Return a model directory: Llama shape, byte-level tokenizer, chat template."""
    path = tmp_path_factory.mktemp('tiny')
    tiny.save(path, tiny.llama())
    return path


@pytest.fixture
def tiny_engine(tiny_directory, monkeypatch):
    """Return an engine with 4 slots of 64 tokens, on the torch path: tests look inside."""
    use_kernels(monkeypatch, 'torch')
    return load_engine(EngineConfig(str(tiny_directory), weights='fp32', max_context=64, slots=4))


@pytest.fixture
def quick_checks(monkeypatch):
    """Check a model behind fewer tokens, and split attention, where that is slow or for a GPU."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(graph_runner, '_PROGRAMS', 12)
        monkeypatch.setattr(graph_runner, '_CHECKED', 4)
        monkeypatch.setattr(graph_runner, '_CHUNKS', (2,))
