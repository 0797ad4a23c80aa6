//go:build gpu

/*
 * cuBLASLt is opened when it is asked for, never linked. It contains a CUDA runtime of its own, which works in the context
 * that is current on the calling thread if that is a device's primary one: the only kind that hot.c makes current. A
 * stream of the driver's is one of the runtime's.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "products.h"

#pragma GCC visibility push(hidden)

#define CUBLASLT_FUNCTION(result, name, parameters) result(*name) parameters;
static struct {
#include "../abi/include/cublaslt_fn.h"
} lt;
#undef CUBLASLT_FUNCTION

static const struct gpu_function *table; /* what stands in for the library */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char found[256]; /* the library that lt is of */
static char why[1024];

void gpu_lt_use(const struct gpu_function *functions) { table = functions; }

static void *look_up(void *library, const char *name) {
	if (library)
		return dlsym(library, name);
	for (const struct gpu_function *f = table; f->name; f++)
		if (!strcmp(f->name, name))
			return f->address;
	return NULL;
}

__attribute__((format(printf, 1, 2))) static int because(const char *format, ...) {
	va_list list;
	va_start(list, format);
	vsnprintf(why, sizeof why, format, list);
	va_end(list);
	return -1;
}

/* CUDA 11.8, what the declarations were compared with first, and the least that drivers which take our kernels have. */
enum { LEAST = 111100 };

/* Whether the library that lt is of can be used with a driver. */
static int check(const char *name, int driver) {
	size_t version = lt.cublasLtGetVersion(), cuda = lt.cublasLtGetCudartVersion();
	if (version < LEAST)
		return because("%s is version %zu.%zu.%zu; 11.11 or later is needed", name, version / 10000, version / 100 % 100, version % 100);
	if ((int)(cuda / 1000) > driver / 1000)
		return because("%s %zu.%zu is for CUDA %zu.%zu, the driver for %d.%d", name, version / 10000, version / 100 % 100, cuda / 1000,
			cuda % 1000 / 10, driver / 1000, driver % 1000 / 10);
	return 0;
}

