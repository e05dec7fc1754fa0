// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Shared by the tiles of a matmul: prefetching of weights, and storing of sums.
// Included after a simd header, once for each instruction set (SLICE_ISA).
#pragma once

#include "kernels.hpp"
#include "layout.hpp"
#include "vector_math.hpp"

namespace slice::SLICE_ISA {

// Hardware prefetching ends at each 4 KiB page and starts slowly. Prefetching each line this far
// ahead makes small batches up to 1.6 times faster. Beyond the end of the weights it has no
// effect.
constexpr int kAhead = 8192;

// Writes the first `width` lanes.
SLICE_INLINE void put(float* out, Floats v, int width, bool accumulate) {
  if (width >= 16) {
    store(out, accumulate ? add(load(out), v) : v);
    return;
  }
  float lanes[16];
  store(lanes, v);
  for (int i = 0; i < width; ++i) out[i] = accumulate ? out[i] + lanes[i] : lanes[i];
}

SLICE_INLINE Floats with_bias(const SliceMatrix& matrix, int output, Floats v) {
  if (!matrix.bias) return v;
  const int left = matrix.outputs - output;
  float lanes[16] = {};
  for (int i = 0; i < left && i < 16; ++i) lanes[i] = matrix.bias[output + i];
  return add(v, load(lanes));
}

// Adds the products of a row's factors with a block of what an adapter adds, in order.
static Floats with_low_rank(const SliceLowRank& part, const float* factors, int block, Floats v) {
  const int32_t* place = part.block + 3 * block;
  const float* factor = factors + place[0];
  const size_t from = static_cast<size_t>(place[2]) * kBlock;
  for (int i = 0; i < place[1]; ++i) {
    const size_t at = from + static_cast<size_t>(i) * kBlock;
    const Floats up = part.down.kind == SLICE_F32
                          ? load(static_cast<const float*>(part.up) + at)
                          : load_half(static_cast<const uint16_t*>(part.up) + at);
    v = fma(all(factor[i]), up, v);
  }
  return v;
}

static void adapt(const MatmulJob& job, int row, int unit, Floats& left, Floats& right) {
  const AdaptedRows& rows = job.adapted;
  const SliceLowRank& part = rows.part[rows.adapter[row]];
  if (!part.down.data) return;
  const float* factors = rows.factors + static_cast<size_t>(row) * rows.stride;
  left = with_low_rank(part, factors, 2 * unit, left);
  if (2 * unit + 1 < blocks_of(job.matrix->outputs)) {
    right = with_low_rank(part, factors, 2 * unit + 1, right);
  }
}

static Floats gated(const MatmulJob& job, Floats gate, Floats up) {
  if (job.store == Store::kClamped) return clamped(gate, up, job.gate_scale, job.gate_limit);
  return mul(job.store == Store::kSwiGlu ? silu(gate) : gelu(gate), up);
}

SLICE_INLINE Floats squared_relu(Floats v) {
  v = max(v, zeros());
  return mul(v, v);
}

static void store_tile(const MatmulJob& job, int first, int rows, int unit,
                       const Floats (*sums)[2]) {
  for (int row = 0; row < rows; ++row) {
    float* out = job.out + static_cast<size_t>(first + row) * job.out_stride;
    const int output = unit * kUnit;
    Floats left = with_bias(*job.matrix, output, sums[row][0]);
    Floats right = with_bias(*job.matrix, output + 16, sums[row][1]);
    if (job.adapted.adapter && job.adapted.adapter[first + row] >= 0) {
      adapt(job, first + row, unit, left, right);
    }
    if (is_gated(job.store)) {
      const int column = unit * 16;
      put(out + column, gated(job, left, right), job.out_width - column, false);
      continue;
    }
    if (job.store == Store::kSquaredRelu) {
      left = squared_relu(left);
      right = squared_relu(right);
    }
    const bool accumulate = job.store == Store::kAdd;
    put(out + output, left, job.out_width - output, accumulate);
    put(out + output + 16, right, job.out_width - output - 16, accumulate);
  }
}

}  // namespace slice::SLICE_ISA
