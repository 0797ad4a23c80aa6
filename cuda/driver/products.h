/* cuBLASLt, found when it is asked for: see cublaslt.go. */
#ifndef GPU_PRODUCTS_H
#define GPU_PRODUCTS_H

#include "driver.h"
#include "hot.h"

#pragma GCC visibility push(hidden)

/* The library that was found. */
struct gpu_library {
	char name[256];
	size_t version, cuda; /* 120901 for 12.9.1; the CUDA runtime inside, 12080 for 12.8 */
};

/*
 * One matrix product on the device, column-major: d[m,n] = op(a) op(b), with beta added to d, with a bias for each row. The
 * extent that is counted when it is launched is n, and k if by_k; what is given here is its capacity.
 */
struct gpu_product {
	CUdeviceptr a, b, d, bias, workspace;
	size_t room; /* bytes of the workspace */
	int64_t m, n, k, lda, ldb, ldd;
	int trans_a, trans_b, by_k;
	int axis; /* whose count; -1: the capacity */
	float beta;
	cublasComputeType_t compute;
	cublasLtMatmulAlgo_t algo;

	/* What gpu_lt_plan makes */
	cublasLtMatmulDesc_t desc;
	cublasLtMatrixLayout_t layout[3]; /* of a, b, d */
};

/*
 * Finds a library whose CUDA the driver, of the CUDA version given, can run. Returns NULL, or why there is none, in words
 * that stand until the next call.
 */
const char *gpu_lt_find(int driver, struct gpu_library *library);

/* Makes a table of functions, ended by a NULL name, the library where the environment names none. For C constructors. */
void gpu_lt_use(const struct gpu_function *table);

struct gpu_result gpu_lt_create(CUcontext context, cublasLtHandle_t *handle);
struct gpu_result gpu_lt_destroy(CUcontext context, cublasLtHandle_t handle);
struct gpu_result gpu_lt_plan(struct gpu_product *p);
void gpu_lt_unplan(struct gpu_product *p);

/* What an algorithm is, for people and for filters. */
struct gpu_algorithm {
	cublasLtMatmulAlgo_t algo;
	int id, tile, stages, splits, reduction;
};

/* The algorithms, at most n, that the library's heuristic gives for so many rows; scheme as in the preference's mask. */
struct gpu_result gpu_lt_algorithms(
	CUcontext context, cublasLtHandle_t handle, struct gpu_product *p, int64_t rows, uint32_t schemes, struct gpu_algorithm *found, int *n);

/* Makes p a product of so many rows. Fits is whether its algorithm can compute that. */
struct gpu_result gpu_lt_set(cublasLtHandle_t handle, struct gpu_product *p, int64_t rows, int *fits);

/* Launches p as it was set. */
cublasStatus_t gpu_lt_matmul(cublasLtHandle_t handle, const struct gpu_product *p, CUstream stream);

#pragma GCC visibility pop

#endif
