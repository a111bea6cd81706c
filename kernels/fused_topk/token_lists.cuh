// Lists of the best tokens, and the sums of exponentials that belong to them: what one warp makes of its logits.
#pragma once
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>

#include "../device.cuh"
#include "logit_rows.cuh"

namespace {

// A token and its logit; -inf: there is none.
struct alignas(8) Candidate {
  float logit;
  int id;
};
constexpr int NO_TOKEN = INT_MAX;

// exp(logit - top); NaN if both are infinite.
__device__ float relative(float logit, float top) {
  constexpr float LOG2_E = 1.4426950408889634f;
  return device::exp2_approximately((logit - top) * LOG2_E);
}

// The largest of all lanes' numbers, of which none is NaN.
__device__ float max_of_warp(float own) {
  const int bits = __float_as_int(own + 0.0f);        // -0.0 is no smaller than 0.0
  const int order = bits ^ ((bits >> 31) & INT_MAX);  // an integer that sorts like the number
  const int top = __reduce_max_sync(device::kAllLanes, order);
  return __int_as_float(top ^ ((top >> 31) & INT_MAX));
}

// What a lane has of a line, under the rules: -inf where a token is forbidden or there is none.
template <int EACH>
struct Scored {
  float logits[EACH], best;
  int start;

  template <typename T>
  __device__ void score(const uint4& bits, int first, uint2 forbidden) {
    alignas(16) T given[EACH];
    *reinterpret_cast<uint4*>(given) = bits;
    start = first;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const bool allowed = ((i < 4 ? forbidden.x : forbidden.y) & (0xffu << (8 * (i % 4)))) == 0;
      logits[i] = allowed ? static_cast<float>(given[i]) : -INFINITY;
    }
    find_best();
  }
  // NaN counts as -inf, inf as the largest number.
  __device__ void make_finite() {
#pragma unroll
    for (int i = 0; i < EACH; ++i) logits[i] = fminf(fmaxf(logits[i], -INFINITY), FLT_MAX);
    find_best();
  }
  __device__ void find_best() {
    float reduced[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) reduced[i] = logits[i];
#pragma unroll
    for (int half = EACH / 2; half > 0; half /= 2)
#pragma unroll
      for (int i = 0; i < half; ++i) reduced[i] = fmaxf(reduced[i], reduced[i + half]);  // NaN only if both are
    best = reduced[0];
  }
  __device__ float sum(float top) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; ++i) sum += relative(logits[i], top);
    return sum;
  }
  // The id of the lane's first token that has the logit `top`, or `otherwise`.
  __device__ int find(float top, int otherwise) const {
    int id = otherwise;
#pragma unroll
    for (int i = EACH - 1; i >= 0; --i)
      if (logits[i] == top) id = start + i;
    return id;
  }
  __device__ void remove(int id) {
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (start + i == id) logits[i] = -INFINITY;
    find_best();
  }
};

// The k best of all that a warp has seen, best first: lane r has the one of rank r. sum: of exp(logit - top) of all.
struct List {
  Candidate own{-INFINITY, NO_TOKEN};
  float top = -INFINITY, sum = 0.0f;
};

// Adds the lines to the list. Their ids are larger than those in the list and rise with line, lane and place:
// the first of the tokens with equal logits is the one with the smallest id. ONE: k is 1.
template <bool ONE, int COUNT, int EACH>
__device__ void collect(Scored<EACH> (&lines)[COUNT], int k, List& list) {
  const int lane = threadIdx.x % 32;
  Candidate held = list.own;
  const auto find_top = [&] {
    float own = held.logit;
#pragma unroll
    for (int g = 0; g < COUNT; ++g) own = fmaxf(own, lines[g].best);
    return max_of_warp(own);
  };
  float top, sum;
  int id;
  while (true) {
    top = find_top();
    if (top == -INFINITY) return;  // nothing here, and nothing in the list
    sum = 0.0f;
    id = NO_TOKEN;
#pragma unroll
    for (int g = 0; g < COUNT; ++g) sum += lines[g].sum(top);
    if (ONE) {  // while the exponentials are computed
#pragma unroll
      for (int g = COUNT - 1; g >= 0; --g) id = lines[g].find(top, id);
      if (held.logit == top) id = held.id;
    }
    if (!__any_sync(device::kAllLanes, isnan(sum))) break;
    // Seldom: NaN or inf is among them. Afterwards neither is.
#pragma unroll
    for (int g = 0; g < COUNT; ++g) lines[g].make_finite();
  }
  sum = device::sum_over_lanes<32>(sum) + list.sum * relative(list.top, top);
  if (ONE) {
    id = static_cast<int>(__reduce_min_sync(device::kAllLanes, static_cast<unsigned>(id)));
    list = {{top, id}, top, sum};
    return;
  }

  // Takes the first token with the logit `top`. Returns its id to all lanes.
  const auto take = [&](float top) {
    unsigned has[COUNT];
    const unsigned in_list = __ballot_sync(device::kAllLanes, held.logit == top);
#pragma unroll
    for (int g = 0; g < COUNT; ++g) has[g] = __ballot_sync(device::kAllLanes, lines[g].best == top);
    bool taken = in_list != 0;
    int id = NO_TOKEN;
    if (taken) {
      id = __shfl_sync(device::kAllLanes, held.id, __ffs(in_list) - 1);
      if (held.id == id) held.logit = -INFINITY;
    }
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      if (!taken && has[g] != 0) {
        const int from = __ffs(has[g]) - 1, found = lines[g].find(top, NO_TOKEN);
        lines[g].remove(lane == from ? found : NO_TOKEN);
        id = __shfl_sync(device::kAllLanes, found, from);
      }
      taken |= has[g] != 0;
    }
    return id;
  };
  list = {{-INFINITY, NO_TOKEN}, top, sum};
  for (int rank = 0;;) {
    id = take(top);
    if (lane == rank) list.own = {top, id};
    if (++rank == k) break;
    top = find_top();
    if (top == -INFINITY) break;
  }
}

}  // namespace
