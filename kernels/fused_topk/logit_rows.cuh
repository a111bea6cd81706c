// The problem that fused_topk.cu solves, what the rules of logit_rules.py allow, and rows of logits as aligned groups.
#pragma once
#include <climits>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../device.cuh"

namespace {

constexpr int TOKENS = 32;  // a thread holds in registers
constexpr int TEXT = 0, TIMESTAMP = 1;
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

// Tokens of one kind that may follow: from `low` to `high`, none with a bit of `flags` (the same in four bytes).
struct Limits {
  int low, high;
  unsigned flags;
};

// The rules of logit_rules.py but for forced tokens. `load` and `load_history` ask for what they depend on, so
// that other loads can be issued before the first is waited for. All lanes of a warp call `limits`.
struct Rules {
  static constexpr int HELD = 14;  // tokens of history a lane asks for before position is known: Whisper's 448
  int64_t asked, begin, held[HELD];
  const int64_t* said;

  __device__ void load(const Problem& p, int row, int query) {
    asked = p.positions[query];
    begin = p.begin[row];
    said = p.history + static_cast<int64_t>(row) * p.length;
  }
  // For timestamps. Behind the end of history stands its last token, which is no later than itself.
  __device__ void load_history(const Problem& p) {
#pragma unroll
    for (int i = 0; i < HELD; ++i) held[i] = said[min(threadIdx.x % 32 + 32 * i, p.length - 1u)];
  }
  // Nothing that depends on position is computed before this, whatever the compiler thinks of it.
  __device__ void arrived() { asm volatile("" : "+l"(asked), "+l"(begin)::"memory"); }
  __device__ int position(const Problem& p) const {
    return static_cast<int>(min(asked, static_cast<int64_t>(p.length - 1)));
  }
  __device__ Limits limits(const Problem& p, int kind) const {
    const int at = position(p), start = static_cast<int>(begin);
    const bool first = at + 1 == start;
    Limits limits{0, INT_MAX, (first ? NEVER | NOT_FIRST : NEVER) * 0x01010101u};
    if (p.timestamp_begin < 0) return limits;

    const int64_t last = at >= start ? said[at] : -1, before = at > start ? said[at - 1] : -1;
    int latest = -1, stamp = 0;  // where the latest timestamp stands, and which
    if (kind == TIMESTAMP) {
      const auto look = [&](int index, int64_t token) {
        if (token < p.timestamp_begin || index < start || index > at) return;
        latest = index;
        stamp = static_cast<int>(token);
      };
      const int lane = threadIdx.x % 32;
#pragma unroll
      for (int i = 0; i < HELD; ++i) look(lane + 32 * i, held[i]);
#pragma unroll 1
      for (int index = lane + 32 * HELD; index <= at; index += 32) look(index, said[index]);
      latest = __reduce_max_sync(device::kAllLanes, latest);
      stamp = __shfl_sync(device::kAllLanes, stamp, latest & 31);
    }
    const bool stamp_last = last >= p.timestamp_begin;
    const bool stamp_before = at - start < 1 || before >= p.timestamp_begin;
    const bool alone = stamp_last && !stamp_before;  // its partner or the end has to follow
    if (kind == TEXT) {
      limits.low = first ? p.timestamp_begin : alone ? p.end : 0;
      return limits;
    }
    if (latest >= 0) limits.low = stamp + (alone ? 0 : 1);
    if (stamp_last && stamp_before) limits.low = INT_MAX;
    if (first && p.max_initial_timestamp >= 0) limits.high = p.timestamp_begin + p.max_initial_timestamp;
    return limits;
  }
};

// The tokens of one kind, from `low` to below `high`, as tiles that a warp reads at once: COUNT lines of 32 groups,
// one group a lane, each of 16 aligned bytes. The first and the last tile are for the tokens before and behind all
// whole groups, one token a lane. So no lane reads several by themselves while its warp waits.
template <typename T>
struct Span {
  static constexpr int EACH = 16 / sizeof(T), LINE = 32 * EACH, COUNT = TOKENS / EACH, TILE = COUNT * LINE;
  const T* logits;
  int low, high, groups_begin, groups_end, tiles;

