# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
