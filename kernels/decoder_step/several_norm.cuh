// Several queries at once: the residual stream and its layer norm. A team of warps takes a query, a lane two
// neighbours of each of its team's chunks.
#pragma once
#include "several_rows.cuh"

constexpr int kTeam = kWarps / power_of_two(kQueries);  // with 3, 5, 6 or 7 queries some warps have none
constexpr int kChunk = 64;
constexpr int kChunks = kD / kChunk;
constexpr int kMine = (kChunks + kTeam - 1) / kTeam;

__device__ __forceinline__ int query_of_warp() { return threadIdx.x / 32 / kTeam; }
__device__ __forceinline__ bool warp_has_query() { return kTeam * kQueries == kWarps || query_of_warp() < kQueries; }
__device__ __forceinline__ constexpr int chunks_of(int member) {
  return kChunks % kTeam == 0 ? kMine : (kChunks - member + kTeam - 1) / kTeam;
}
__device__ __forceinline__ int chunks_of_warp() { return chunks_of(threadIdx.x / 32 % kTeam); }
__device__ __forceinline__ int column_of(int i) {
  return (threadIdx.x / 32 % kTeam + i * kTeam) * kChunk + threadIdx.x % 32 * 2;
}

// Two conversions of 32 bits are faster than one of 64.
__device__ __forceinline__ float to_float_by_words(Fixed value) {
  return fmaf(__uint2float_rn(static_cast<uint32_t>(value)), 1.f / kFixedOne, __int2float_rn(static_cast<int>(value >> 32)));
}

__device__ __forceinline__ void load_residual(const Fixed* in, float2 (&raw)[kMine]) {
  longlong2 loaded[kMine] = {};  // all on their way before the first is needed
#pragma unroll
  for (int i = 0; i < kMine; ++i)
    if (warp_has_query() && i < chunks_of_warp())
      loaded[i] = __ldcg(reinterpret_cast<const longlong2*>(&in[query_of_warp() * kD + column_of(i)]));
#pragma unroll
  for (int i = 0; i < kMine; ++i) raw[i] = {to_float_by_words(loaded[i].x), to_float_by_words(loaded[i].y)};
}

__device__ __forceinline__ void load_embedded(const Tokens& tokens, int64_t first, float2 (&raw)[kMine]) {
  const int64_t place = first + min(query_of_warp(), kQueries - 1), token = tokens.history[place];
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    raw[i] = {};
    if (warp_has_query() && i < chunks_of_warp()) {
      const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&tokens.token_embedding[token * kD + column_of(i)]));
      const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&tokens.position_embedding[place * kD + column_of(i)]));
      raw[i] = {a.x + b.x, a.y + b.y};
    }
  }
}

// Keep the slice of the residual that this block adds its results to; ordered by the barriers of layer_norm.
__device__ __forceinline__ void keep_slice(const float2 (&raw)[kMine], int rank, float (&carried)[kQueries][kSlice]) {
#pragma unroll
  for (int i = 0; i < kMine; ++i)
    if (warp_has_query() && i < chunks_of_warp() && column_of(i) / kSlice == rank)
      *reinterpret_cast<float2*>(&carried[query_of_warp()][column_of(i) % kSlice]) = raw[i];
}

// What the warps of a team tell each other.
struct Moments {
  float2 of_warp[kWarps];  // mean, and sum of squared distances from it
};

__device__ __forceinline__ void layer_norm(const float2 (&raw)[kMine], const float (&norm)[2][kD], Moments& moments,
                                           Operand<kD>& x) {
  const int warp = threadIdx.x / 32, mine = chunks_of_warp();
  float mean = 0.f, squares = 0.f;
#pragma unroll
  for (int i = 0; i < kMine; ++i) mean += raw[i].x + raw[i].y;  // what this warp doesn't have is 0
  mean *= 1.f / (2 * max(mine, 1));
#pragma unroll
  for (int i = 0; i < kMine; ++i)
    if (i < mine) squares += (raw[i].x - mean) * (raw[i].x - mean) + (raw[i].y - mean) * (raw[i].y - mean);
  // Merging parts: Chan, Golub and LeVeque 1983, doi 10.1080/00031305.1983.10483115. First those of the lanes, all
  // as large: one exchange after the other, where a sum and then that of squares would be twice as many.
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float other = __shfl_xor_sync(kAllLanes, mean, step), away = mean - other;
    squares += __shfl_xor_sync(kAllLanes, squares, step);
    squares += away * away * (mine * step);
    mean = 0.5f * (mean + other);
  }
  if constexpr (kTeam > 1) {
    if (threadIdx.x % 32 == 0) moments.of_warp[warp] = {mean, squares};
    __syncthreads();
    float2 part[kTeam];
    mean = squares = 0.f;
#pragma unroll
    for (int member = 0; member < kTeam; ++member) {
      part[member] = moments.of_warp[warp / kTeam * kTeam + member];
      mean += part[member].x * (chunks_of(member) * (1.f / kChunks));
    }
#pragma unroll
    for (int member = 0; member < kTeam; ++member) {
      const float away = part[member].x - mean;
      squares += part[member].y + away * away * (kChunk * chunks_of(member));
    }
  }
  const float inverse = rsqrtf(squares * (1.f / kD) + 1e-5f);
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    if (warp_has_query() && i < mine) {
      const float2 scale = *reinterpret_cast<const float2*>(&norm[0][column_of(i)]);
      const float2 shift = *reinterpret_cast<const float2*>(&norm[1][column_of(i)]);
      x.pairs[query_of_warp()][column_of(i) / 2] =
          split((raw[i].x - mean) * inverse * scale.x + shift.x, (raw[i].y - mean) * inverse * scale.y + shift.y);
    }
  }
  __syncthreads();
}
