// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Products of float weights (fp32, fp16, bf16) with rows of fp32 activations.
// Included after a simd header, once for each instruction set (SLICE_ISA).
//
// A single tile of rows reads the packed weights directly. Several tiles form a panel: its first
// tile converts a piece of the weights into the first level cache, and the others reuse it. In
// both cases an output has one running sum over the inputs in order, so that its bits do not
// depend on the number of rows. The simd header defines the sizes of tiles and panels.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"
#include "tile.hpp"

namespace slice::SLICE_ISA {

constexpr int kPiece = 128;  // inputs converted at a time: 16 KiB of weights

template <int kind>
SLICE_INLINE Floats load_weights(const uint8_t* block, int input) {
  if constexpr (kind == SLICE_F32) {
    return load(reinterpret_cast<const float*>(block) + input * 16);
  } else if constexpr (kind == SLICE_F16) {
    return load_half(reinterpret_cast<const uint16_t*>(block) + input * 16);
  } else {
    return load_bfloat(reinterpret_cast<const uint16_t*>(block) + input * 16);
  }
}

// A piece of a unit's weights as floats.
struct alignas(64) Piece {
  float block[2][kPiece * kBlock];
};

// Where a tile gets its weights: it reads them for itself alone, reads a piece and keeps it for
// the next tiles, or uses a kept piece.
enum class Weights { kRead, kKeep, kKept };

// Writes (kRead) or adds to sums[row][block] the products of `rows` rows of `inputs` values with
// two blocks.
template <int kind, Weights weights, int rows>
static void float_tile(const float* in, size_t stride, int inputs, const uint8_t* const* block,
                       Piece& piece, Floats (*sums)[2]) {
  constexpr size_t bytes = kind == SLICE_F32 ? 64 : 32;  // of an input's weights in a block
  Floats left[rows], right[rows];
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
    left[row] = weights == Weights::kRead ? zeros() : sums[row][0];
    right[row] = weights == Weights::kRead ? zeros() : sums[row][1];
  }
  // One pointer addresses three rows by offsets. The barrier stops the compiler from using a
  // register for each row: there are too few.
  constexpr int pointers = (rows + 2) / 3;
  const float* at[pointers];
#pragma GCC unroll 16
  for (int i = 0; i < pointers; ++i) {
    at[i] = in + 3 * i * stride;
    if constexpr (pointers > 1) __asm__("" : "+r"(at[i]));
  }
  for (int input = 0; input < inputs; ++input) {
    Floats both[2];
#pragma GCC unroll 2
    for (int side = 0; side < 2; ++side) {
      float* kept = piece.block[side] + input * kBlock;
      if constexpr (weights == Weights::kKept) {
        both[side] = load(kept);
      } else {
        prefetch(block[side] + static_cast<size_t>(input) * bytes + kAhead);
        both[side] = load_weights<kind>(block[side], input);
        if constexpr (weights == Weights::kKeep) store(kept, both[side]);
      }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
      const Floats value = all(at[row / 3][row % 3 * stride + input]);
      left[row] = fma(value, both[0], left[row]);
      right[row] = fma(value, both[1], right[row]);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
    sums[row][0] = left[row];
    sums[row][1] = right[row];
  }
}

// A tile of `rows` rows, at most `most`; the template with their number is found by counting down.
template <int kind, Weights weights, int most = kFloatRowTile>
static void float_rows(const float* in, size_t stride, int inputs, const uint8_t* const* block,
                       Piece& piece, Floats (*sums)[2], int rows) {
  if (rows == most) {
    float_tile<kind, weights, most>(in, stride, inputs, block, piece, sums);
  } else if constexpr (most > 1) {
    float_rows<kind, weights, most - 1>(in, stride, inputs, block, piece, sums, rows);
  }
}

// Writes to sums[row][block] the products of a panel's rows, in tiles of about equal size.
template <int kind>
static void float_panel(const float* in, size_t stride, int inputs, const uint8_t* const* block,
                        Floats (*sums)[2], int rows) {
  Piece piece;
  if (rows <= kFloatRowTile) {
    return float_rows<kind, Weights::kRead>(in, stride, inputs, block, piece, sums, rows);
  }
  const int tiles = (rows + kFloatRowTile - 1) / kFloatRowTile;
  const int most = (rows + tiles - 1) / tiles;
  for (int row = 0; row < rows; ++row) sums[row][0] = sums[row][1] = zeros();
  const size_t piece_bytes = kPiece * kBlock * (kind == SLICE_F32 ? 4 : 2);
  const uint8_t* from[2] = {block[0], block[1]};
  for (int start = 0; start < inputs; start += kPiece) {
    const int count = inputs - start < kPiece ? inputs - start : kPiece;
    float_rows<kind, Weights::kKeep>(in + start, stride, count, from, piece, sums, most);
    for (int row = most; row < rows; row += most) {
      float_rows<SLICE_F32, Weights::kKept>(in + row * stride + start, stride, count, from, piece,
                                            sums + row, rows - row < most ? rows - row : most);
    }
    from[0] += piece_bytes;
    from[1] += piece_bytes;
  }
}

template <int kind>
static void float_unit(const MatmulJob& job, const uint8_t* const* block, int unit) {
  const size_t stride = static_cast<size_t>(job.in->value_stride);
  const int inputs = job.matrix->inputs;
  for (int first = 0; first < job.in->rows; first += kFloatPanel) {
    const int rows = job.in->rows - first < kFloatPanel ? job.in->rows - first : kFloatPanel;
    const float* in = job.in->values + static_cast<size_t>(first) * stride;
    Floats sums[kFloatPanel][2];
    float_panel<kind>(in, stride, inputs, block, sums, rows);
    store_tile(job, first, rows, unit, sums);
  }
}

}  // namespace slice::SLICE_ISA
