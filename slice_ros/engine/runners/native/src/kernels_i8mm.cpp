// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The portable kernels compiled for 64 bit ARM with products of 8 bit matrices (I8MM).

#include "kernels.hpp"

#if defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)

#define SLICE_ISA i8mm
#include "simd_generic.hpp"

#include "attention.hpp"
#include "delta_rule.hpp"
#include "dots_i8mm.hpp"
#include "limits.hpp"
#include "mamba.hpp"
#include "matmul.hpp"
#include "rows.hpp"

namespace slice {

const Kernels* i8mm_kernels() {
  static constexpr Kernels table = {i8mm::matmul, i8mm::rms_norm, i8mm::layer_norm,
                                    i8mm::quantize, i8mm::rotate, i8mm::to_half,
                                    i8mm::to_codes,
                                    i8mm::attend, i8mm::softcap, i8mm::delta_rule,
                                    i8mm::mamba_convolve, i8mm::mamba_advance,
                                    i8mm::mamba_gate,
                                    i8mm::gate, i8mm::arg_max, i8mm::multiply,
                                    i8mm::read};
  return &table;
}

}  // namespace slice

#else  // another processor, or a compiler without these instructions

namespace slice {
const Kernels* i8mm_kernels() { return nullptr; }
}  // namespace slice

#endif
