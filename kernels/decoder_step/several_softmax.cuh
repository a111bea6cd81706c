// Several queries at once: softmax over part of the keys by tensor cores, and merging of such parts.
#pragma once
#include "several_rows.cuh"

constexpr int kKeyTile = 16;  // keys that a warp takes at once
__host__ __device__ constexpr int rounded(int keys) { return (keys + kKeyTile - 1) / kKeyTile * kKeyTile; }

// Keys or values in shared memory: piece p of 8 numbers lies at place_of(row, p), so that neither eight lanes that
// read pieces 0 to 3 of two rows nor eight that read one piece of eight rows meet in a bank.
__device__ __forceinline__ int place_of(int row, int piece) { return (piece ^ ((row & 1) << 2) ^ ((row & 7) >> 1)) * 8; }

// A softmax over part of the keys that can be merged with that over others; the scores are powers of 2.
struct alignas(16) Partial {
  float mixed[kHead];
  float max, sum;
  float unused[2];
};

template <int kKeys>
struct alignas(16) Cache {
  static_assert(kKeys % kKeyTile == 0, "whole tiles");
  static constexpr int kTiles = kKeys / kKeyTile, kParts = kTiles < kWarps ? kTiles : kWarps;
  __half keys[kKeys][kHead];
  __half values[kKeys][kHead];
  float2 sums[kParts][kQueries];  // of a warp: its largest score, and the sum

  // A warp mixes its values into the place of the keys of its first tile, which only it reads.
  __device__ __forceinline__ float& mixed(int warp, int query, int column) {
    return reinterpret_cast<float*>(keys[warp * kKeyTile])[query * kHead + (column ^ (query << 3))];
  }
};
static_assert(kQueries * kHead * sizeof(float) <= kKeyTile * kHead * sizeof(__half), "room for what a warp mixes");

// Scores of two neighbouring keys (2t, 2t + 1 of the eight from `first` on) for query_of_lane().
template <int kKeys>
__device__ __forceinline__ float2 scores(const Cache<kKeys>& cache, const uint4 (&query)[4], int first) {
  const int row = first + row_of_lane(), lane = threadIdx.x % 32;
  Sums sums = {};
#pragma unroll
  for (int half = 0; half < 2; ++half)
    multiply(sums, query[2 * half], query[2 * half + 1],
             *reinterpret_cast<const uint4*>(&cache.keys[row][place_of(row, half * 4 + lane % 4)]));
  return total(sums);
}

// Softmax over the first `count` keys, and with `own` over those of the queries themselves behind them, a query over
// those before it and its own. Warps take turns at the tiles; values up to the end of the last are finite.
template <int kKeys>
__device__ __forceinline__ void attend(Cache<kKeys>& cache, int count, bool own, const Operand<kHead>& queries) {
  constexpr int kTurns = (Cache<kKeys>::kTiles + kWarps - 1) / kWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tiles = rounded(count + own * kQueries) / kKeyTile;
  if (warp >= tiles) return;
  const int seen = count + (own ? row_of_lane() + 1 : 0);
  uint4 query[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) query[i] = queries.at(query_of_lane(), i / 2 * 32 + lane % 4 * 8 + i % 2 * 4);
  float2 score[kTurns][2];
  float highest = -1e30f;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int tile = warp + turn * kWarps;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = tile * kKeyTile + half * 8 + lane % 4 * 2;
      score[turn][half] = {-INFINITY, -INFINITY};
      if (tile < tiles) {
        const float2 both = scores(cache, query, tile * kKeyTile + half * 8);
        score[turn][half] = {key < seen ? both.x : -INFINITY, key + 1 < seen ? both.y : -INFINITY};
      }
      highest = fmaxf(highest, fmaxf(score[turn][half].x, score[turn][half].y));
    }
  }
  highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 1));  // of the four lanes of a query
  highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 2));
  float sum = 0.f, mixed[kHead / 8][4] = {};
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int tile = warp + turn * kWarps;
    if (tile >= tiles) break;
    uint2 weights[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float first = device::exp2_approximately(score[turn][half].x - highest);
      const float second = device::exp2_approximately(score[turn][half].y - highest);
      sum += first + second;
      weights[half] = split(first, second);
    }
    // Lanes 0 to 15 give the addresses of the 16 keys for one piece of 8 columns, lanes 16 to 31 for the next.
    const int row = tile * kKeyTile + lane % 16;
#pragma unroll
    for (int piece = 0; piece < kHead / 8; piece += 2) {
      const uint4 values = device::ldmatrix_transposed(&cache.values[row][place_of(row, piece + lane / 16)]);
      const uint4 in = {weights[0].x, weights[0].y, weights[1].x, weights[1].y};
      device::mma(mixed[piece], in, values.x, values.y);
      device::mma(mixed[piece + 1], in, values.z, values.w);
    }
  }
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  sum += __shfl_xor_sync(kAllLanes, sum, 2);
  __syncwarp();  // keys have been read
  if (row_of_lane() >= kQueries) return;
#pragma unroll
  for (int piece = 0; piece < kHead / 8; ++piece)
    *reinterpret_cast<float2*>(&cache.mixed(warp, row_of_lane(), piece * 8 + lane % 4 * 2)) = {
        mixed[piece][0] + mixed[piece][2], mixed[piece][1] + mixed[piece][3]};
  if (lane % 4 == 0) cache.sums[warp][row_of_lane()] = {highest, sum};
}

// The softmax of kParts parts, of which `parts` are there, in one column: its numerator, and the rest of it. The
// functions give a part's largest score and sum, and its numerator.
template <int kParts, typename SumsOf, typename MixedOf>
__device__ __forceinline__ float merged(int parts, SumsOf sums_of, MixedOf mixed_of, float2& sums) {
  float2 part[kParts];
  sums = {-1e30f, 0.f};
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    part[p] = p < parts ? sums_of(p) : sums;
    sums.x = fmaxf(sums.x, part[p].x);
  }
  float mixed = 0.f;
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    if (p >= parts) break;
    const float weight = device::exp2_approximately(part[p].x - sums.x);
    sums.y = fmaf(part[p].y, weight, sums.y);
    mixed = fmaf(mixed_of(p), weight, mixed);
  }
  return mixed;
}
