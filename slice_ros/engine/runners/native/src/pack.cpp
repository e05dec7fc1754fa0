// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Packing weights into the blocked layouts of layout.hpp, and reading a row back.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.hpp"
#include "layout.hpp"

namespace slice {
namespace {

// Writes scale, minimum and 32 codes of one group of one output.
void put_group(int kind, uint8_t* block, int inputs, int group, int lane, uint16_t scale,
               uint16_t minimum, const uint8_t* codes) {
  uint16_t* scales = reinterpret_cast<uint16_t*>(block);
  uint8_t* body = block + scale_bytes(kind, inputs);
  if (kind == SLICE_Q8) {
    scales[group * kBlock + lane] = scale;
    for (int quad = 0; quad < kQuads; ++quad) {
      std::memcpy(body + ((group * kQuads + quad) * kBlock + lane) * 4, codes + quad * 4, 4);
    }
    return;
  }
  scales[(group * 2) * kBlock + lane] = scale;
  scales[(group * 2 + 1) * kBlock + lane] = minimum;
  uint8_t pairs[kGroup / 2];
  for (int i = 0; i < kGroup / 2; ++i) {
    pairs[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + kGroup / 2] & 15) << 4);
  }
  for (int quad = 0; quad < kQuads / 2; ++quad) {
    std::memcpy(body + ((group * kQuads / 2 + quad) * kBlock + lane) * 4, pairs + quad * 4, 4);
  }
}

uint8_t clamp_code(float value, int low, int high) {
  return static_cast<uint8_t>(std::clamp<int64_t>(std::lrintf(value), low, high));
}

// Codes are computed with the stored scale (rounded to 16 bits), not with the exact one.
void quantize_group(int kind, const float* values, uint16_t* scale, uint16_t* minimum,
                    uint8_t* codes) {
  const auto [low, high] = std::minmax_element(values, values + kGroup);
  if (kind == SLICE_Q8) {
    *scale = float_to_half(std::max(std::fabs(*low), std::fabs(*high)) / 127.0f);
    *minimum = 0;
    const float step = half_to_float(*scale);
    for (int i = 0; i < kGroup; ++i) {
      codes[i] = clamp_code(step > 0 ? values[i] / step + 128.0f : 128.0f, 1, 255);
    }
    return;
  }
  *minimum = float_to_half(*low);
  *scale = float_to_half((*high - *low) / 15.0f);
  const float step = half_to_float(*scale);
  const float base = half_to_float(*minimum);
  for (int i = 0; i < kGroup; ++i) {
    codes[i] = clamp_code(step > 0 ? (values[i] - base) / step : 0.0f, 0, 15);
  }
}

void pack_float_row(int kind, uint8_t* block, int inputs, int lane, const float* row) {
  for (int i = 0; i < inputs; ++i) {
    const int at = i * kBlock + lane;
    if (kind == SLICE_F32) {
      reinterpret_cast<float*>(block)[at] = row[i];
    } else {
      reinterpret_cast<uint16_t*>(block)[at] =
          kind == SLICE_F16 ? float_to_half(row[i]) : float_to_bfloat(row[i]);
    }
  }
}

void pack_quantized_row(int kind, uint8_t* block, int inputs, int lane, const float* row) {
  for (int group = 0; group < groups_of(inputs); ++group) {
    float values[kGroup] = {};
    const int first = group * kGroup;
    std::copy(row + first, row + std::min(first + kGroup, inputs), values);
    uint16_t scale, minimum;
    uint8_t codes[kGroup];
    quantize_group(kind, values, &scale, &minimum, codes);
    put_group(kind, block, inputs, group, lane, scale, minimum, codes);
  }
}

float quantized_value(int kind, const uint8_t* block, int inputs, int input, int lane) {
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(block);
  const uint8_t* body = block + scale_bytes(kind, inputs);
  const int group = input / kGroup;
  const int i = input % kGroup;
  if (kind == SLICE_Q8) {
    const int code = body[((group * kQuads + i / 4) * kBlock + lane) * 4 + i % 4] - 128;
    return half_to_float(scales[group * kBlock + lane]) * static_cast<float>(code);
  }
  const int j = i % (kGroup / 2);
  const uint8_t pair = body[((group * kQuads / 2 + j / 4) * kBlock + lane) * 4 + j % 4];
  const int code = i < kGroup / 2 ? pair & 15 : pair >> 4;
  return half_to_float(scales[group * 2 * kBlock + lane]) * static_cast<float>(code) +
         half_to_float(scales[(group * 2 + 1) * kBlock + lane]);
}

