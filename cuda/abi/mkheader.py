#!/usr/bin/env python3
"""Writes include/cuda.h and include/cuda_fn.h: our declarations of the CUDA driver ABI.

    mkheader.py CUDA_INCLUDE CU_SOURCE

A maintainer's tool that no build runs. It collects the names of the driver API that gorgonia.org/cu (its source folder is
CU_SOURCE) and this module (EXTRA, below) use, and asks a real cuda.h 12.x (in CUDA_INCLUDE) through clang for their values
and types: numbers and calling conventions, which are the ABI; no text of that header is copied. include/structs.h is
written by hand. $CLANG names the compiler, clang-19 otherwise. check.py compares the result with any real header.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CLANG = os.environ.get("CLANG", "clang-19")
INCLUDE = Path(__file__).resolve().parent / "include"

# What this module calls and gorgonia.org/cu does not name.
EXTRA = """
cuGetErrorName cuGetErrorString cuGetProcAddress cuFuncSetAttribute cuFuncGetAttribute cuLaunchKernelEx cuLaunchHostFunc
cuCtxGetId cuDeviceGetPCIBusId cuOccupancyMaxActiveClusters cuEventRecordWithFlags
cuMemHostAlloc cuMemHostGetDevicePointer cuMemHostRegister cuMemHostUnregister
cuMemAllocAsync cuMemFreeAsync cuDeviceGetDefaultMemPool cuMemPoolSetAttribute cuMemPoolTrimTo
cuStreamBeginCapture cuStreamEndCapture cuStreamIsCapturing cuThreadExchangeStreamCaptureMode
cuGraphInstantiateWithFlags cuGraphLaunch cuGraphUpload cuGraphExecUpdate cuGraphGetNodes cuGraphNodeGetType
cuGraphKernelNodeGetParams cuGraphExecKernelNodeSetParams
CU_STREAM_CAPTURE_MODE_GLOBAL CU_STREAM_CAPTURE_MODE_THREAD_LOCAL CU_STREAM_CAPTURE_MODE_RELAXED
CU_STREAM_CAPTURE_STATUS_NONE CU_STREAM_CAPTURE_STATUS_ACTIVE CU_STREAM_CAPTURE_STATUS_INVALIDATED
CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD
CU_GRAPH_EXEC_UPDATE_SUCCESS CU_GRAPH_EXEC_UPDATE_ERROR
CU_GRAPH_NODE_TYPE_KERNEL CU_GRAPH_NODE_TYPE_MEMCPY CU_GRAPH_NODE_TYPE_MEMSET
CU_MEMPOOL_ATTR_RELEASE_THRESHOLD CU_MEMPOOL_ATTR_USED_MEM_CURRENT CU_MEMPOOL_ATTR_USED_MEM_HIGH
CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH
CU_MEMHOSTALLOC_PORTABLE CU_MEMHOSTALLOC_DEVICEMAP CU_MEMHOSTALLOC_WRITECOMBINED CU_MEMHOSTREGISTER_PORTABLE
CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
CU_FUNC_ATTRIBUTE_NUM_REGS CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED
CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION CU_LAUNCH_ATTRIBUTE_PRIORITY
CU_EVENT_DISABLE_TIMING CU_STREAM_NON_BLOCKING
CUDA_ERROR_NO_DEVICE CUDA_ERROR_SYSTEM_DRIVER_MISMATCH CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND
CUDA_ERROR_SHARED_OBJECT_INIT_FAILED CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
CUmemoryPool CUstreamCaptureMode CUstreamCaptureStatus CUgraphNodeType CUlaunchConfig CUgraphExecUpdateResultInfo
""".split()


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wanted_names(cu_source):
    """Every name of the driver API in cu's Go (C.name) and C files, and ours."""
    names = set(EXTRA)
    for path in cu_source.iterdir():
        if path.suffix not in (".go", ".c", ".h"):
            continue
        text = path.read_text()
        names |= set(re.findall(r"\bC\.(?:struct_|enum_)?([A-Za-z_]\w*)", text))
        if path.suffix != ".go":
            names |= set(re.findall(r"\b(?:cu[A-Z]|CU[a-z_D])\w*", text))
    return names


class RealHeader:
    """What a real cuda.h declares, as clang reads it."""

    def __init__(self, include):
        self.flags = [f"-I{include}", "-include", "cuda.h", "-x", "c"]
        self.macros = {}  # name -> replacement
        for line in run(CLANG, "-E", "-dM", *self.flags, os.devnull).splitlines():
            if m := re.match(r"#define (\w+) (.+)", line):
                # __CUDA_API_PTSZ(cuX) and its like choose a variant of cuX; the plain one is wanted
                self.macros[m[1]] = re.sub(r"^__CUDA_API_\w+\((\w+)\)$", r"\1", m[2])
        self.functions = {}  # symbol -> type
        self.typedefs = {}  # name -> type
        self.enums = {}  # name of the typedef -> its constants
        ast = run(CLANG, "-fsyntax-only", "-Xclang", "-ast-dump=json", *self.flags, os.devnull)
        constants = None  # of the last enum without an owner: its typedef follows it
        for d in json.loads(ast)["inner"]:
            if d["kind"] == "FunctionDecl":
                self.functions[d["name"]] = d["type"]["qualType"]
            elif d["kind"] == "EnumDecl":
                constants = [e["name"] for e in d.get("inner", []) if e["kind"] == "EnumConstantDecl"]
            elif d["kind"] == "TypedefDecl":
                self.typedefs[d["name"]] = d["type"]["qualType"]
                if d["type"]["qualType"].startswith("enum ") and constants:
                    self.enums.setdefault(d["name"], constants)
                    constants = None

    def values(self, names):
        """The numbers behind the names, by compiling and running a program that prints them."""
        prints = "".join(f'printf("%lld\\n", (long long)({n}));' for n in names)
        with tempfile.TemporaryDirectory() as d:
            source, program = Path(d, "values.c"), Path(d, "values")
            source.write_text(f"#include <stdio.h>\nint main(void) {{ {prints} }}")
            run(CLANG, "-w", *self.flags, str(source), "-o", str(program))
            return dict(zip(names, map(int, run(str(program)).split())))


