# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Memory for packed weights."""

import mmap

import numpy as np


class Arena:
    """Memory for weights in large pieces, which the system may back with large pages.

    Weights are streamed through once a step: with 4 KiB pages a good part of that is address
    translation.
    """

    def __init__(self, piece: int = 32 << 20) -> None:
        self._piece = piece
        self._left = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> np.ndarray:
        """Return zeroed bytes that start on a cache line; they keep their piece alive."""
        size = -(-nbytes // 64) * 64
        if size > len(self._left):
            # Private: memory that processes could share is given no large pages as a rule.
            piece = mmap.mmap(-1, max(size, self._piece), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, 'MADV_HUGEPAGE'):
                try:
                    piece.madvise(mmap.MADV_HUGEPAGE)
                except OSError:
                    pass  # a kernel without large pages: only slower
            self._left = np.frombuffer(piece, np.uint8)
        taken, self._left = self._left[:nbytes], self._left[size:]
        return taken
