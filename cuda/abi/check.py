#!/usr/bin/env python3
"""Compares our declarations of the CUDA driver ABI with a real cuda.h (11.8 to 13.x): every constant, every prototype that
the real header still declares, every structure's size and the offset and size of its fields.

    check.py CUDA_INCLUDE
    check.py --cublaslt INCLUDE...

The second compares those of cuBLASLt with a real cublasLt.h; it and the headers of CUDA's runtime that it needs are in the
folders named. Needs a C compiler ($CC, cc otherwise). Prints what it compared, and ends with 1 where anything differs.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CC = os.environ.get("CC", "cc")
OURS = Path(__file__).resolve().parent / "include"

# A mask of all flags grows with the version; nothing here uses it.
GROWS = {"CU_CTX_FLAGS_MASK"}


def compile_c(code, *options):
    """Compiles a C program and returns the compiler's error lines, in English whatever the locale."""
    r = subprocess.run(
        [CC, "-std=gnu11", "-w", *options, "-x", "c", "-"],
        input=code, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
    )
    errors = [line for line in r.stderr.splitlines() if "error:" in line]
    return errors or ([r.stderr] if r.returncode else [])


def preprocess(include, *options):
    command = [CC, "-E", *options, f"-I{include}", "-include", "cuda.h", "-x", "c", os.devnull]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def check_constants(include):
    text = (OURS / "cuda.h").read_text()
    constants = re.findall(r"^\t(CU\w+) = (-?\d+),", text, re.M) + re.findall(r"^#define (CU_\w+) (-?\d+)$", text, re.M)
    constants = [(n, v) for n, v in constants if not n.endswith("_unused") and n not in GROWS]
    asserts = "\n".join(f'_Static_assert((long long)({n}) == {v}LL, "{n} is not {v}");' for n, v in constants)
    errors = compile_c("#include <cuda.h>\n" + asserts, "-fsyntax-only", f"-I{include}")
    gone = sorted(set(re.findall(r"error: '(\w+)' undeclared", "\n".join(errors))))
    errors = [e for e in errors if "undeclared" not in e]
    print(f"{len(constants)} constants, {len(errors)} differ, {len(gone)} not in this header", *gone)
    return errors


def check_functions(include):
    symbols = re.findall(r"^CUDA_FUNCTION\((\w+),", (OURS / "cuda_fn.h").read_text(), re.M)
    declared = set(re.findall(r"CUresult\s+(cu\w+)\(", preprocess(include, "-P")))
    mapped = set(re.findall(r"^#define (\w+) ", preprocess(include, "-dM"), re.M))
    # a second declaration that differs from the first is an error; undo the header's renaming of unversioned names first
    undo = "\n".join(f"#undef {s}" for s in symbols if s in mapped)
    code = f"""
#include <cuda.h>
{undo}
#define CUDA_FUNCTION(name, parameters, arguments) CUresult name parameters;
#include "{OURS}/cuda_fn.h"
"""
    errors = compile_c(code, "-fsyntax-only", f"-I{include}")
    gone = sorted(set(symbols) - declared)
    print(f"{len(symbols) - len(gone)} functions, {len(errors)} differ, {len(gone)} not in this header", *gone)
    return errors


def fields(body):
    """The field names in the text of a structure, as declared in structs.h."""
    for declaration in body.split(";"):
        declaration = re.sub(r"\[[^\]]*\]", "", declaration)
        for declarator in declaration.split(","):
            words = re.findall(r"\w+", declarator)
            if words and not re.match(r"pad$|bytes$|reserved", words[-1]):
                yield words[-1]


def layout(include, structures):
    """Runs a program that prints sizes and offsets as this header gives them."""
    prints = []
    for name, body in structures:
        prints.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for f in fields(body):
            prints.append(f'printf("{name}.{f} %zu %zu\\n", offsetof({name}, {f}), sizeof((({name} *)0)->{f}));')
    code = "#include <cuda.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {" + "".join(prints) + "}"
    with tempfile.TemporaryDirectory() as d:
        program = Path(d, "layout")
        if errors := compile_c(code, f"-I{include}", "-o", str(program)):
            return [], errors
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines(), []


def check_structures(include):
    text = (OURS / "structs.h").read_text()
    structures = [(m[2], m[1]) for m in re.finditer(r"typedef struct(?: \w+)? \{([^{}]*)\} (\w+);", text)]
    ours, errors = layout(OURS, structures)
    real, more = layout(include, structures)
    errors += more
    if not errors:
        errors = [f"ours: {a}, theirs: {b} (offset and size)" for a, b in zip(ours, real, strict=True) if a != b]
    print(f"{len(structures)} structures, {len(ours)} sizes and offsets, {len(errors)} differ")
    return errors


# Structures of cuBLASLt by their fields; of the enumerations only the size matters.
LT_STRUCTURES = {
    "cublasLtMatmulAlgo_t": ["data"],
    "cublasLtMatmulHeuristicResult_t": ["algo", "workspaceSize", "state", "wavesCount"],
}


def check_cublaslt(folders):
    """Every constant and prototype has to be in the real header, and to agree."""
    constants = re.findall(r"^CUBLASLT_CONSTANT\((\w+), (\d+)\)$", (OURS / "cublaslt_const.h").read_text(), re.M)
    functions = re.findall(r"^CUBLASLT_FUNCTION\((.+?), (\w+), (\(.*\))\)$", (OURS / "cublaslt_fn.h").read_text(), re.M)
    enums = re.search(r"^typedef int ([^;]+);", (OURS / "cublaslt.h").read_text(), re.M)[1]
    asserts = [f'_Static_assert({n} == {v}, "{n} is not {v}");' for n, v in constants]
    asserts += [f'_Static_assert(sizeof({t.strip()}) == sizeof(int), "{t.strip()} is no int");' for t in enums.split(",")]
    for _, name, _ in functions:  # an address that is taken must have been declared
        asserts.append(f"void *declared_{name}(void) {{ return (void *)&{name}; }}")
    asserts += [f"{result} {name} {parameters};" for result, name, parameters in functions]
    include = [f"-I{f}" for f in folders]
    head = "#include <cublasLt.h>\n#include <stddef.h>\n"
    errors = compile_c(head + "\n".join(asserts), "-fsyntax-only", *include)
    print(f"cuBLASLt: {len(constants)} constants, {len(functions)} functions, {len(errors)} differ")

    def sizes(header, *options):
        prints = "".join(
            f'printf("{t}.{f} %zu %zu %zu\\n", sizeof({t}), offsetof({t}, {f}), sizeof((({t} *)0)->{f}));'
            for t, fields in LT_STRUCTURES.items() for f in fields
        )
        code = f"#include {header}\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{ {prints} }}"
        with tempfile.TemporaryDirectory() as d:
            program = Path(d, "sizes")
            if wrong := compile_c(code, *options, "-o", str(program)):
                return wrong
            return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()

    ours, real = sizes(f'"{OURS}/cublaslt.h"'), sizes("<cublasLt.h>", *include)
    different = [f"ours: {a}, theirs: {b} (size, offset and size)" for a, b in zip(ours, real) if a != b]
    print(f"cuBLASLt: {len(LT_STRUCTURES)} structures, {len(ours)} fields, {len(different)} differ")
    return errors + different


def main():
    arguments = sys.argv[1:]
    if len(arguments) > 1 and arguments[0] == "--cublaslt":
        errors = check_cublaslt(arguments[1:])
    elif len(arguments) == 1:
        include = arguments[0]
        errors = check_constants(include) + check_functions(include) + check_structures(include)
    else:
        sys.exit(__doc__)
    for e in errors:
        print(e)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