// The block that a row is in, with zeros before its first row.
uint8_t* block_of(int kind, int inputs, int row, void* packed) {
  const size_t bytes = block_bytes(kind, inputs);
  uint8_t* block = static_cast<uint8_t*>(packed) + row / kBlock * bytes;
  if (row % kBlock == 0) std::memset(block, 0, bytes);
  return block;
}

}  // namespace

void unpack_row(const SliceMatrix& matrix, int row, float* out) {
  const uint8_t* block = block_at(matrix, row / kBlock);
  const int lane = row % kBlock;
  for (int i = 0; i < matrix.inputs; ++i) {
    const int at = i * kBlock + lane;
    switch (matrix.kind) {
      case SLICE_F32:
        out[i] = reinterpret_cast<const float*>(block)[at];
        break;
      case SLICE_F16:
        out[i] = half_to_float(reinterpret_cast<const uint16_t*>(block)[at]);
        break;
      case SLICE_BF16:
        out[i] = bfloat_to_float(reinterpret_cast<const uint16_t*>(block)[at]);
        break;
      default:
        out[i] = quantized_value(matrix.kind, block, matrix.inputs, i, lane);
    }
  }
}

}  // namespace slice

using slice::kBlock;
using slice::kGroup;

int64_t slice_packed_bytes(int32_t kind, int32_t outputs, int32_t inputs) {
  if (!slice::valid_shape(kind, outputs, inputs)) return SLICE_BAD_ARGUMENT;
  return static_cast<int64_t>(slice::blocks_of(outputs) * slice::block_bytes(kind, inputs));
}

int32_t slice_pack_floats(int32_t kind, int32_t outputs, int32_t inputs, const float* weights,
                          void* packed) {
  if (!slice::valid_shape(kind, outputs, inputs) || !weights || !packed) return SLICE_BAD_ARGUMENT;
  for (int row = 0; row < outputs; ++row) {
    uint8_t* block = slice::block_of(kind, inputs, row, packed);
    const float* source = weights + static_cast<size_t>(row) * inputs;
    (slice::is_quantized(kind) ? slice::pack_quantized_row : slice::pack_float_row)(
        kind, block, inputs, row % kBlock, source);
  }
  return SLICE_OK;
}

int32_t slice_pack_codes(int32_t kind, int32_t outputs, int32_t inputs, const uint8_t* codes,
                         const uint16_t* scales, const uint16_t* minimums, void* packed) {
  if (!slice::valid_shape(kind, outputs, inputs) || !slice::is_quantized(kind) ||
      inputs % kGroup != 0 || !codes || !scales || !packed || (kind == SLICE_Q4 && !minimums)) {
    return SLICE_BAD_ARGUMENT;
  }
  const size_t groups = static_cast<size_t>(inputs / kGroup);
  for (int row = 0; row < outputs; ++row) {
    uint8_t* block = slice::block_of(kind, inputs, row, packed);
    for (size_t group = 0; group < groups; ++group) {
      const size_t at = row * groups + group;
      slice::put_group(kind, block, inputs, static_cast<int>(group), row % kBlock, scales[at],
                       kind == SLICE_Q4 ? minimums[at] : uint16_t{0}, codes + at * kGroup);
    }
  }
  return SLICE_OK;
}

int32_t slice_unpack_row(const SliceMatrix* matrix, int32_t row, float* out) {
  if (!matrix || !matrix->data || !out ||
      !slice::valid_shape(matrix->kind, matrix->outputs, matrix->inputs) || row < 0 ||
      row >= matrix->outputs) {
    return SLICE_BAD_ARGUMENT;
  }
  slice::unpack_row(*matrix, row, out);
  return SLICE_OK;
}
