// The instructions that CUDA C++ has no function for, one wrapper each.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

// The dynamic shared memory of the block, 16-byte aligned.
__device__ __forceinline__ float *shared_floats() {
	extern __shared__ __align__(16) float shared_memory[];
	return shared_memory;
}

// Copies 4 or 16 bytes to shared memory; of those beyond n, which are 0, nothing is read.
__device__ __forceinline__ void copy16(float *to, const float *from, int n) {
	u32 a = (u32)__cvta_generic_to_shared(to);
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(a), "l"(from), "r"(n) : "memory");
}
__device__ __forceinline__ void copy4(float *to, const float *from, int n) {
	u32 a = (u32)__cvta_generic_to_shared(to);
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(a), "l"(from), "r"(n) : "memory");
}
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last N groups of copies have arrived.
template <int N> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Loads four matrices of 8 rows of 16 bytes; lane l gives the address of row l%8 of matrix l/8, and gets
// of each the 4 bytes at row l/4, column l%4.
__device__ __forceinline__ void load_matrices(u32 (&r)[4], const float *row) {
	u32 a = (u32)__cvta_generic_to_shared(row);
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a) : "memory");
}

// Rounds to the 19 bits of tf32.
__device__ __forceinline__ u32 tf32(u32 x) {
	u32 r;
	asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(x)));
	return r;
}

// Rounds two numbers to bf16, lo in the lower half.
__device__ __forceinline__ u32 bf16(u32 lo, u32 hi) {
	u32 r;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(__uint_as_float(hi)), "f"(__uint_as_float(lo)));
	return r;
}

// c (16,8) += a (16,8) b (8,8)
__device__ __forceinline__ void mma_tf32(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
	asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c (16,8) += a (16,16) b (16,8)
__device__ __forceinline__ void mma_bf16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
