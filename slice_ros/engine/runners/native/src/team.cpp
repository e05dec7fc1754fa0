// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
#include "team.hpp"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace slice {
namespace {

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until reached(value): spins for some tens of microseconds, then sleeps until notified.
template <typename Reached>
void await(const std::atomic<int>& value, const Reached& reached) {
  constexpr int kSpins = 2000;
  for (int spin = 0; spin < kSpins; ++spin) {
    if (reached(value.load(std::memory_order_acquire))) return;
    relax();
  }
  for (int seen = value.load(); !reached(seen); seen = value.load()) value.wait(seen);
}

}  // namespace

void give_way() {
  using Clock = std::chrono::steady_clock;
  using std::chrono::nanoseconds;
  constexpr nanoseconds kEvery{50'000};
  constexpr int kShare = 2;                // one part in kShare of the time
  constexpr nanoseconds kMost{4'000'000};  // most time that may be accumulated for yielding
  thread_local nanoseconds credit{0};
  thread_local Clock::time_point last = Clock::now();
  const Clock::time_point now = Clock::now();
  if (now - last < kEvery) return;
  credit = std::min(credit + nanoseconds(now - last) / kShare, kMost);
  last = now;
  if (credit < nanoseconds{0}) return;
  std::this_thread::yield();
  last = Clock::now();
  credit -= last - now;
}

Team::Team(int threads, int phases)
    : phase_count_(phases), phases_(new Phase[phases]), parts_(new Part[phases * threads]) {
  for (int index = 1; index < threads; ++index) {
    threads_.emplace_back([this, index] { serve(index); });
  }
}

Team::~Team() {
  settle();
  stop_.store(true);
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::settle() {
  await(inside_, [](int inside) { return inside == 0; });
}

void Team::run(Work work, void* context) {
  settle();
  for (int i = 0; i < phase_count_; ++i) {
    phases_[i].done.store(0, std::memory_order_relaxed);
  }
  for (int i = 0; i < phase_count_ * size(); ++i) {
    parts_[i].taken.store(0, std::memory_order_relaxed);
  }
  work_ = work;
  context_ = context;
  open_.store(true);
  job_.fetch_add(1);
  job_.notify_all();
  Member caller{0, 0};
  work(context, caller);
  open_.store(false);
}

void Team::serve(int index) {
  for (int seen = 0;;) {
    await(job_, [seen](int job) { return job != seen; });
    seen = job_.load();
    if (stop_.load()) return;
    // inside_ is raised before open_ is read, both sequentially consistent: either this thread
    // sees the job closed, or settle() sees this thread inside.
    inside_.fetch_add(1);
    if (open_.load()) {
      Member member{index, 0};
      work_(context_, member);
    }
    inside_.fetch_sub(1);
    inside_.notify_all();
  }
}

void Team::finish(Phase& phase, int mine, int count) {
  const bool last =
      mine > 0 && phase.done.fetch_add(mine, std::memory_order_acq_rel) + mine == count;
  if (last) phase.done.notify_all();
  give_way();
  if (last) return;
  await(phase.done, [count](int done) { return done >= count; });
}

}  // namespace slice
