# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Text to tokens and back: tokenizer, detokenizer, grammars, sampling.

Nothing here knows models, weights, slots or requests. Text from callers is untrusted: its size is
checked before any other work. Faults of a caller end in a `RequestError`.
"""
