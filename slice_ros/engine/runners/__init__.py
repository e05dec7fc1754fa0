# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Ways to run a step: `native` kernels, `torch`, `cuda` graphs, or `transformers` itself.

`runner.Runner` is the protocol that all keep; a runner never sees a request, only segments.
"""
