#!/usr/bin/env python3
"""ptx.py [--write] [FILE.cu ...]: the committed PTX was made of these sources by the pinned NVRTC, and ptxas takes it for
sm_80 and sm_90 without a spill and within the registers of registers.txt. NVRTC 11.8 does not always write the same bytes
for the largest kernels (their registers are numbered in another order from run to run): the first line of each file is the
hash of what it was made of, and a fresh compilation must have the same kernels with the same parameters. It needs no GPU,
no driver and no toolkit, only

    pip install --no-deps nvidia-cuda-nvrtc-cu11==11.8.89 nvidia-cuda-nvcc-cu11==11.8.89

--write replaces the PTX and the table. NVRTC 11.8 writes PTX 7.8, which every driver from 520 on takes; that of a newer
one would need a newer driver."""
import concurrent.futures
import ctypes
import glob
import hashlib
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PIN = (11, 8)
TABLE = os.path.join(HERE, 'registers.txt')


def installed(pattern):
    for path in sys.path:
        for found in sorted(glob.glob(os.path.join(path, 'nvidia', pattern))):
            return found
    sys.exit(f'{pattern} not found: see the head of {os.path.basename(__file__)}')


def compile(nvrtc, path):
    """The PTX of a source. Only the base name is given to the compiler: no machine's paths in its output."""
    def check(result):
        if result:
            nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
            sys.exit(f'{path}: nvrtc: {nvrtc.nvrtcGetErrorString(result).decode()}')
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    headers = sorted(glob.glob(os.path.join(HERE, '*.cuh')))
    texts = (ctypes.c_char_p * len(headers))(*[open(h, 'rb').read() for h in headers])
    names = (ctypes.c_char_p * len(headers))(*[os.path.basename(h).encode() for h in headers])
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), open(path, 'rb').read(), os.path.basename(path).encode(), len(headers), texts, names))
    options = [b'--gpu-architecture=compute_80', b'--std=c++17', b'-default-device']
    result = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetProgramLog(program, log))
    if log.value:
        print(log.value.decode(), file=sys.stderr)
    check(result)
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx.raw.rstrip(b'\0')


def origin(path):
    """The first line of the PTX of a source: the hash of it and of all headers."""
    parts = [path] + sorted(glob.glob(os.path.join(HERE, '*.cuh')))
    return b'// made of ' + hashlib.sha256(b'\0'.join(open(f, 'rb').read() for f in parts)).hexdigest().encode() + b'\n'


def entries(ptx):
    """The kernels of a PTX text and their parameters."""
    return re.findall(rb'\.entry (\w+)\(([^)]*)\)', ptx)


def assemble(ptxas, path, arch):
    """Registers and bytes of static shared memory of each kernel, and complaints."""
    with tempfile.NamedTemporaryFile() as out:
        r = subprocess.run([ptxas, '-v', '-arch=' + arch, path, '-o', out.name], capture_output=True, text=True)
    if r.returncode:
        return {}, [f'{path}: ptxas refuses it for {arch}: {r.stderr}']
    kernels, bad = {}, []
    for entry in re.split(r"Compiling entry function '", r.stderr)[1:]:
        name = entry.split("'")[0]
        shared = re.search(r'(\d+) bytes smem', entry)
        kernels[name] = int(re.search(r'Used (\d+) registers', entry)[1]), int(shared[1]) if shared else 0
        if any(int(n) for n in re.findall(r'(\d+) bytes (?:stack|spill)', entry)):
            bad.append(f'{path}: {name} spills for {arch}')
    return kernels, bad


def main():
    write = '--write' in sys.argv
    sources = [a for a in sys.argv[1:] if a != '--write'] or sorted(glob.glob(os.path.join(HERE, '*.cu')))
    library = installed('cuda_nvrtc/lib/libnvrtc.so.11.2')
    ptxas = installed('cuda_nvcc/bin/ptxas')
    os.chmod(ptxas, 0o755)
    folder = os.path.dirname(library)
    if folder not in os.environ.get('LD_LIBRARY_PATH', '').split(':'):  # NVRTC opens a second library by name
        os.environ['LD_LIBRARY_PATH'] = folder + ':' + os.environ.get('LD_LIBRARY_PATH', '')
        os.execv(sys.executable, [sys.executable] + sys.argv)
    nvrtc = ctypes.CDLL(library)
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    if (major.value, minor.value) != PIN:
        sys.exit(f'NVRTC {major.value}.{minor.value} is not the pinned {PIN[0]}.{PIN[1]}')
    bad = []
    for path in sources:
        ptx, out = compile(nvrtc, path), path[:-3] + '.ptx'
        if write:
            open(out, 'wb').write(origin(path) + ptx)
            continue
        old = open(out, 'rb').read() if os.path.exists(out) else b''
        if not old.startswith(origin(path)) or entries(old) != entries(ptx):
            bad.append(f'{os.path.basename(out)} is not of its source: make ptx')
        elif old != origin(path) + ptx:
            print(f'{os.path.basename(out)}: of the same source, in other bytes')
    outs = [p[:-3] + '.ptx' for p in sources]
    jobs = [(o, a) for o in outs for a in ('sm_80', 'sm_90')]
    table = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (out, arch), (kernels, complaints) in zip(jobs, pool.map(lambda j: assemble(ptxas, *j), jobs)):
            bad += complaints
            for name, (registers, shared) in kernels.items():
                table.setdefault(name, {})[arch] = registers, shared
    lines = ['# kernel, registers for sm_80 and sm_90 by ptxas 11.8, bytes of static shared memory: written by ptx.py\n']
    lines += [f'{name} {k["sm_80"][0]} {k["sm_90"][0]} {k["sm_80"][1]}\n' for name, k in sorted(table.items()) if len(k) == 2]
    if len(sys.argv) - write == 1:
        if write:
            open(TABLE, 'w').writelines(lines)
        elif open(TABLE).readlines() != lines:
            bad.append('registers.txt is not what ptxas says: make ptx, and look at what changed')
    else:
        sys.stdout.writelines(lines)
    print('\n'.join(bad) if bad else f'{len(table)} kernels of {len(outs)} files: no spills')
    sys.exit(bool(bad))


main()
