#include "team.hpp"

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

// Waits until value differs from old: some tens of microseconds awake, then asleep.
void await_change(const std::atomic<uint32_t>& value, uint32_t old) {
  constexpr int kSpins = 2000;
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

Team::Team(int threads) : size_(threads) {
  for (int member = 1; member < size_; ++member) {
    threads_.emplace_back([this, member] { serve(member); });
  }
}

Team::~Team() {
  stop_ = true;
  job_.fetch_add(1, std::memory_order_release);
  job_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::run(Work work, void* context) {
  work_ = work;
  context_ = context;
  job_.fetch_add(1, std::memory_order_release);
  job_.notify_all();
  work(context, 0);
  barrier();
}

void Team::serve(int member) {
  uint32_t seen = 0;
  for (;;) {
    await_change(job_, seen);
    seen = job_.load(std::memory_order_acquire);
    if (stop_) return;
    work_(context_, member);
    barrier();
  }
}

void Team::barrier() {
  if (size_ == 1) {
    next_.store(0, std::memory_order_relaxed);
    return;
  }
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    arrived_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  await_change(phase_, phase);
}

}  // namespace slice
