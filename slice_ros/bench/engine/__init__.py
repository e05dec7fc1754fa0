# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench engine``: step times, memory floors, accuracy, and peers in the same rounds.

May look inside the engine to measure it; nothing outside this room imports from here, except
`bench.cli`.
"""
