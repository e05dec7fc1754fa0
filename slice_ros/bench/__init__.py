# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: every figure the package reports, and the programs that print them."""
