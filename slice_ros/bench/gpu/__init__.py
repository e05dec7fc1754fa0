# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench gpu``: the checks, the tests and the step times of a machine with a CUDA GPU.

Every part runs in a process of its own, so that a failure of CUDA in one leaves the others alone.
"""
