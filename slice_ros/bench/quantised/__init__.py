# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench perplexity``: each quantisation that llama.cpp writes, here and in llama.cpp."""
