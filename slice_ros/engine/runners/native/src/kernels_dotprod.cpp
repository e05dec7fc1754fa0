// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The portable kernels compiled for 64 bit ARM with 8 bit dot products (ARMv8.2 DotProd).

#include "kernels.hpp"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#define SLICE_ISA dotprod
#include "simd_generic.hpp"

#include "attention.hpp"
#include "delta_rule.hpp"
#include "dots.hpp"
#include "limits.hpp"
#include "mamba.hpp"
#include "matmul.hpp"
#include "rows.hpp"

namespace slice {

const Kernels* dotprod_kernels() {
  static constexpr Kernels table = {dotprod::matmul, dotprod::rms_norm, dotprod::layer_norm,
                                    dotprod::quantize, dotprod::rotate, dotprod::to_half,
                                    dotprod::to_codes,
                                    dotprod::attend, dotprod::softcap, dotprod::delta_rule,
                                    dotprod::mamba_convolve, dotprod::mamba_advance,
                                    dotprod::mamba_gate,
                                    dotprod::gate, dotprod::arg_max, dotprod::multiply,
                                    dotprod::read};
  return &table;
}

}  // namespace slice

#else  // another processor, or a compiler without these instructions

namespace slice {
const Kernels* dotprod_kernels() { return nullptr; }
}  // namespace slice

#endif
