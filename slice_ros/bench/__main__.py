# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m slice_ros.bench``: the program `slice_bench` without an installation."""

import sys

from slice_ros.bench.cli import main

if __name__ == '__main__':
    sys.exit(main())
