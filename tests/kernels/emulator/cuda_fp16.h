// Half precision: conversions that round to nearest, ties to even, and arithmetic by way of float.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
  __half() = default;
  explicit __half(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) {
      bits = 0x7fff;
    } else if (magnitude >= 65520.f) {
      bits = sign | 0x7c00;
    } else {
      // The last bit that half has for a number of this size: 2^-24 below 2^-14, then 11 bits in all.
      const int exponent = magnitude < 6.103515625e-05f ? -14 : std::ilogb(magnitude);
      const int units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
      bits = sign | static_cast<uint16_t>(((exponent + 14) << 10) + units);  // carries go where they belong
    }
  }
  operator float() const {
    uint32_t wide = (bits & 0x7fffu) << 13;
    float value;
    if (wide >= 31u << 23) wide |= 0xffu << 23;  // infinite, or NaN
    memcpy(&value, &wide, 4);
    if (wide < 31u << 23) value *= 0x1p112f;  // the exponents of float begin 112 lower
    return bits & 0x8000 ? -value : value;
  }
};
struct alignas(4) __half2 {
  __half x, y;
};

inline __half __float2half(float value) { return __half(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline float __half2float(__half value) { return value; }
inline float2 __half22float2(__half2 two) { return {two.x, two.y}; }
inline __half2 __float22half2_rn(float2 two) { return {__half(two.x), __half(two.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __half2half2(__half both) { return {both, both}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half __ushort_as_half(uint16_t bits) {
  __half value;
  value.bits = bits;
  return value;
}
inline uint16_t __half_as_ushort(__half value) { return value.bits; }
inline __half2 __hsub2(__half2 a, __half2 b) {
  return {__half(float(a.x) - float(b.x)), __half(float(a.y) - float(b.y))};
}
