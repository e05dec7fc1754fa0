# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images to what a language model reads: decoding, the vision tower, tokens for each row of it.

Nothing here knows slots or requests. Images from callers are untrusted: bytes and pixels are
counted before one is decoded. Faults of a caller end in a `RequestError`.
"""
