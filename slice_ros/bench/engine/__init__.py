# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench engine``: step times, floors, accuracy, and the peers measured beside them."""
