// The problem that fused_topk.cu solves, what the rules of logit_rules.py allow, and rows of logits as aligned groups.
#pragma once
#include <climits>
#include <cmath>
#include <cstdint>

#include "device.cuh"

namespace {

constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;
constexpr int TEXT = 0, STAMP = 1;
constexpr uint8_t NEVER = 1, NOT_FIRST = 2;  // as in logit_rules.py

struct Problem {
  const void* logits;        // [N, V], `stride` elements from row to row
  const int64_t* history;    // [B, length]
  const int64_t* positions;  // [N]
  const int64_t* begin;      // [B]
  const uint8_t* banned;     // [V], aligned to 8 bytes
  const int64_t* forced;     // [length]
  int64_t* ids;              // [N, k]
  float* logprobs;           // [N, k]
  float* logsumexp;          // [N]
  int64_t stride;
  int vocabulary, queries, length, k, end, timestamp_begin, max_initial_timestamp;
};

// Tokens that may follow: text from `text_low` on, timestamps from `low` to `high`, none with a flag of
// `flags`; or only `forced`, unless it is -1.
struct Limits {
  int text_low, low, high;
  uint8_t flags;
  int64_t forced;
};

// The rules of logit_rules.py. All threads of the block call it.
__device__ Limits find_limits(const Problem& p, int query) {
  constexpr int HELD = 2;  // tokens of history a thread asks for before it knows position
  __shared__ int latest_of_warp[WARPS];
  const int row = query / p.queries, begin = static_cast<int>(p.begin[row]);
  const int64_t* said = p.history + static_cast<int64_t>(row) * p.length;
  const int64_t asked = p.positions[query];
  const bool stamps = p.timestamp_begin >= 0;
  int64_t held[HELD];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int index = threadIdx.x + i * THREADS;
    held[i] = stamps && index < p.length ? said[index] : -1;
  }
  const int position = static_cast<int>(min(asked, static_cast<int64_t>(p.length - 1)));
  const bool first = position + 1 == begin;
  Limits limits{0, 0, INT_MAX, static_cast<uint8_t>(first ? NEVER | NOT_FIRST : NEVER), -1};
  if (position + 1 < p.length) limits.forced = p.forced[position + 1];
  if (!stamps) return limits;

  const bool stamp_before = position - begin < 1 || said[position - 1] >= p.timestamp_begin;
  int latest = -1;
  const auto look = [&](int index, int64_t token) {
    if (token >= p.timestamp_begin && index >= begin && index <= position) latest = index;
  };
#pragma unroll
  for (int i = 0; i < HELD; ++i) look(threadIdx.x + i * THREADS, held[i]);
  for (int index = threadIdx.x + HELD * THREADS; index < p.length; index += THREADS) look(index, said[index]);
  latest = __reduce_max_sync(device::kAllLanes, latest);
  if (threadIdx.x % 32 == 0) latest_of_warp[threadIdx.x / 32] = latest;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < WARPS; ++warp) latest = max(latest, latest_of_warp[warp]);

  const bool stamp_last = latest >= 0 && latest == position;
  const bool alone = stamp_last && !stamp_before;  // its partner or the end has to follow
  limits.text_low = first ? p.timestamp_begin : alone ? p.end : 0;
  if (latest >= 0) limits.low = static_cast<int>(said[latest]) + (alone ? 0 : 1);
  if (stamp_last && stamp_before) limits.low = INT_MAX;
  if (first && p.max_initial_timestamp >= 0) limits.high = p.timestamp_begin + p.max_initial_timestamp;
  return limits;
}

// A row as groups of 16 aligned bytes, first those with text, then those with timestamps: the group that has
// both stands in both. `skew`: how many elements the row begins behind such a boundary.
template <typename T>
struct Row {
  static constexpr int EACH = 16 / sizeof(T);
  const T* logits;
  int skew, text_end, text_groups, groups;

  __device__ Row(const Problem& p, int query) {
    logits = static_cast<const T*>(p.logits) + query * p.stride;
    skew = static_cast<int>(reinterpret_cast<uintptr_t>(logits) % 16 / sizeof(T));
    const bool stamps = p.timestamp_begin >= 0;
    text_end = stamps ? p.timestamp_begin : p.vocabulary;
    text_groups = (text_end + skew + EACH - 1) / EACH;
    const int all = (p.vocabulary + skew + EACH - 1) / EACH;
    groups = stamps ? text_groups + all - (text_end + skew) / EACH : text_groups;
  }
  __device__ int kind(int group) const { return group < text_groups ? TEXT : STAMP; }
  // Id of the first token of a group; negative at the beginning of a row with skew.
  __device__ int start(int group) const {
    if (kind(group) == STAMP) group += (text_end + skew) / EACH - text_groups;
    return group * EACH - skew;
  }
};

// The logits and flags of one group on their way from memory. Nothing is computed from a whole group here: a warp
// that waits for one load doesn't issue the next.
template <typename T>
struct Group {
  static constexpr int EACH = Row<T>::EACH;
  alignas(16) T logits[EACH];
  uint64_t word, next_word;  // the group's flags, one byte each, begin `shift` bits behind the first of word
  int shift;

  __device__ void load(const Problem& p, const Row<T>& row, int group) {
    word = next_word = 0;
    shift = 0;
    const int start = row.start(group);
    const int low = row.kind(group) == TEXT ? 0 : row.text_end;
    const int high = row.kind(group) == TEXT ? row.text_end : p.vocabulary;
    const int index = start >> 3, last = (start + EACH - 1) >> 3;
    if (start >= low && start + EACH <= high && (last + 1) * 8 <= p.vocabulary) {
      *reinterpret_cast<uint4*>(logits) = *reinterpret_cast<const uint4*>(row.logits + start);
      const uint64_t* words = reinterpret_cast<const uint64_t*>(p.banned);
      shift = (start & 7) * 8;
      word = words[index];
      if (last > index) next_word = words[last];
      return;
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const bool inside = start + i >= low && start + i < high;
      logits[i] = inside ? row.logits[start + i] : T(-INFINITY);
      if (inside) word |= static_cast<uint64_t>(p.banned[start + i]) << (8 * i);
    }
  }
  __device__ uint64_t flags() const { return word >> shift | (shift > 0 ? next_word << (64 - shift) : 0); }
};

}  // namespace
