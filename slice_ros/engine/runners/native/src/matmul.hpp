// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Matrix times a few rows: a tile of rows by a unit of two blocks of 16 outputs.
// Included after a simd header and one with group_dots, once for each instruction set (SLICE_ISA).
//
// A weight is loaded once for all rows of a tile; from 8 rows on, arithmetic takes longer than
// reading memory. Every output has one running sum over the inputs in order.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"
#include "matmul_float.hpp"
#include "tile.hpp"

namespace slice::SLICE_ISA {

// sums[row][side ...] = the products of `rows` rows from `first` on with `blocks` blocks. The 8
// bit dot products of a group are exact in 32 bits; a group's sum is then scaled and added.
template <int kind, int rows, int blocks>
SLICE_QUANTIZED_TILE void quantized_tile(const MatmulJob& job, const uint8_t* const* block,
                                         int first, Floats (*sums)[2], int side) {
  const int groups = job.in->groups;
  const GroupCodes* in = job.in->codes + static_cast<size_t>(first) * groups;
  const uint8_t* weights[blocks];
  const uint16_t* steps[blocks];
  for (int b = 0; b < blocks; ++b) {
    steps[b] = reinterpret_cast<const uint16_t*>(block[side + b]);
    weights[b] = block[side + b] + scale_bytes(kind, job.matrix->inputs);
  }
  Floats total[rows][blocks];
  for (int row = 0; row < rows; ++row) {
    for (int b = 0; b < blocks; ++b) total[row][b] = zeros();
  }
  for (int group = 0; group < groups; ++group) {
    Ints exact[rows][blocks];
    for (int b = 0; b < blocks; ++b) {
      prefetch(reinterpret_cast<const uint8_t*>(steps[b]) + kAhead);
    }
    group_dots<kind, rows, blocks>(weights, in, exact);
    for (int b = 0; b < blocks; ++b) {
      const Floats step = load_half(steps[b]);
      const Floats minimum = kind == SLICE_Q4 ? load_half(steps[b] + 16) : zeros();
#pragma GCC unroll 8
      for (int row = 0; row < rows; ++row) {
        const Floats scaled = mul(to_floats(exact[row][b]), all(in[row].scale));
        total[row][b] = fma(scaled, step, total[row][b]);
        if constexpr (kind == SLICE_Q4) {
          total[row][b] = fma(all(in[row].scaled_sum), minimum, total[row][b]);
        }
      }
    }
    in += rows;
    for (int b = 0; b < blocks; ++b) {
      weights[b] += kGroup * kBlock / (kind == SLICE_Q8 ? 1 : 2);
      steps[b] += kind == SLICE_Q4 ? 32 : 16;
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int b = 0; b < blocks; ++b) sums[row][side + b] = total[row][b];
  }
}

template <int kind, int rows>
static void quantized_rows(const MatmulJob& job, const uint8_t* const* block, int first, int unit) {
  Floats sums[rows][2];
  for (int side = 0; side < 2; side += kBlockTile) {
    quantized_tile<kind, rows, kBlockTile>(job, block, first, sums, side);
  }
  store_tile(job, first, rows, unit, sums);
}

// The remaining rows, fewer than a tile; the template with their number is found by counting down.
template <int kind, int rows>
static void rest(const MatmulJob& job, const uint8_t* const* block, int first, int unit) {
  if (job.in->rows - first == rows) {
    quantized_rows<kind, rows>(job, block, first, unit);
  } else if constexpr (rows > 1) {
    rest<kind, rows - 1>(job, block, first, unit);
  }
}

template <int kind>
static void quantized_unit(const MatmulJob& job, const uint8_t* const* block, int unit) {
  int row = 0;
  for (; row + kRowTile <= job.in->rows; row += kRowTile) {
    quantized_rows<kind, kRowTile>(job, block, row, unit);
  }
  if constexpr (kRowTile > 1) rest<kind, kRowTile - 1>(job, block, row, unit);
}

template <int kind>
static void matmul_units(const MatmulJob& job, int first_unit, int last_unit) {
  const int blocks = blocks_of(job.matrix->outputs);
  for (int unit = first_unit; unit < last_unit; ++unit) {
    // The last unit may be half a unit: its second block repeats the first, and is not stored.
    const int second = unit * 2 + 1 < blocks ? unit * 2 + 1 : unit * 2;
    const uint8_t* block[2] = {block_at(*job.matrix, unit * 2),
                               block_at(*job.matrix, second)};
    if constexpr (kind == SLICE_Q8 || kind == SLICE_Q4) {
      quantized_unit<kind>(job, block, unit);
    } else {
      float_unit<kind>(job, block, unit);
    }
  }
}

static void matmul(const MatmulJob& job, int first, int last) {
  switch (job.matrix->kind) {
    case SLICE_F32:
      return matmul_units<SLICE_F32>(job, first, last);
    case SLICE_F16:
      return matmul_units<SLICE_F16>(job, first, last);
    case SLICE_BF16:
      return matmul_units<SLICE_BF16>(job, first, last);
    case SLICE_Q8:
      return matmul_units<SLICE_Q8>(job, first, last);
    default:
      return matmul_units<SLICE_Q4>(job, first, last);
  }
}

}  // namespace slice::SLICE_ISA
