// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The portable kernels compiled for AVX2, FMA and F16C, with dot products of four bytes (AVX-VNNI).

#include "kernels.hpp"

#if defined(__AVXVNNI__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define SLICE_ISA avxvnni
#define SLICE_VNNI _mm256_dpbusd_avx_epi32
#include "simd_generic.hpp"

#include "attention.hpp"
#include "delta_rule.hpp"
#include "dots.hpp"
#include "limits.hpp"
#include "mamba.hpp"
#include "matmul.hpp"
#include "rows.hpp"

namespace slice {

const Kernels* avxvnni_kernels() {
  static constexpr Kernels table = {avxvnni::matmul, avxvnni::rms_norm, avxvnni::layer_norm,
                                    avxvnni::quantize, avxvnni::rotate, avxvnni::to_half,
                                    avxvnni::to_codes,
                                    avxvnni::attend, avxvnni::softcap, avxvnni::delta_rule,
                                    avxvnni::mamba_convolve, avxvnni::mamba_advance,
                                    avxvnni::mamba_gate,
                                    avxvnni::gate, avxvnni::arg_max, avxvnni::multiply,
                                    avxvnni::read};
  return &table;
}

}  // namespace slice

#else  // another processor, or a compiler without these instructions

namespace slice {
const Kernels* avxvnni_kernels() { return nullptr; }
}  // namespace slice

#endif
