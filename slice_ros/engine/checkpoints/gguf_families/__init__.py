# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What GGUF files of each architecture call the tensors and numbers of a Hugging Face model.

`value(key)` of a `GgufFamily` reads a number of the architecture from the metadata, None if there
is none; `value(key, whole=True)` reads those of the layers where they differ.
"""

from slice_ros.engine.checkpoints.gguf_families.gguf_decoders import DECODERS
from slice_ros.engine.checkpoints.gguf_families.gguf_hybrids import HYBRIDS

ARCHITECTURES = DECODERS | HYBRIDS

__all__ = ['ARCHITECTURES']