/* Opens a library, the table where name is NULL; 0, or -1 with the reason in why. */
static int open_library(const char *name, int driver) {
	void *library = name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (name && !library) {
		const char *reason = dlerror();
		return because("%s", reason ? reason : "dlopen failed");
	}
	const char *called = name ? name : "libcublasLt";
	int failed = 0;
#define CUBLASLT_FUNCTION(result, name, parameters)                               \
	if (!failed && !(*(void **)&lt.name = look_up(library, #name)))           \
		failed = because("%s has no %s: it is no cuBLASLt, or another version's", called, #name);
#include "../abi/include/cublaslt_fn.h"
#undef CUBLASLT_FUNCTION
	if (!failed)
		failed = check(called, driver);
	if (failed && library)
		dlclose(library);
	if (!failed)
		snprintf(found, sizeof found, "%s", called);
	return failed;
}

static int find(int driver) {
	if (found[0])
		return check(found, driver);
	const char *named = getenv("GPU_CUBLASLT");
	if (named && *named)
		return open_library(named, driver);
	if (table)
		return open_library(NULL, driver);
	/* The newest that the driver can run. What was wrong with one that is there says more than that others are not. */
	static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"};
	char first[sizeof why] = "";
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		void *there = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
		if (open_library(names[i], driver) == 0)
			return 0;
		if (there) {
			dlclose(there);
			if (!first[0])
				memcpy(first, why, sizeof first);
		}
	}
	if (first[0])
		memcpy(why, first, sizeof why);
	else
		because("no libcublasLt.so.13, .12 or .11 can be opened; GPU_CUBLASLT names another file");
	return -1;
}

const char *gpu_lt_find(int driver, struct gpu_library *library) {
	pthread_mutex_lock(&lock);
	int failed = find(driver);
	if (!failed) {
		memcpy(library->name, found, sizeof found);
		library->version = lt.cublasLtGetVersion();
		library->cuda = lt.cublasLtGetCudartVersion();
	}
	pthread_mutex_unlock(&lock);
	return failed ? why : NULL;
}

#define TRY(function, arguments)                                                            \
	do {                                                                                \
		cublasStatus_t status_ = lt.function arguments;                             \
		if (status_ != CUBLAS_STATUS_SUCCESS)                                       \
			return (struct gpu_result){CUDA_SUCCESS, #function, status_};       \
	} while (0)
#define CURRENT(context)                                                                    \
	do {                                                                                \
		CUresult code_ = cuCtxSetCurrent(context);                                  \
		if (code_ != CUDA_SUCCESS)                                                  \
			return (struct gpu_result){code_, "cuCtxSetCurrent", 0};            \
	} while (0)
#define DONE return (struct gpu_result){CUDA_SUCCESS, "", CUBLAS_STATUS_SUCCESS}

struct gpu_result gpu_lt_create(CUcontext context, cublasLtHandle_t *handle) {
	CURRENT(context);
	TRY(cublasLtCreate, (handle));
	DONE;
}

struct gpu_result gpu_lt_destroy(CUcontext context, cublasLtHandle_t handle) {
	CURRENT(context);
	TRY(cublasLtDestroy, (handle));
	DONE;
}

static struct gpu_result set_desc(struct gpu_product *p, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t size) {
	TRY(cublasLtMatmulDescSetAttribute, (p->desc, attribute, value, size));
	DONE;
}

#define PASS(call)                                                                          \
	do {                                                                                \
		struct gpu_result r_ = call;                                                \
		if (r_.code != CUDA_SUCCESS || r_.status != CUBLAS_STATUS_SUCCESS)          \
			return r_;                                                          \
	} while (0)

struct gpu_result gpu_lt_plan(struct gpu_product *p) {
	int32_t a = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, b = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
	uint32_t epilogue = p->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
	TRY(cublasLtMatmulDescCreate, (&p->desc, p->compute, CUDA_R_32F));
	PASS(set_desc(p, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
	PASS(set_desc(p, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
	PASS(set_desc(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
	if (p->bias) {
		const void *bias = (const void *)(uintptr_t)p->bias;
		PASS(set_desc(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
	}
	TRY(cublasLtMatrixLayoutCreate, (&p->layout[0], CUDA_R_32F, p->trans_a ? p->k : p->m, p->trans_a ? p->m : p->k, p->lda));
	TRY(cublasLtMatrixLayoutCreate, (&p->layout[1], CUDA_R_32F, p->trans_b ? p->n : p->k, p->trans_b ? p->k : p->n, p->ldb));
	TRY(cublasLtMatrixLayoutCreate, (&p->layout[2], CUDA_R_32F, p->m, p->n, p->ldd));
	DONE;
}

void gpu_lt_unplan(struct gpu_product *p) {
	if (p->desc)
		lt.cublasLtMatmulDescDestroy(p->desc);
	p->desc = NULL;
	for (int i = 0; i < 3; i++) {
		if (p->layout[i])
			lt.cublasLtMatrixLayoutDestroy(p->layout[i]);
		p->layout[i] = NULL;
	}
}

/* What is counted is columns of two of the three: row-major matrices with their rows counted are column-major ones with
 * their columns counted. */
static struct gpu_result set_rows(struct gpu_product *p, int64_t rows) {
	uint64_t n = (uint64_t)rows;
	for (int i = 0; i < 2; i++)
		TRY(cublasLtMatrixLayoutSetAttribute, (p->layout[p->by_k ? i : i + 1], CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof n));
	DONE;
}

struct gpu_result gpu_lt_set(cublasLtHandle_t handle, struct gpu_product *p, int64_t rows, int *fits) {
	*fits = 0;
	if (rows <= 0)
		DONE;
	PASS(set_rows(p, rows));
	cublasLtMatmulHeuristicResult_t result;
	cublasStatus_t status =
		lt.cublasLtMatmulAlgoCheck(handle, p->desc, p->layout[0], p->layout[1], p->layout[2], p->layout[2], &p->algo, &result);
	switch (status) {
	case CUBLAS_STATUS_SUCCESS:
		*fits = result.workspaceSize <= p->room;
		DONE;
	case CUBLAS_STATUS_INVALID_VALUE: /* the three say that the algorithm is not for this shape */
	case CUBLAS_STATUS_ARCH_MISMATCH:
	case CUBLAS_STATUS_NOT_SUPPORTED:
		DONE;
	}
	return (struct gpu_result){CUDA_SUCCESS, "cublasLtMatmulAlgoCheck", status};
}

static struct gpu_result describe(struct gpu_algorithm *a) {
	struct {
		cublasLtMatmulAlgoConfigAttributes_t attribute;
		int *to;
	} all[] = {
		{CUBLASLT_ALGO_CONFIG_ID, &a->id},
		{CUBLASLT_ALGO_CONFIG_TILE_ID, &a->tile},
		{CUBLASLT_ALGO_CONFIG_STAGES_ID, &a->stages},
		{CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &a->splits},
		{CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &a->reduction},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		TRY(cublasLtMatmulAlgoConfigGetAttribute, (&a->algo, all[i].attribute, all[i].to, sizeof *all[i].to, NULL));
	DONE;
}

static struct gpu_result ask(cublasLtHandle_t handle, struct gpu_product *p, cublasLtMatmulPreference_t preference, uint32_t schemes,
	cublasLtMatmulHeuristicResult_t *results, int *n) {
	const struct {
		cublasLtMatmulPreferenceAttributes_t attribute;
		const void *value;
		size_t size;
	} all[] = {
		{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &p->room, sizeof p->room},
		{CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
		{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &(uint32_t){16}, sizeof(uint32_t)},
		{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &(uint32_t){16}, sizeof(uint32_t)},
		{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &(uint32_t){16}, sizeof(uint32_t)},
		{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &(uint32_t){16}, sizeof(uint32_t)},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		TRY(cublasLtMatmulPreferenceSetAttribute, (preference, all[i].attribute, all[i].value, all[i].size));
	int most = *n;
	*n = 0;
	cublasStatus_t status = lt.cublasLtMatmulAlgoGetHeuristic(
		handle, p->desc, p->layout[0], p->layout[1], p->layout[2], p->layout[2], preference, most, results, n);
	if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED) /* this says that there is none */
		return (struct gpu_result){CUDA_SUCCESS, "cublasLtMatmulAlgoGetHeuristic", status};
	DONE;
}

struct gpu_result gpu_lt_algorithms(
	CUcontext context, cublasLtHandle_t handle, struct gpu_product *p, int64_t rows, uint32_t schemes, struct gpu_algorithm *algorithms, int *n) {
	CURRENT(context);
	PASS(set_rows(p, rows));
	cublasLtMatmulHeuristicResult_t *results = calloc(*n, sizeof *results);
	cublasLtMatmulPreference_t preference = NULL;
	if (!results)
		return (struct gpu_result){CUDA_ERROR_OUT_OF_MEMORY, "calloc", 0};
	struct gpu_result r = {CUDA_SUCCESS, "cublasLtMatmulPreferenceCreate", lt.cublasLtMatmulPreferenceCreate(&preference)};
	if (r.status == CUBLAS_STATUS_SUCCESS)
		r = ask(handle, p, preference, schemes, results, n);
	if (preference)
		lt.cublasLtMatmulPreferenceDestroy(preference);
	int kept = 0;
	for (int i = 0; i < *n && r.code == CUDA_SUCCESS && r.status == CUBLAS_STATUS_SUCCESS; i++) {
		if (results[i].state != CUBLAS_STATUS_SUCCESS)
			continue;
		algorithms[kept].algo = results[i].algo;
		r = describe(&algorithms[kept++]);
	}
	*n = kept;
	free(results);
	return r;
}

cublasStatus_t gpu_lt_matmul(cublasLtHandle_t handle, const struct gpu_product *p, CUstream stream) {
	const float one = 1;
	void *d = (void *)(uintptr_t)p->d;
	return lt.cublasLtMatmul(handle, p->desc, &one, (void *)(uintptr_t)p->a, p->layout[0], (void *)(uintptr_t)p->b, p->layout[1], &p->beta, d,
		p->layout[2], d, p->layout[2], &p->algo, (void *)(uintptr_t)p->workspace, p->room, stream);
}