class Selection:
    """The wanted names, sorted by what they are."""

    def __init__(self, names, real):
        owner = {c: enum for enum, constants in real.enums.items() for c in constants}
        self.functions = {}  # name in the source -> symbol (cuMemAlloc -> cuMemAlloc_v2)
        self.enums = {}  # enum -> its wanted constants
        self.defines, self.types, self.unknown = [], set(), []
        for n in sorted(names):
            macro = real.macros.get(n, "")
            if n in owner:
                self.enums.setdefault(owner[n], []).append(n)
            elif macro in real.functions:
                self.functions[n] = macro
            elif n in real.functions and n.startswith("cu"):
                self.functions[n] = n
            elif n in real.typedefs:
                self.types.add(n)
            elif re.match(r"[(]*(0x)?[-0-9]", macro):
                self.defines.append(n)
            elif n[:2].lower() == "cu":
                self.unknown.append(n)
        self.constants = [c for cs in self.enums.values() for c in cs] + self.defines
        self.parameters = {}  # symbol -> parameter types
        for symbol in self.functions.values():
            types = re.match(r"CUresult \((.*)\)$", real.functions[symbol])[1]
            self.parameters[symbol] = [] if types == "void" else [t.strip() for t in types.split(",")]
        # the types that parameters and structures name must be declared too
        text = (INCLUDE / "structs.h").read_text() + " ".join(t for p in self.parameters.values() for t in p)
        self.types |= set(re.findall(r"\bCU[a-z]\w+", text))


HEAD = """\
/*
 * Generated by mkheader.py: the part of the CUDA driver ABI (12.x) that gorgonia.org/cu and this module use. Our own
 * declarations, so that a build needs no CUDA toolkit: names, numbers and calling conventions only.
 *
 * The versions are those of 12.x throughout (cuMemAlloc is cuMemAlloc_v2, and so on), which later drivers keep exporting.
 */
#ifndef CUDA_VERSION
#define CUDA_VERSION 12000

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h> /* gorgonia.org/cu frees memory and relies on cuda.h for the declaration */

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef uint32_t cuuint32_t;
typedef uint64_t cuuint64_t;
"""

TAIL = """
#define CUDA_FUNCTION(name, parameters, arguments) CUresult name parameters;
#include "cuda_fn.h"
#undef CUDA_FUNCTION

#endif
"""


def cuda_h(real, selection):
    value = real.values(selection.constants)
    lines = [HEAD]
    for t in sorted(selection.types):
        if re.match(r"struct \w+ \*$", real.typedefs.get(t, "")):  # an opaque handle
            lines.append(f"typedef {real.typedefs[t]}{t};")
    enums = set(selection.enums) | {t for t in selection.types if real.typedefs.get(t, "").startswith("enum ")}
    for enum in sorted(enums):
        constants = sorted(selection.enums.get(enum, []), key=lambda c: (value[c], c))
        body = [f"\t{c} = {value[c]}," for c in constants] or [f"\t{enum}_unused = 0,"]
        lines += ["", "typedef enum {", *body, f"}} {enum};"]
    lines += [""] + [f"#define {d} {value[d]}" for d in selection.defines]
    lines += ["", '#include "structs.h"', ""]
    lines += [f"#define {n} {symbol}" for n, symbol in sorted(selection.functions.items()) if n != symbol]
    return "\n".join(lines) + "\n" + TAIL


def cuda_fn_h(selection):
    lines = ["/* Generated by mkheader.py: CUDA_FUNCTION(symbol, parameters, arguments) for each driver function. */"]
    for symbol in sorted(set(selection.functions.values())):
        types = selection.parameters[symbol]
        names = [chr(ord("a") + i) for i in range(len(types))]
        declared = ", ".join(t + n if t.endswith("*") else f"{t} {n}" for t, n in zip(types, names)) or "void"
        lines.append(f"CUDA_FUNCTION({symbol}, ({declared}), ({', '.join(names)}))")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    real = RealHeader(sys.argv[1])
    selection = Selection(wanted_names(Path(sys.argv[2])), real)
    (INCLUDE / "cuda.h").write_text(cuda_h(real, selection))
    (INCLUDE / "cuda_fn.h").write_text(cuda_fn_h(selection))
    print("not in this cuda.h (cu's own names, or dropped):", *selection.unknown)
    print(len(selection.functions), "functions,", len(selection.constants), "constants,", len(selection.types), "types")


if __name__ == "__main__":
    main()
