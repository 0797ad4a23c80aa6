/*
 * The part of the ABI of cuBLASLt (11.11 to 12.x) that this module uses: our own declarations, so that a build needs neither
 * the library nor its header. check.py compares them with a real cublasLt.h.
 */
#ifndef CUBLASLT_ABI_H
#define CUBLASLT_ABI_H

#include <stddef.h>
#include <stdint.h>

/* Enumerations, each an int there. */
typedef int cublasStatus_t, cublasComputeType_t, cudaDataType_t, cublasLtMatmulDescAttributes_t, cublasLtMatrixLayoutAttribute_t,
	cublasLtMatmulPreferenceAttributes_t, cublasLtMatmulAlgoConfigAttributes_t;

typedef struct cublasLtContext *cublasLtHandle_t;
typedef struct lt_desc *cublasLtMatmulDesc_t;
typedef struct lt_layout *cublasLtMatrixLayout_t;
typedef struct lt_preference *cublasLtMatmulPreference_t;
typedef struct CUstream_st *cudaStream_t; /* a CUstream of the driver is one */

typedef struct {
	uint64_t data[8];
} cublasLtMatmulAlgo_t;

typedef struct {
	cublasLtMatmulAlgo_t algo;
	size_t workspaceSize;
	cublasStatus_t state;
	float wavesCount;
	int reserved[4];
} cublasLtMatmulHeuristicResult_t;

#define CUBLASLT_CONSTANT(name, value) name = value,
enum {
#include "cublaslt_const.h"
};
#undef CUBLASLT_CONSTANT

#endif
