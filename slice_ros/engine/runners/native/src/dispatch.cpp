// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Which kernels this machine can run.

#include "kernels.hpp"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace slice {
namespace {

bool machine_has(int isa) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  switch (isa) {
    case SLICE_AVX512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
    case SLICE_AVX2:
      return avx2;  // every processor with AVX2 converts 16 bit floats too
    default:
      return isa == SLICE_GENERIC;
  }
#elif defined(__aarch64__) && defined(__linux__)
  return isa == SLICE_GENERIC ||
         (isa == SLICE_DOTPROD && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0);
#else
  return isa == SLICE_GENERIC;
#endif
}

const Kernels* built(int isa) {
  switch (isa) {
    case SLICE_AVX512:
      return avx512_kernels();
    case SLICE_AVX2:
      return avx2_kernels();
    case SLICE_DOTPROD:
      return dotprod_kernels();
    case SLICE_GENERIC:
      return generic_kernels();
    default:
      return nullptr;
  }
}

}  // namespace

const Kernels* kernels_for(int isa) {
  if (isa != SLICE_BEST) return machine_has(isa) ? built(isa) : nullptr;
  for (int best = SLICE_DOTPROD; best > SLICE_GENERIC; --best) {
    if (machine_has(best) && built(best)) return built(best);
  }
  return generic_kernels();
}

}  // namespace slice

int32_t slice_isa(int32_t wanted) {
  const slice::Kernels* kernels = slice::kernels_for(wanted);
  if (!kernels) return -1;
  for (int isa = SLICE_DOTPROD; isa > SLICE_GENERIC; --isa) {
    if (kernels == slice::built(isa)) return isa;
  }
  return SLICE_GENERIC;
}

const char* slice_isa_name(int32_t isa) {
  switch (isa) {
    case SLICE_AVX512:
      return "AVX-512 VNNI";
    case SLICE_AVX2:
      return "AVX2";
    case SLICE_DOTPROD:
      return "NEON dot product";
#if defined(__aarch64__)
    case SLICE_GENERIC:
      return "NEON";
#else
    case SLICE_GENERIC:
      return "portable";
#endif
    default:
      return "unknown";
  }
}
