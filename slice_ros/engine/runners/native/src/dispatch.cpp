// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Which kernels this machine can run.

#include "kernels.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace slice {
namespace {

// From the best one.
constexpr int kIsas[] = {SLICE_AVX512, SLICE_AVXVNNI, SLICE_AVX2,
                         SLICE_I8MM,   SLICE_DOTPROD, SLICE_GENERIC};

#if defined(__x86_64__) || defined(__i386__)
// Intel from the 12th generation on, AMD from Zen 5 on; older compilers do not know its name.
bool has_avxvnni() {
  unsigned eax = 0, ebx, ecx, edx;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1u << 4) != 0;
}
#endif

#if defined(__aarch64__) && defined(__linux__)
constexpr uint64_t kHwcap2I8mm = 1u << 13;  // headers before Linux 5.10 do not name it
#endif

bool machine_has(int isa) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  switch (isa) {
    case SLICE_AVX512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
    case SLICE_AVXVNNI:
      return avx2 && has_avxvnni();
    case SLICE_AVX2:
      return avx2;  // every processor with AVX2 converts 16 bit floats too
    default:
      return isa == SLICE_GENERIC;
  }
#elif defined(__aarch64__) && defined(__linux__)
  const bool dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  switch (isa) {
    case SLICE_I8MM:
      return dotprod && (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
    case SLICE_DOTPROD:
      return dotprod;
    default:
      return isa == SLICE_GENERIC;
  }
#else
  return isa == SLICE_GENERIC;
#endif
}

const Kernels* built(int isa) {
  switch (isa) {
    case SLICE_AVX512:
      return avx512_kernels();
    case SLICE_AVXVNNI:
      return avxvnni_kernels();
    case SLICE_AVX2:
      return avx2_kernels();
    case SLICE_I8MM:
      return i8mm_kernels();
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
  for (const int best : kIsas) {
    if (machine_has(best) && built(best)) return built(best);
  }
  return nullptr;  // not reached: the portable kernels are always there
}

}  // namespace slice

int32_t slice_isa(int32_t wanted) {
  const slice::Kernels* kernels = slice::kernels_for(wanted);
  if (!kernels) return -1;
  for (const int isa : slice::kIsas) {
    if (kernels == slice::built(isa)) return isa;
  }
  return -1;
}

const char* slice_isa_name(int32_t isa) {
  switch (isa) {
    case SLICE_AVX512:
      return "AVX-512 VNNI";
    case SLICE_AVXVNNI:
      return "AVX-VNNI";
    case SLICE_AVX2:
      return "AVX2";
    case SLICE_I8MM:
      return "NEON I8MM";
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
