# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The inference engine: prompts to tokens.

`load_engine` and `Engine` are its face; other rooms import from here, and from `engine.config`.
Knows torch and `slice_ros.request`, and nothing of ROS or of policies. Inside, imports go one way:
config; kv, checkpoints, models; runners; text; sequence; engine, profile; loading.
"""

import os

# The engine never uses a model hub; this keeps the libraries imported below from trying.
os.environ.update(HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
# torch's threads wait for each other several hundred times in a step. By default they spin, which
# makes a step ten times slower beside other busy processes, as on a robot; sleeping costs little.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from slice_ros.engine.config import (  # noqa: E402
    EngineConfig, EngineInfo, ResponseFormat, Sampling)
from slice_ros.engine.engine import Engine  # noqa: E402
from slice_ros.engine.loading import load_engine  # noqa: E402
from slice_ros.engine.sequence import Collected, Output, TokenSequence  # noqa: E402

__all__ = ['Collected', 'Engine', 'EngineConfig', 'EngineInfo', 'Output', 'ResponseFormat',
           'Sampling', 'TokenSequence', 'load_engine']
