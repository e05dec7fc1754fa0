# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Ways to run a step: `native` kernels, `torch`, `cuda` graphs, or `transformers` itself.

`runner.Runner` is the protocol that all keep. `choose` names the native one, and `torch_paths` the
others, which take a second to import. A runner sees segments and the page table, never a request
or text. `native` and `torch` know nothing of each other; `cuda` builds on `torch`.
"""
