# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of a GGUF type in groups of 32 codes that the native kernels can use.

A type whose weights are whole multiples of one scale in each 32 inputs becomes Q8_0, and one with
4 bit codes, a scale and a minimum becomes Q4_1. Codes stay exact; a scale that the file computes
from two numbers is rounded to 16 bits. Other types have no such form: they are rounded to Q8_0,
by at most 1/254 of the largest weight of 32, which is a fraction of their own steps.
"""

from gguf import dequantize, GGML_QUANT_SIZES, GGMLQuantizationType, quantize
from gguf.quants import Q4_K
import numpy as np
from slice_ros.engine.checkpoints.stored_weights import Codes, GGUF_FORMATS, GROUP

# How the scales of a type are found: a block in which all codes are the same dequantises to them.
# `kept` are the bits of a block that hold scales, `set` those of the codes, and `codes` is the
# number of steps of the scale that such a code stands for. Where the product of a code and a small
# factor of the block fits 8 bits, it is the code, and the factor is set to 1 too (Q3_K).
_SCALES = {
    'Q5_0': (b'\xff' * 2 + bytes(20), bytes(2) + b'\xff' * 4 + b'\x11' * 16, 1),
    # 6 bit factors from -32 and 3 bit codes from -4: down from 124 to -128 in steps of -scale.
    'Q3_K': (bytes(108) + b'\xff' * 2,
             b'\xff' * 32 + b'\x55' * 64 + b'\x11' * 8 + b'\xaa' * 4 + bytes(2), -1),
    'IQ4_NL': (b'\xff' * 2 + bytes(16), bytes(2) + b'\x88' * 16, 1),
    'IQ4_XS': (b'\xff' * 8 + bytes(128), bytes(8) + b'\x88' * 128, 1),
    'MXFP4': (b'\xff' + bytes(16), b'\0' + b'\x11' * 16, 1),
    'TQ1_0': (bytes(52) + b'\xff' * 2, b'\xff' * 52 + bytes(2), 1),
    'TQ2_0': (bytes(64) + b'\xff' * 2, b'\xaa' * 64 + bytes(2), 1),
    'IQ2_XXS': (b'\xff' * 2 + b'\0\0\0\0\0\0\0\xf0' * 8, bytes(66), 8),
    'IQ3_XXS': (b'\xff' * 2 + bytes(64) + b'\0\0\0\xf0' * 8, bytes(98), 2),  # all are even
    'IQ3_S': (b'\xff' * 2 + bytes(104) + b'\xff' * 4, bytes(110), 1),
    'IQ1_S': (b'\xff' * 2 + bytes(32) + b'\0\x70' * 8, bytes(50), -7),       # in eighths
}
_ROUNDED = ('Q5_1', 'Q2_K', 'Q5_K', 'Q6_K', 'IQ1_M', 'IQ2_XS', 'IQ2_S', 'NVFP4')
_KEPT_AS = ({name: name for name in GGUF_FORMATS} | {name: 'Q8_0' for name in _SCALES}
            | {name: 'Q8_0' for name in _ROUNDED} | {'Q4_K': 'Q4_1'})
FLOATS = ('F64', 'F32', 'F16', 'BF16')  # types that are not quantised


class GgufDecoder:
    """Weights from rows of blocks, uint8 [outputs, bytes], of a GGUF type."""

    def codes(self, data: np.ndarray, type_name: str) -> Codes:
        """Return the codes that keep the weights of a type with such (`form_of`).

        Scales that are no numbers, of a damaged file, stay such.
        """
        return Codes.from_gguf(regrouped(data, type_name), kept_as(type_name))

    def floats(self, data: np.ndarray, type_name: str) -> np.ndarray:
        """Return the weights as float32, exactly.

        Raises ``NotImplementedError`` for a type that is not known.
        """
        return dequantize(data, GGMLQuantizationType[type_name])


def kept_as(type_name: str) -> str | None:
    """Return the format in `GGUF_FORMATS` that keeps the weights of a type, None for no such."""
    return _KEPT_AS.get(type_name)


def form_of(type_name: str) -> str:
    """Return the weights that keep those of a GGUF type: 'int4', 'int8' or 'fp16'."""
    return GGUF_FORMATS[_KEPT_AS[type_name]][0] if type_name in _KEPT_AS else 'fp16'


def regrouped(data: np.ndarray, type_name: str) -> np.ndarray:
    """Return rows of blocks, uint8 [outputs, bytes], in the format `kept_as` names.

    Scales that are no numbers, of a damaged file, stay such.
    """
    if type_name in GGUF_FORMATS:
        return data
    if type_name in _ROUNDED:
        with np.errstate(over='ignore', invalid='ignore'):
            values = dequantize(data, GGMLQuantizationType[type_name])
            return quantize(values, GGMLQuantizationType.Q8_0)
    pack = _q4_1 if type_name == 'Q4_K' else _q8_0
    return pack(data, type_name).reshape(len(data), -1)


def _q4_1(data: np.ndarray, type_name: str) -> np.ndarray:
    blocks = data.reshape(-1, GGML_QUANT_SIZES[GGMLQuantizationType[type_name]][1])
    factors = np.ascontiguousarray(blocks[:, :4]).view(np.float16).astype(np.float32)
    steps, bases = Q4_K.get_scale_min(blocks[:, 4:16])
    codes = blocks[:, 16:].reshape(-1, 4, 1, GROUP) >> np.array([[0], [4]], np.uint8) & 15
    halves = codes.reshape(-1, 8, 2, GROUP // 2)
    with np.errstate(over='ignore', invalid='ignore'):
        scales = np.stack((factors[:, :1] * steps, -factors[:, 1:] * bases), -1)
        scales = scales.astype(np.float16)
    return np.concatenate((scales.view(np.uint8), halves[:, :, 0] | halves[:, :, 1] << 4), -1)


def _q8_0(data: np.ndarray, type_name: str) -> np.ndarray:
    kind = GGMLQuantizationType[type_name]
    kept, codes, steps = _SCALES[type_name]
    blocks = data.reshape(-1, len(kept))
    same = blocks & np.frombuffer(kept, np.uint8) | np.frombuffer(codes, np.uint8)
    with np.errstate(over='ignore', invalid='ignore', divide='ignore'):
        # In whole rows: gguf takes sixteen of them at a time.
        values = dequantize(data, kind).reshape(-1, GROUP)
        scales = dequantize(same.reshape(data.shape), kind).reshape(-1, GROUP)[:, :1]
        scales = scales / np.float32(steps)
        values *= np.where(scales != 0, 1 / scales, 0)
        codes = np.rint(values, out=values).astype(np.int8)  # any number if it is damaged
        return np.concatenate((scales.astype(np.float16).view(np.uint8), codes.view(np.uint8)), -1)
