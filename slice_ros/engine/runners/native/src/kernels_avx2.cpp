// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The portable kernels compiled for AVX2, FMA and F16C.

#include "kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define SLICE_ISA avx2
#include "simd_generic.hpp"

#include "attention.hpp"
#include "delta_rule.hpp"
#include "dots_avx2.hpp"
#include "limits.hpp"
#include "mamba.hpp"
#include "matmul.hpp"
#include "rows.hpp"

namespace slice {

const Kernels* avx2_kernels() {
  static constexpr Kernels table = {avx2::matmul, avx2::rms_norm, avx2::layer_norm,
                                    avx2::quantize, avx2::rotate, avx2::to_half,
                                    avx2::to_codes,
                                    avx2::attend, avx2::softcap, avx2::delta_rule,
                                    avx2::mamba_convolve, avx2::mamba_advance,
                                    avx2::mamba_gate,
                                    avx2::gate, avx2::arg_max, avx2::multiply,
                                    avx2::read};
  return &table;
}

}  // namespace slice

#else  // another processor, or a compiler without these instructions

namespace slice {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace slice

#endif
