# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench perplexity`` and ``kv``: weights, and keys and values, in few bits."""
