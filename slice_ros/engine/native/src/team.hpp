// A team of threads that walk through a step together, phase by phase.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace slice {

// One step has some 250 phases of a few microseconds, so a phase ends in a spinning barrier rather
// than in the kernel. Between steps, and when a barrier takes long because another process has the
// core, threads sleep: a robot's processor is not ours to burn.
class Team {
 public:
  // A function every thread of the team runs; `member` is 0 for the caller.
  using Work = void (*)(void* context, int member);

  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // Runs work on every thread and returns when all are done. One caller at a time.
  void run(Work work, void* context);

  // Inside work, called by every member alike: hands out [0, count) in pieces of `piece` to whoever
  // is free, and returns when all of it is done. task(begin, end) is called for each piece.
  template <typename Task>
  void share(int count, int piece, const Task& task) {
    for (;;) {
      const int begin = next_.fetch_add(piece, std::memory_order_relaxed);
      if (begin >= count) break;
      task(begin, begin + piece < count ? begin + piece : count);
    }
    barrier();
  }

 private:
  void barrier();
  void serve(int member);

  const int size_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  // Each on its own cache line: they are written by everybody at different moments.
  alignas(64) std::atomic<int> next_{0};
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<uint32_t> job_{0};
  std::vector<std::thread> threads_;
};

}  // namespace slice
