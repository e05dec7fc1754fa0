# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Text to tokens and back: tokenizer, detokenizer, grammars, sampling.

Nothing here knows models, weights or the KV cache; what a caller sends is bounded before any work
is done with it.
"""
