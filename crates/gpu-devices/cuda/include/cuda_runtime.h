// What CubeCL's CUDA sources include by this name. NVRTC has all that they use of NVIDIA's file built in, so this one only steers.
#pragma once
#ifdef __CUDACC_RTC__

// CubeCL writes the exponential by base 2 as `__powf(2, x)`. For that NVRTC puts a comparison and two products around the instruction, which
// keep results below the smallest normal number. The kernels use none: there the instruction alone does.
static __device__ __forceinline__ float infermark_powf(float base, float exponent) {
  if (base != 2.0f) return (__powf)(base, exponent);
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
}
#define __powf(base, exponent) infermark_powf(base, exponent)

#endif
