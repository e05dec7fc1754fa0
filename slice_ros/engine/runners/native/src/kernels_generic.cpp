// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The portable kernels for the default target: SSE2 on x86-64, NEON on aarch64.

#include "kernels.hpp"

#define SLICE_ISA generic
#include "simd_generic.hpp"

#include "attention.hpp"
#include "delta_rule.hpp"
#include "dots.hpp"
#include "limits.hpp"
#include "mamba.hpp"
#include "matmul.hpp"
#include "rows.hpp"

namespace slice {

const Kernels* generic_kernels() {
  static constexpr Kernels table = {generic::matmul, generic::rms_norm, generic::layer_norm,
                                    generic::quantize, generic::rotate, generic::to_half,
                                    generic::to_codes,
                                    generic::attend, generic::softcap, generic::delta_rule,
                                    generic::mamba_convolve, generic::mamba_advance,
                                    generic::mamba_gate,
                                    generic::gate, generic::arg_max, generic::multiply,
                                    generic::read};
  return &table;
}

}  // namespace slice
