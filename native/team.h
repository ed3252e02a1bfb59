// Threads for one call: they share out numbered pieces of work, and whoever ends the last of a phase
// does the serial step behind it. A phase waits for its pieces, not for threads: one that got no
// processor holds nobody up. Nothing outlives the call, so forks and others' threads are safe.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace stapes {

class Team {
 public:
  class Member {
   public:
    Member(Team& team, int number) : index(number), team_(team) {}

    // Every member calls this with the same work; returns when all of it and `serial` are done.
    template <class Work, class Serial>
    void phase(int count, Work&& work, Serial&& serial) {
      team_.phase(phase_++, count, work, serial);
    }

    const int index;

   private:
    Team& team_;
    uint32_t phase_ = 0;
  };

  // Calls body(member) on n_threads threads, this one among them, or on as many as there can be.
  template <class Body>
  static void run(int n_threads, Body&& body) {
    Team team;
    const auto take_part = [&](int index) {
      Member member(team, index);
      body(member);
    };
    std::vector<std::thread> others;
    try {
      others.reserve(n_threads);
      for (int i = 1; i < n_threads; i++) others.emplace_back(take_part, i);
    } catch (const std::exception&) {
    }
    take_part(0);
    for (auto& thread : others) thread.join();
  }

 private:
  template <class Work, class Serial>
  void phase(uint32_t number, int count, Work&& work, Serial&& serial) {
    const uint32_t pieces = std::max(count, 1);  // somebody does the serial step even of nothing
    uint64_t next = next_.load(std::memory_order_acquire);
    while (next >> 32 == number && static_cast<uint32_t>(next) < pieces) {
      if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acquire)) continue;
      if (count > 0) work(static_cast<int>(static_cast<uint32_t>(next)));
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces) {
        serial();
        done_ = 0;
        next_.store(uint64_t(number + 1) << 32, std::memory_order_release);
        return;
      }
      next = next_.load(std::memory_order_acquire);
    }
    // Pieces are well under a millisecond: wait awake, but give way where cores are short.
    for (int spins = 0; next_.load(std::memory_order_acquire) >> 32 == number; spins++)
      if (spins > 1000) std::this_thread::yield();
  }

  std::atomic<uint64_t> next_{0};  // the phase, and in the lower half its next piece
  std::atomic<uint32_t> done_{0};
};

}  // namespace stapes
