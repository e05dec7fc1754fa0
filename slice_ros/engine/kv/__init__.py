# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The KV cache: slots, pages, shared prefixes, and the memory they may take.

Only `Engine` and `Probe` change slots. Nothing here knows requests: a slot has pages, and the
progress of its request is counted in `slice_ros.request`.
"""
