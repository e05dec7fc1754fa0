// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// What limits the kernels: multiply-adds out of registers, and reading memory.
// Included after dots.hpp, or what replaces it, once for each instruction set (SLICE_ISA).
#pragma once

#include "kernels.hpp"
#include "tile.hpp"

namespace slice::SLICE_ISA {

// Independent sums, so that no multiply-add waits for the one before it.
template <typename Sum, typename Operand, typename Add>
SLICE_INLINE void add_rounds(const Sum& zero, Operand operand, int rounds, const Add& add) {
  Sum sums[kPeakSums];
#pragma GCC unroll 16
  for (int i = 0; i < kPeakSums; ++i) sums[i] = zero;
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kPeakSums; ++i) {
      opaque(operand);
      sums[i] = add(sums[i], operand);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPeakSums; ++i) opaque(sums[i]);
}

static int64_t multiply(int kind, const uint8_t* operands, int rounds) {
  const int64_t vectors = int64_t{rounds} * kPeakSums;
  if (kind != SLICE_Q8 && kind != SLICE_Q4) {
    const Floats value = all(static_cast<float>(operands[0]));
    add_rounds(zeros(), value, rounds, [value](const Floats& sum, const Floats& operand) {
      return fma(value, operand, sum);
    });
    return vectors * 16;
  }
  const int8_t* in = reinterpret_cast<const int8_t*>(operands);
  add_rounds(all_ints(0), load_codes(operands), rounds, [in](const Ints& sum, const Codes& codes) {
    return add_codes(sum, codes, in);
  });
  return vectors * (kind == SLICE_Q8 ? kCodeProducts<SLICE_Q8> : kCodeProducts<SLICE_Q4>);
}

static void read(const uint8_t* data, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) {
    prefetch(data + at + kAhead);
    Codes codes = load_codes(data + at);
    opaque(codes);
  }
}

}  // namespace slice::SLICE_ISA
