# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The native kernels need neither torch nor transformers for a GGUF file: two seconds less."""

import subprocess
import sys

import pytest
from slice_ros.engine.runners.native import load_library

PROGRAM = """
import sys
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
engine = load_engine(EngineConfig(device='cpu', max_context=128, slots=2))
engine.profile()
prompt = engine.encode_chat([('user', 'Where is the charging station?')])
sampled = engine.open(prompt, 6, Sampling(0.8, 40, 0.9, 0.01, 1.1, 5))
chosen = engine.open(prompt, 6, Sampling(), (), ResponseFormat('choice', ('STOP', 'GO')))
while live := [s for s in (sampled, chosen) if not s.finish_reason]:
    engine.step([(s, s.pending) for s in live])
print(chosen.text, sampled.generated, *({'torch', 'transformers'} & set(sys.modules)))
"""


@pytest.mark.skipif(load_library()[0] is None, reason='the native kernels are not built')
def test_an_answer_of_the_native_kernels_imports_neither_torch_nor_transformers(tmp_path):
    """Chat template, sampling with every filter, and a response format included."""
    done = subprocess.run([sys.executable, '-c', PROGRAM], check=True, text=True,
                          stdout=subprocess.PIPE)
    answer, tokens, *imported = done.stdout.split()
    assert answer in ('STOP', 'GO') and 0 < int(tokens) <= 6
    assert not imported
