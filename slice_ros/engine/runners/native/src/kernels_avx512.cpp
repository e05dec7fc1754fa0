// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The kernels for AVX-512 with 8 bit dot products (VNNI).

#include "kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512VNNI__)

#define SLICE_ISA avx512
#include "simd_avx512.hpp"

#include "attention.hpp"
#include "delta_rule.hpp"
#include "dots.hpp"
#include "limits.hpp"
#include "mamba.hpp"
#include "matmul.hpp"
#include "rows.hpp"

namespace slice {

const Kernels* avx512_kernels() {
  static constexpr Kernels table = {avx512::matmul, avx512::rms_norm, avx512::layer_norm,
                                    avx512::quantize, avx512::rotate, avx512::to_half,
                                    avx512::to_codes,
                                    avx512::attend, avx512::softcap, avx512::delta_rule,
                                    avx512::mamba_convolve, avx512::mamba_advance,
                                    avx512::mamba_gate,
                                    avx512::gate, avx512::arg_max, avx512::multiply,
                                    avx512::read};
  return &table;
}

}  // namespace slice

#else  // another processor, or a compiler without these instructions

namespace slice {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace slice

#endif
