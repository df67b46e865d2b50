// Where threads wait for one another: barriers of blocks and of clusters, operations of warps.
#include <cstring>

#include "async_order.h"
#include "bank_log.h"
#include "machine.h"

namespace suder::emulator {
namespace {

std::string who(unsigned thread) {
  const unsigned threads = machine.position.block_threads;
  return "thread " + std::to_string(thread % threads) + ", block " +
         std::to_string(machine.blocks[thread / threads].number);
}

// Is the calling thread the last one of [first, first + threads) to come? The others wait.
bool last_to_come(unsigned first, unsigned threads, State state, unsigned& waiting, Site site) {
  for (unsigned i = first; i < first + threads; ++i) {
    const Thread& other = machine.threads[i];
    if (other.state == state && other.site.line() != site.line()) {
      fail("divergent barrier: " + who(i) + " waits at " + place(other.site) + " and this one",
           site);
    }
    if (other.state == state) break;  // those waiting agree with one another
  }
  if (++waiting < threads) {
    give_way(state, site);
    return false;
  }
  waiting = 0;
  async_order::join(first, threads);
  for (unsigned i = first; i < first + threads; i += kWarp) bank_log::end_interval(i / kWarp);
  for (unsigned i = first; i < first + threads; ++i) machine.threads[i].state = State::kReady;
  return true;
}

}  // namespace

std::string place(const Site& site) {
  const char* name = std::strrchr(site.file_name(), '/');
  return std::string(name ? name + 1 : site.file_name()) + ":" + std::to_string(site.line());
}

void give_way(State state, Site site) {
  Thread& self = machine.current();
  self.state = state;
  self.site = site;
  self.fiber->leave();
}

void fail(const std::string& message, Site site) {
  machine.error = message + " at " + place(site) + " (" + who(machine.position.thread) + ")";
  for (;;) give_way(State::kDone, site);
}

void wait_until(const std::function<bool()>& ready, Site site) {
  machine.current().ready = &ready;
  give_way(State::kWaiting, site);
}

void sync_block(Site site) {
  Block& block = machine.block();
  const unsigned threads = machine.position.block_threads;
  const unsigned first = machine.position.rank * threads;
  if (!last_to_come(first, threads, State::kAtBarrier, block.at_barrier, site)) return;
  machine.position.block_interval = block.interval = ++machine.intervals;
}

void sync_cluster(Site site) {
  unsigned& waiting = machine.at_cluster_barrier;
  if (!last_to_come(0, machine.cluster_threads, State::kAtClusterBarrier, waiting, site)) return;
  ++machine.intervals;
  for (Block& block : machine.blocks) block.interval = machine.intervals;
  machine.position.block_interval = machine.position.cluster_interval = machine.intervals;
}

void sync_warp(unsigned mask, WarpOp op, void* payload, void (*combine)(void* const*), Site site) {
  const unsigned lane = machine.position.thread % kWarp, first = machine.position.warp * kWarp;
  Warp& warp = machine.warps[machine.position.warp];
  if (!(mask >> lane & 1)) fail("a warp operation whose mask leaves out the calling lane", site);
  std::size_t slot = 0;
  while (slot < warp.pending.size() && warp.pending[slot].mask != mask) ++slot;
  if (slot == warp.pending.size()) {
    warp.pending.emplace_back();
    warp.pending[slot].mask = mask;
    warp.pending[slot].op = op;
    warp.pending[slot].site = site;
  }
  PendingWarpOp& pending = warp.pending[slot];
  if (pending.op != op || pending.site.line() != site.line()) {
    fail("divergent warp operation: other lanes wait at " + place(pending.site) + " and this one",
         site);
  }
  pending.payloads[lane] = payload;
  pending.arrived |= 1u << lane;
  if (pending.arrived != mask) {
    give_way(State::kAtWarpOp, site);
    return;
  }
  if (combine) combine(pending.payloads);
  if (mask == 0xFFFFFFFFu) bank_log::end_interval(machine.position.warp);
  if (op == WarpOp::kSync) {
    machine.position.warp_interval = ++warp.interval;
    async_order::join_warp(machine.position.warp, mask);
  }
  warp.pending.erase(warp.pending.begin() + static_cast<std::ptrdiff_t>(slot));
  for (unsigned i = 0; i < kWarp; ++i) {
    if (mask >> i & 1) machine.threads[first + i].state = State::kReady;
  }
}

std::string describe_stuck_cluster() {
  const struct {
    State state;
    const char *before, *after;
  } reasons[] = {
      {State::kWaiting, "deadlock: nothing can end the wait at ", ""},
      {State::kAtWarpOp, "divergent warp operation at ", ": lanes named in its mask never came"},
      {State::kAtBarrier, "divergent barrier at ", ": others of the block never came"},
      {State::kAtClusterBarrier, "divergent barrier at ", ": others of the cluster never came"},
  };
  for (const auto& reason : reasons) {
    for (unsigned i = 0; i < machine.cluster_threads; ++i) {
      const Thread& thread = machine.threads[i];
      if (thread.state != reason.state) continue;
      return reason.before + place(thread.site) + reason.after + " (" + who(i) + ")";
    }
  }
  return "no thread can run";
}

}  // namespace suder::emulator
