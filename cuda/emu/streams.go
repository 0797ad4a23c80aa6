//go:build gpu && gpuemu

package emu

/*
#include "../abi/include/cuda.h"
*/
import "C"

import "rung/cuda/emu/internal/model"

//export emu_stream_create
func emu_stream_create(out *C.CUstream, flags C.uint) C.CUresult {
	h, r := get().StreamCreate("cuStreamCreate", thread(), uint32(flags))
	return keep(out, h, r)
}

//export emu_stream_create_with_priority
func emu_stream_create_with_priority(out *C.CUstream, flags C.uint, _ C.int) C.CUresult {
	h, r := get().StreamCreate("cuStreamCreateWithPriority", thread(), uint32(flags))
	return keep(out, h, r)
}

//export emu_stream_destroy
func emu_stream_destroy(s C.CUstream) C.CUresult {
	return C.CUresult(get().StreamDestroy(thread(), handle(s)))
}

//export emu_stream_synchronize
func emu_stream_synchronize(s C.CUstream) C.CUresult {
	return C.CUresult(get().StreamSynchronize(thread(), handle(s)))
}

//export emu_stream_query
func emu_stream_query(s C.CUstream) C.CUresult {
	return C.CUresult(get().StreamQuery(thread(), handle(s)))
}

//export emu_stream_wait_event
func emu_stream_wait_event(s C.CUstream, e C.CUevent, _ C.uint) C.CUresult {
	return C.CUresult(get().StreamWaitEvent(thread(), handle(s), handle(e)))
}

//export emu_stream_begin_capture
func emu_stream_begin_capture(s C.CUstream, mode C.CUstreamCaptureMode) C.CUresult {
	return C.CUresult(get().StreamBeginCapture(thread(), handle(s), int(mode)))
}

//export emu_stream_end_capture
func emu_stream_end_capture(s C.CUstream, graph *C.CUgraph) C.CUresult {
	h, r := get().StreamEndCapture(thread(), handle(s))
	if r != model.Success && graph != nil {
		*graph = nil
	}
	return keep(graph, h, r)
}

//export emu_stream_is_capturing
func emu_stream_is_capturing(s C.CUstream, status *C.CUstreamCaptureStatus) C.CUresult {
	v, r := get().StreamIsCapturing(thread(), handle(s))
	return store(status, C.CUstreamCaptureStatus(v), r)
}

//export emu_event_create
func emu_event_create(out *C.CUevent, flags C.uint) C.CUresult {
	h, r := get().EventCreate(thread(), uint32(flags))
	return keep(out, h, r)
}

//export emu_event_destroy
func emu_event_destroy(e C.CUevent) C.CUresult {
	return C.CUresult(get().EventDestroy(thread(), handle(e)))
}

//export emu_event_record
func emu_event_record(e C.CUevent, s C.CUstream) C.CUresult {
	return C.CUresult(get().EventRecord("cuEventRecord", thread(), handle(e), handle(s)))
}

//export emu_event_record_with_flags
func emu_event_record_with_flags(e C.CUevent, s C.CUstream, _ C.uint) C.CUresult {
	return C.CUresult(get().EventRecord("cuEventRecordWithFlags", thread(), handle(e), handle(s)))
}

//export emu_event_synchronize
func emu_event_synchronize(e C.CUevent) C.CUresult {
	return C.CUresult(get().EventSynchronize(thread(), handle(e)))
}

//export emu_event_query
func emu_event_query(e C.CUevent) C.CUresult {
	return C.CUresult(get().EventQuery(thread(), handle(e)))
}

//export emu_event_elapsed_time
func emu_event_elapsed_time(ms *C.float, from, to C.CUevent) C.CUresult {
	v, r := get().EventElapsedTime(thread(), handle(from), handle(to))
	return store(ms, C.float(v), r)
}

//export emu_graph_instantiate_with_flags
func emu_graph_instantiate_with_flags(out *C.CUgraphExec, g C.CUgraph, _ C.ulonglong) C.CUresult {
	h, r := get().GraphInstantiate(thread(), handle(g))
	return keep(out, h, r)
}

//export emu_graph_launch
func emu_graph_launch(x C.CUgraphExec, s C.CUstream) C.CUresult {
	return C.CUresult(get().GraphLaunch("cuGraphLaunch", thread(), handle(x), handle(s), false))
}

//export emu_graph_upload
func emu_graph_upload(x C.CUgraphExec, s C.CUstream) C.CUresult {
	return C.CUresult(get().GraphLaunch("cuGraphUpload", thread(), handle(x), handle(s), true))
}

//export emu_graph_destroy
func emu_graph_destroy(g C.CUgraph) C.CUresult { return C.CUresult(get().GraphDestroy(handle(g))) }

//export emu_graph_exec_destroy
func emu_graph_exec_destroy(x C.CUgraphExec) C.CUresult {
	return C.CUresult(get().GraphExecDestroy(handle(x)))
}

//export emu_graph_get_nodes
func emu_graph_get_nodes(g C.CUgraph, nodes *C.CUgraphNode, n *C.size_t) C.CUresult {
	if nodes != nil { // nodes have no handles here
		return C.CUDA_ERROR_NOT_SUPPORTED
	}
	v, r := get().GraphGetNodes(handle(g))
	return store(n, C.size_t(v), r)
}