  __device__ Span(const Problem& p, int query, int kind) {
    int64_t offset = query * p.stride;
    asm volatile("" : "+l"(offset));  // or the compiler computes it and all below anew before each use
    logits = static_cast<const T*>(p.logits) + offset;
    // How many elements the row begins behind a multiple of 16 bytes.
    const int skew = static_cast<int>(reinterpret_cast<uintptr_t>(logits) % 16 / sizeof(T));
    low = kind == TIMESTAMP ? p.timestamp_begin : 0;
    high = kind == TEXT && p.timestamp_begin >= 0 ? p.timestamp_begin : p.vocabulary;
    const int flagged = min(high, p.vocabulary & -8);  // flags are read in words of 8 bytes
    groups_begin = ((low + skew + EACH - 1) & -EACH) - skew;
    groups_end = max(groups_begin, ((flagged + skew) & -EACH) - skew);
    tiles = 2 + (groups_end - groups_begin + TILE - 1) / static_cast<unsigned>(TILE);
  }
};

// What a lane has of a tile, on its way from memory. Nothing is computed from it in `load`: a warp that waits for
// one load doesn't issue the next.
template <typename T>
struct Tile {
  static constexpr int EACH = Span<T>::EACH, LINE = Span<T>::LINE, COUNT = Span<T>::COUNT;
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
  uint4 logits[COUNT];
  uint2 word[COUNT], next_word[COUNT];  // flags begin in byte `shift` of word; all ones where there are no tokens
  unsigned behind_first;                // all ones in the bytes of tokens that a lane with one token doesn't have
  int start, shift;                     // start: id of the first token, LINE further on in the next line

  // A tile behind the last one has no tokens.
  __device__ void load(const Problem& p, const Span<T>& span, int tile) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      logits[g] = {0, 0, 0, 0};
      word[g] = next_word[g] = {~0u, ~0u};
    }
    behind_first = 0;
    if (tile == 0 || tile == span.tiles - 1) {
      start = (tile == 0 ? span.low : span.groups_end) + lane;
      shift = 0;
      behind_first = ~0xffu;
      if (start >= (tile == 0 ? min(span.groups_begin, span.high) : span.high)) return;
      logits[0].x = reinterpret_cast<const Bits*>(span.logits)[start];
      word[0].x = p.banned[start];
      return;
    }
    start = span.groups_begin + (tile - 1) * Span<T>::TILE + lane * EACH;
    shift = start & 7;
    const uint4* given = reinterpret_cast<const uint4*>(span.logits + start);
    const uint2* words = reinterpret_cast<const uint2*>(p.banned + (start - shift));
    const uint2* next_words = shift + EACH > 8 ? words + 1 : words;
    const int left = span.groups_end - start;
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      if (left <= g * LINE) continue;
      logits[g] = given[g * 32];
      word[g] = words[g * (LINE / 8)];
      next_word[g] = next_words[g * (LINE / 8)];
    }
  }

  // For each line eight bytes; that of a token isn't 0 if it is forbidden.
  __device__ void find_forbidden(const Limits& limits, uint2 (&forbidden)[COUNT]) const {
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      const unsigned a = shift < 4 ? word[g].x : word[g].y, b = shift < 4 ? word[g].y : next_word[g].x;
      const unsigned c = shift < 4 ? next_word[g].x : next_word[g].y;
      forbidden[g] = {__funnelshift_r(a, b, 8 * (shift & 3)), __funnelshift_r(b, c, 8 * (shift & 3))};
    }
    forbidden[0].x |= behind_first;
    if (limits.low > 0 || limits.high < INT_MAX) {
#pragma unroll
      for (int g = 0; g < COUNT; ++g) {
        const int first = start + g * LINE, last = first + EACH - 1;
        uint64_t flags = 0;
        if (first < limits.low) flags |= ~0ull >> (64 - 8 * min(limits.low - first, EACH));
        if (last > limits.high) flags |= ~0ull << (8 * max(limits.high + 1 - first, 0));
        forbidden[g].x |= static_cast<unsigned>(flags);
        forbidden[g].y |= static_cast<unsigned>(flags >> 32);
      }
    }
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      forbidden[g].x &= limits.flags;
      forbidden[g].y &= limits.flags;
    }
  }
};

}  // namespace
