// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The layout of a packed matrix.
//
// 16 outputs form a block: one vector has the weights of one input for 16 outputs, and is used for
// every row of the batch. In quantised kinds, 32 inputs form a group, and 4 inputs of a group form
// a quad, which is what one lane of the 8 bit dot product reads.
//   F32, F16, BF16  block: [input][16 outputs]
//   Q8              block: scales [group][16] fp16, then codes [group][8 quads][16 outputs][4]
//   Q4              block: scales and minimums [group][2][16] fp16, then codes
//                          [group][4][16 outputs][4]: quad q in the low nibbles, q + 4 in the high
#pragma once

#include <cstddef>
#include <cstdint>

#include "slice_kernels.h"

namespace slice {

constexpr int kBlock = 16;  // outputs in a block: fp32 lanes of one 512 bit vector
constexpr int kGroup = 32;  // inputs that share a scale
constexpr int kQuads = kGroup / 4;
constexpr float kMostCode = 127.0f;  // of a signed code of 8 bits
constexpr int kUnit = 2 * kBlock;  // outputs in a unit, the work item of a thread

// Of a matrix. A side times a block fits an int; no model is a hundredth as wide.
constexpr int kMaxSide = 1 << 26;

static inline size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static inline bool valid_shape(int kind, int outputs, int inputs) {
  return kind >= SLICE_F32 && kind <= SLICE_Q4 && outputs > 0 && outputs <= kMaxSide &&
         inputs > 0 && inputs <= kMaxSide;
}

static inline bool is_quantized(int kind) { return kind == SLICE_Q8 || kind == SLICE_Q4; }

static inline int groups_of(int inputs) { return inputs / kGroup + (inputs % kGroup != 0); }

static inline int blocks_of(int outputs) { return outputs / kBlock + (outputs % kBlock != 0); }

static inline int units_of(int outputs) { return outputs / kUnit + (outputs % kUnit != 0); }

// Bytes in front of the codes of a quantised block, a whole number of cache lines.
static inline size_t scale_bytes(int kind, int inputs) {
  const size_t vectors = static_cast<size_t>(groups_of(inputs)) * (kind == SLICE_Q4 ? 2 : 1);
  return round_up(vectors * kBlock * sizeof(uint16_t), 64);
}

static inline size_t block_bytes(int kind, int inputs) {
  const size_t k = static_cast<size_t>(inputs);
  switch (kind) {
    case SLICE_F32:
      return k * kBlock * 4;
    case SLICE_F16:
    case SLICE_BF16:
      return round_up(k * kBlock * 2, 64);
    case SLICE_Q8:
      return scale_bytes(kind, inputs) + static_cast<size_t>(groups_of(inputs)) * kGroup * kBlock;
    default:
      return scale_bytes(kind, inputs) +
             static_cast<size_t>(groups_of(inputs)) * kGroup * kBlock / 2;
  }
}

static inline const uint8_t* block_at(const SliceMatrix& matrix, int block) {
  return static_cast<const uint8_t*>(matrix.data) +
         static_cast<size_t>(block) * block_bytes(matrix.kind, matrix.inputs);
}

}  // namespace slice
