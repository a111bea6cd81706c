// What the kernels of a decode step are given: sizes, weights as the host packs them, the residual stream, caches.
#pragma once
#include "../device.cuh"

using device::kAllLanes;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHead = 64;
constexpr int kD = D_MODEL;
constexpr int kQueries = QUERIES;
constexpr int kCluster = CLUSTER;
constexpr int kSlice = kD / kCluster;  // of the residual, for one block of a cluster
constexpr int kUnits = MLP_UNITS;      // of the MLP's hidden layer, for one block
constexpr int kStages = VOCAB_STAGES;  // copies of the vocabulary's rows in flight
static_assert(kD == kHead * HEADS && kD % (16 * kCluster) == 0, "Whisper's heads are 64 wide");

#if WEIGHT_BYTES == 1
using Weight = int8_t;
using Weights8 = uint2;
#else
using Weight = __half;
using Weights8 = uint4;
#endif

// The residual stream in fixed point. 2^-32 is far below half's rounding; 2^31 far above half's range. inf and
// NaN become numbers of the largest magnitude.
using Fixed = long long;
constexpr float kFixedOne = 4294967296.f;
__device__ __forceinline__ Fixed to_fixed(float value) { return __float2ll_rn(value * kFixedOne); }
__device__ __forceinline__ float to_float(Fixed value) { return __ll2float_rn(value) * (1.f / kFixedOne); }
__device__ __forceinline__ void add(Fixed* to, Fixed value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}

struct Residual {
  const Fixed* in;  // [kQueries][kD]
  Fixed* out;       // zero at first; `in` and what this kernel adds to it
  Fixed* clear;     // the next kernel's `out`
};

__host__ __device__ constexpr int power_of_two(int least) { return least <= 1 ? 1 : 2 * power_of_two((least + 1) / 2); }

__device__ __forceinline__ void clear_slice(Fixed* clear, int rank) {
  for (int i = threadIdx.x; i < kQueries * kSlice; i += kThreads)
    clear[i / kSlice * kD + rank * kSlice + i % kSlice] = 0;
}

// The tokens whose logits are wanted, and what the first kernel makes of them.
struct Tokens {
  const int64_t* history;            // ids
  const int64_t* position;           // query q is history[*position + q], at that position
  const __half* token_embedding;     // [vocabulary][kD]
  const __half* position_embedding;  // [positions][kD]
};

constexpr int bytes_of_tile(int rows) {
  return (rows * kD + kSlice * kHead) * int(sizeof(Weight)) + 2 * (rows + kSlice) * int(sizeof(float));
}

// The weights of one block of a cluster: its rows of the projections into the head, its rows of the one out of it.
template <int kRows>
struct TileEnd {
  Weight out_of[kSlice][kHead];
  float into_bias[kRows], into_scale[kRows];
  float out_bias[kSlice], out_scale[kSlice];
};
template <int kRows>
struct alignas(16) Tile {
  Weight into[kRows][kD];
  TileEnd<kRows> end;
};

constexpr int kSelfRows = 3 * kHead / kCluster, kCrossRows = kHead / kCluster;
__host__ __device__ constexpr int share(int keys) { return (keys + kCluster - 1) / kCluster; }
static_assert(sizeof(Tile<kSelfRows>) == bytes_of_tile(kSelfRows), "packed by the host");
static_assert(sizeof(Tile<kCrossRows>) == bytes_of_tile(kCrossRows), "packed by the host");

struct Attention {
  Residual residual;
  const uint8_t* tiles;    // [HEADS][kCluster] Tile
  const float* norm;       // [2][kD]
  __half* keys;            // [HEADS][length][kHead]
  __half* values;
  int length;
  Tokens tokens;           // token_embedding: null but for the first layer
};

struct MlpTileEnd {
  float into_bias[kUnits], into_scale[kUnits];
  float out_bias[kSlice], out_scale[kSlice];  // of the slice that this block sums up
};
struct alignas(16) MlpTile {
  Weight into[kUnits][kD];
  Weight out_of[kUnits][kD];  // transposed: a row is what a hidden unit adds to the residual
  MlpTileEnd end;
};

struct Mlp {
  Residual residual;
  const uint8_t* tiles;  // [blocks] MlpTile
  const float* norm;     // [2][kD]
};

struct Vocabulary {
  const Fixed* in;     // the residual after the last layer
  const Weight* rows;  // [size][kD]
  const float* scale;  // [size, and more to a multiple of 4]; not read for half
  const float* norm;   // [2][kD]
  float* logits;       // [kQueries][size]
  int size;
};
