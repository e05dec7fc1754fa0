# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The inference engine: prompts to tokens.

`load_engine` and `Engine` are its face; other rooms import from here, and from `engine.config`.
Knows torch and `slice_ros.request`, and nothing of ROS or of policies. torch and transformers are
imported when they are used: a GGUF file on the native kernels needs neither. Inside, imports go
one way: config, chat_options, cores; kv, checkpoints, models; runners; text; vision; pooling,
logprobs, sequence; appending, opening, profile; drafting; engine; opened_checkpoint, loading.
"""

import os

# The engine never uses a model hub; this keeps the libraries imported below from trying.
os.environ.update(HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
# torch's threads wait for each other several hundred times in a step. By default they spin, which
# makes a step ten times slower beside other busy processes, as on a robot; sleeping costs little.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from slice_ros.engine.chat_options import ChatOptions  # noqa: E402
from slice_ros.engine.config import (  # noqa: E402
    EngineConfig, EngineInfo, Message, ResponseFormat, Sampling, Tool, ToolCall)
from slice_ros.engine.engine import Engine  # noqa: E402
from slice_ros.engine.loading import load_engine  # noqa: E402
from slice_ros.engine.logprobs import Entries, Entry  # noqa: E402
from slice_ros.engine.sequence import Collected, Output, TokenSequence  # noqa: E402

__all__ = ['ChatOptions', 'Collected', 'Engine', 'EngineConfig', 'EngineInfo', 'Entries', 'Entry',
           'Message', 'Output', 'ResponseFormat', 'Sampling', 'TokenSequence', 'Tool', 'ToolCall',
           'load_engine']
