//go:build gpu && gpuemu

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "../abi/include/cuda.h"
#include "../abi/include/cublaslt.h"
#include "../driver/driver.h"
#include "../driver/products.h"
#include "_cgo_export.h"

/* These are called before Go code may run, or need C's constants. */

static CUresult init(unsigned int flags) { return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

#define NAME(error)   \
	case error:   \
		return #error
static const char *name_of(CUresult error) {
	switch ((int)error) {
		NAME(CUDA_SUCCESS);
		NAME(CUDA_ERROR_INVALID_VALUE);
		NAME(CUDA_ERROR_OUT_OF_MEMORY);
		NAME(CUDA_ERROR_NOT_INITIALIZED);
		NAME(CUDA_ERROR_NO_DEVICE);
		NAME(CUDA_ERROR_INVALID_DEVICE);
		NAME(CUDA_ERROR_INVALID_CONTEXT);
		NAME(CUDA_ERROR_ECC_UNCORRECTABLE);
		NAME(CUDA_ERROR_INVALID_PTX);
		NAME(CUDA_ERROR_INVALID_HANDLE);
		NAME(CUDA_ERROR_ILLEGAL_STATE);
		NAME(CUDA_ERROR_NOT_FOUND);
		NAME(CUDA_ERROR_NOT_READY);
		NAME(CUDA_ERROR_ILLEGAL_ADDRESS);
		NAME(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
		NAME(CUDA_ERROR_LAUNCH_TIMEOUT);
		NAME(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE);
		NAME(CUDA_ERROR_CONTEXT_IS_DESTROYED);
		NAME(CUDA_ERROR_ASSERT);
		NAME(CUDA_ERROR_HARDWARE_STACK_ERROR);
		NAME(CUDA_ERROR_ILLEGAL_INSTRUCTION);
		NAME(CUDA_ERROR_MISALIGNED_ADDRESS);
		NAME(CUDA_ERROR_LAUNCH_FAILED);
		NAME(CUDA_ERROR_NOT_PERMITTED);
		NAME(CUDA_ERROR_NOT_SUPPORTED);
		NAME(CUDA_ERROR_SYSTEM_NOT_READY);
		NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
		NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
		NAME(CUDA_ERROR_STREAM_CAPTURE_MERGE);
		NAME(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
		NAME(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
		NAME(CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
		NAME(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
		NAME(CUDA_ERROR_CAPTURED_EVENT);
		NAME(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
		NAME(CUDA_ERROR_UNKNOWN);
	case 222: /* since CUDA 11.1; cuda.h here does not name it */
		return "CUDA_ERROR_UNSUPPORTED_PTX_VERSION";
	default:
		return NULL;
	}
}

static CUresult error_name(CUresult error, const char **name) {
	*name = name_of(error);
	return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult ignore(void) { return CUDA_SUCCESS; } /* what only asks for speed */

#define DRIVER_FUNCTIONS                                                  \
	F(cuInit, init)                                                   \
	F(cuGetErrorName, error_name)                                     \
	F(cuGetErrorString, error_name)                                   \
	F(cuDriverGetVersion, emu_driver_get_version)                     \
	F(cuDeviceGetCount, emu_device_get_count)                         \
	F(cuDeviceGet, emu_device_get)                                    \
	F(cuDeviceGetName, emu_device_get_name)                           \
	F(cuDeviceGetUuid, emu_device_get_uuid)                           \
	F(cuDeviceGetPCIBusId, emu_device_get_pci_bus_id)                 \
	F(cuDeviceTotalMem_v2, emu_device_total_mem)                      \
	F(cuDeviceGetAttribute, emu_device_get_attribute)                 \
	F(cuDevicePrimaryCtxRetain, emu_primary_retain)                   \
	F(cuDevicePrimaryCtxRelease_v2, emu_primary_release)              \
	F(cuDevicePrimaryCtxReset_v2, emu_primary_reset)                  \
	F(cuDevicePrimaryCtxSetFlags_v2, emu_primary_set_flags)           \
	F(cuDevicePrimaryCtxGetState, emu_primary_get_state)              \
	F(cuCtxCreate_v2, emu_ctx_create)                                 \
	F(cuCtxDestroy_v2, emu_ctx_destroy)                               \
	F(cuCtxSetCurrent, emu_ctx_set_current)                           \
	F(cuCtxGetCurrent, emu_ctx_get_current)                           \
	F(cuCtxPushCurrent_v2, emu_ctx_push_current)                      \
	F(cuCtxPopCurrent_v2, emu_ctx_pop_current)                        \
	F(cuCtxGetDevice, emu_ctx_get_device)                             \
	F(cuCtxSynchronize, emu_ctx_synchronize)                          \
	F(cuCtxSetCacheConfig, ignore)                                    \
	F(cuCtxSetSharedMemConfig, ignore)                                \
	F(cuMemAlloc_v2, emu_mem_alloc)                                   \
	F(cuMemFree_v2, emu_mem_free)                                     \
	F(cuMemGetInfo_v2, emu_mem_get_info)                              \
	F(cuMemGetAddressRange_v2, emu_mem_get_address_range)             \
	F(cuMemHostAlloc, emu_mem_host_alloc)                             \
	F(cuMemAllocHost_v2, emu_mem_alloc_host)                          \
	F(cuMemFreeHost, emu_mem_free_host)                               \
	F(cuMemcpyHtoD_v2, emu_memcpy_htod)                               \
	F(cuMemcpyDtoH_v2, emu_memcpy_dtoh)                               \
	F(cuMemcpyDtoD_v2, emu_memcpy_dtod)                               \
	F(cuMemcpyHtoDAsync_v2, emu_memcpy_htod_async)                    \
	F(cuMemcpyDtoHAsync_v2, emu_memcpy_dtoh_async)                    \
	F(cuMemcpyDtoDAsync_v2, emu_memcpy_dtod_async)                    \
	F(cuMemsetD8_v2, emu_memset_d8)                                   \
	F(cuMemsetD16_v2, emu_memset_d16)                                 \
	F(cuMemsetD32_v2, emu_memset_d32)                                 \
	F(cuMemsetD8Async, emu_memset_d8_async)                           \
	F(cuMemsetD16Async, emu_memset_d16_async)                         \
	F(cuMemsetD32Async, emu_memset_d32_async)                         \
	F(cuModuleLoadData, emu_module_load_data)                         \
	F(cuModuleLoadDataEx, emu_module_load_data_ex)                    \
	F(cuModuleUnload, emu_module_unload)                              \
	F(cuModuleGetFunction, emu_module_get_function)                   \
	F(cuModuleGetGlobal_v2, emu_module_get_global)                    \
	F(cuFuncSetAttribute, emu_func_set_attribute)                     \
	F(cuFuncGetAttribute, emu_func_get_attribute)                     \
	F(cuFuncSetCacheConfig, ignore)                                   \
	F(cuFuncSetSharedMemConfig, ignore)                               \
	F(cuLaunchKernel, emu_launch_kernel)                              \
	F(cuLaunchKernelEx, emu_launch_kernel_ex)                         \
	F(cuStreamCreate, emu_stream_create)                              \
	F(cuStreamCreateWithPriority, emu_stream_create_with_priority)    \
	F(cuStreamDestroy_v2, emu_stream_destroy)                         \
	F(cuStreamSynchronize, emu_stream_synchronize)                    \
	F(cuStreamQuery, emu_stream_query)                                \
	F(cuStreamWaitEvent, emu_stream_wait_event)                       \
	F(cuStreamBeginCapture_v2, emu_stream_begin_capture)              \
	F(cuStreamEndCapture, emu_stream_end_capture)                     \
	F(cuStreamIsCapturing, emu_stream_is_capturing)                   \
	F(cuEventCreate, emu_event_create)                                \
	F(cuEventDestroy_v2, emu_event_destroy)                           \
	F(cuEventRecord, emu_event_record)                                \
	F(cuEventRecordWithFlags, emu_event_record_with_flags)            \
	F(cuEventSynchronize, emu_event_synchronize)                      \
	F(cuEventQuery, emu_event_query)                                  \
	F(cuEventElapsedTime, emu_event_elapsed_time)                     \
	F(cuGraphInstantiateWithFlags, emu_graph_instantiate_with_flags)  \
	F(cuGraphLaunch, emu_graph_launch)                                \
	F(cuGraphUpload, emu_graph_upload)                                \
	F(cuGraphDestroy, emu_graph_destroy)                              \
	F(cuGraphExecDestroy, emu_graph_exec_destroy)                     \
	F(cuGraphGetNodes, emu_graph_get_nodes)

#define CUBLASLT_FUNCTIONS                                                \
	F(cublasLtGetVersion, emu_lt_version)                             \
	F(cublasLtGetCudartVersion, emu_lt_cuda)                          \
	F(cublasLtCreate, emu_lt_create)                                  \
	F(cublasLtDestroy, emu_lt_destroy)                                \
	F(cublasLtMatmulDescCreate, emu_lt_desc_create)                   \
	F(cublasLtMatmulDescDestroy, emu_lt_desc_destroy)                 \
	F(cublasLtMatmulDescSetAttribute, emu_lt_desc_set)                \
	F(cublasLtMatrixLayoutCreate, emu_lt_layout_create)               \
	F(cublasLtMatrixLayoutDestroy, emu_lt_layout_destroy)             \
	F(cublasLtMatrixLayoutSetAttribute, emu_lt_layout_set)            \
	F(cublasLtMatmulPreferenceCreate, emu_lt_preference_create)       \
	F(cublasLtMatmulPreferenceDestroy, emu_lt_preference_destroy)     \
	F(cublasLtMatmulPreferenceSetAttribute, emu_lt_preference_set)    \
	F(cublasLtMatmulAlgoGetHeuristic, emu_lt_heuristic)               \
	F(cublasLtMatmulAlgoCheck, emu_lt_check)                          \
	F(cublasLtMatmulAlgoConfigGetAttribute, emu_lt_config)            \
	F(cublasLtMatmul, emu_lt_matmul)

#define F(name, function) {#name, (void *)function},
static const struct gpu_function all[] = {DRIVER_FUNCTIONS {NULL, NULL}}, products[] = {CUBLASLT_FUNCTIONS {NULL, NULL}};
static struct gpu_function table[sizeof all / sizeof all[0]], product_table[sizeof products / sizeof products[0]];

/* Whether a name stands in "missing=a+b" of a configuration. */
static int is_missing(const char *config, const char *name) {
	const char *list = config ? strstr(config, "missing=") : NULL;
	if (!list)
		return 0;
	const char *end = strchrnul(list, ',');
	size_t n = strlen(name);
	for (const char *at = list + strlen("missing="); at < end;) {
		const char *next = at + strcspn(at, "+,");
		if ((size_t)(next - at) == n && !strncmp(at, name, n))
			return 1;
		at = next + 1;
	}
	return 0;
}

/* What is not missing. */
static void copy(struct gpu_function *to, const struct gpu_function *from, const char *config) {
	for (; from->name; from++)
		if (!is_missing(config, from->name))
			*to++ = *from;
}

__attribute__((constructor)) static void choose(void) {
	const char *driver = getenv("GPU_DRIVER"), *config = getenv("GPU_EMU");
	if (!driver || strcmp(driver, "emu") || (config && strstr(config, "nodriver")))
		return; /* then "emu" is a library that does not exist */
	copy(table, all, config);
	copy(product_table, products, config);
	gpu_lt_use(product_table);
	if (gpu_use(table) != 0)
		abort();
}
