// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// exp and the sigmoid linear unit on 16 lanes. Included after a simd header, once for each
// instruction set (SLICE_ISA).
#pragma once

#include <algorithm>

namespace slice::SLICE_ISA {

// Adding 1.5 * 2^23 puts the nearest whole number of a float into its lowest bits.
constexpr float kRounder = 12582912.0f;
constexpr int32_t kRounderBits = 0x4b400000;

// Nearest whole number, ties to even, for |v| < 2^22.
SLICE_INLINE Ints rounded(Floats v) {
  return add_ints(bits_of(add(v, all(kRounder))), all_ints(-kRounderBits));
}

// exp(x) = 2^n exp(r) with |r| <= ln(2) / 2 and the Taylor polynomial of degree 7 for exp(r):
// relative error below 3e-7. x is clamped to [-87, 88], where the result is a normal number.
SLICE_INLINE Floats exp_of(Floats x) {
  x = min(max(x, all(-87.0f)), all(88.0f));
  const Ints n = rounded(mul(x, all(1.44269504f)));
  const Floats whole = to_floats(n);
  // ln(2) in two parts; the first has so few bits that n times it is exact.
  Floats r = fma(whole, all(-0.693359375f), x);
  r = fma(whole, all(2.12194440e-4f), r);
  Floats p = all(1.0f / 5040);
  p = fma(p, r, all(1.0f / 720));
  p = fma(p, r, all(1.0f / 120));
  p = fma(p, r, all(1.0f / 24));
  p = fma(p, r, all(1.0f / 6));
  p = fma(p, r, all(0.5f));
  p = fma(p, r, all(1.0f));
  p = fma(p, r, all(1.0f));
  return mul(p, from_bits(shift_to_exponent(add_ints(n, all_ints(127)))));
}

SLICE_INLINE Floats silu(Floats x) {
  return div(x, add(all(1.0f), exp_of(sub(zeros(), x))));
}

// x / 2 * (1 + tanh(u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3), which is x * sigmoid(2 u).
SLICE_INLINE Floats gelu(Floats x) {
  const Floats cubed = mul(mul(x, x), x);
  const Floats u = mul(fma(cubed, all(0.044715f), x), all(1.5957691216f));
  return div(x, add(all(1.0f), exp_of(sub(zeros(), u))));
}

// min(gate, limit) * sigmoid(scale * min(gate, limit)) * (1 + up), up from -limit to limit.
SLICE_INLINE Floats clamped(Floats gate, Floats up, float scale, float limit) {
  gate = min(gate, all(limit));
  up = min(max(up, all(-limit)), all(limit));
  const Floats open = add(all(1.0f), exp_of(mul(gate, all(-scale))));
  return mul(div(gate, open), add(up, all(1.0f)));
}

// cap * tanh(x / cap), from tanh(y) = 1 - 2 / (exp(2 y) + 1).
SLICE_INLINE Floats capped(Floats x, Floats cap) {
  const Floats e = exp_of(mul(div(x, cap), all(2.0f)));
  return mul(cap, sub(all(1.0f), div(all(2.0f), add(e, all(1.0f)))));
}

}  // namespace slice::SLICE_ISA
