// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Measures what limits the kernels on this machine, on a team of threads as a step has.

#include <algorithm>
#include <chrono>
#include <exception>

#include "kernels.hpp"
#include "team.hpp"

namespace {

constexpr int kMaxThreads = 256;
constexpr int kTries = 5;            // of which the quickest counts
constexpr int kItems = 64;           // of each thread
constexpr int kRounds = 10'000;      // of an item: some 50 us, so that a late thread costs little
constexpr int64_t kBytes = 1 << 16;  // of an item

template <typename Task>
struct Job {
  slice::Team team;
  int count;
  const Task& task;
};

// Returns `amount` per second of all tasks 0 .. count - 1 together, or a SliceError.
template <typename Task>
int64_t rate(int64_t amount, int threads, int count, const Task& task) {
  using Clock = std::chrono::steady_clock;
  // An exception must not cross the C interface; memory or threads may run out.
  try {
    Job<Task> job{{threads, 1}, count, task};
    auto best = Clock::duration::max();
    for (int i = 0; i < kTries; ++i) {
      job.team.settle();
      const Clock::time_point begin = Clock::now();
      job.team.run(
          [](void* context, slice::Team::Member& member) {
            auto& shared = *static_cast<Job<Task>*>(context);
            shared.team.share(member, shared.count, shared.task);
          },
          &job);
      best = std::min(best, Clock::now() - begin);
    }
    return static_cast<int64_t>(static_cast<double>(amount) /
                                std::chrono::duration<double>(best).count());
  } catch (const std::exception&) {
    return SLICE_BAD_ARGUMENT;
  }
}

}  // namespace

int64_t slice_peak(int32_t isa, int32_t kind, int32_t threads) {
  const slice::Kernels* kernels = slice::kernels_for(isa);
  if (!kernels || kind < SLICE_F32 || kind > SLICE_Q4 || threads < 1 || threads > kMaxThreads) {
    return SLICE_BAD_ARGUMENT;
  }
  alignas(64) uint8_t ones[64];
  std::fill_n(ones, 64, uint8_t{1});
  const int count = threads * kItems;
  return rate(kernels->multiply(kind, ones, 1) * kRounds * count, threads, count,
              [&](int) { kernels->multiply(kind, ones, kRounds); });
}

int64_t slice_read_rate(int32_t isa, int32_t threads, const uint8_t* data, int64_t bytes) {
  const slice::Kernels* kernels = slice::kernels_for(isa);
  const int64_t count = bytes / kBytes;
  if (!kernels || !data || count < 1 || count > INT32_MAX || threads < 1 ||
      threads > kMaxThreads) {
    return SLICE_BAD_ARGUMENT;
  }
  return rate(count * kBytes, threads, static_cast<int>(count),
              [&](int item) { kernels->read(data + item * kBytes, kBytes); });
}
