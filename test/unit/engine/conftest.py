"""Models that the engine tests share: the embedded one, and tiny ones with random weights."""

import os

# As the engine sets it; here because another conftest may import torch before it.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import pytest  # noqa: E402
from slice_ros.engine import EngineConfig, load_engine  # noqa: E402
import tiny  # noqa: E402


@pytest.fixture(scope='session')
def embedded():
    """Return the embedded model, as it is served by default but for its size."""
    return load_engine(EngineConfig(max_context=512, slots=9, threads=2))


@pytest.fixture(scope='session')
def tiny_directory(tmp_path_factory):
    """Return a model directory: Llama shape, byte-level tokenizer, chat template."""
    path = tmp_path_factory.mktemp('tiny')
    tiny.save(path, tiny.llama())
    return path


@pytest.fixture
def tiny_engine(tiny_directory):
    """Return an engine with 4 slots of 64 tokens."""
    return load_engine(EngineConfig(str(tiny_directory), weights='fp32', max_context=64, slots=4))
