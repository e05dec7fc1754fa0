# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The inference engine: prompts to tokens. Knows torch, and nothing of ROS or of scheduling."""

import os

# Nothing here ever asks a model hub; this keeps the libraries, imported below, from trying.
os.environ.update(HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
# torch's threads wait for each other several hundred times a step. By default they spin, which
# beside other busy processes (a robot) makes a step ten times slower; sleeping costs little.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from slice_ros.engine.config import (  # noqa: E402
    EngineConfig, EngineInfo, ResponseFormat, Sampling)
from slice_ros.engine.engine import Engine  # noqa: E402
from slice_ros.engine.loading import load_engine  # noqa: E402
from slice_ros.engine.sequence import Output, TokenSequence  # noqa: E402

__all__ = ['Engine', 'EngineConfig', 'EngineInfo', 'Output', 'ResponseFormat', 'Sampling',
           'TokenSequence', 'load_engine']
