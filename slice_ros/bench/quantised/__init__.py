# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench perplexity``: each quantisation of llama.cpp, here and there; ``kv``: 8 and 16 bits."""
