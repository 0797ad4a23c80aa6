//go:build gpu && gpuemu

// Package emu is a CUDA driver that runs the PTX it is given on the CPU: unchanged host code, gorgonia.org/cu and the
// committed kernels together, with every access of every thread checked (see package ptx), and with the driver's own rules
// for contexts, streams and captures. A program built with the tags gpu and gpuemu that imports it uses it where the
// environment variable GPU_DRIVER is "emu".
//
// The variable GPU_EMU configures it: "capability=75,memory=64M,fail=cuMemAlloc_v2:3:2,failkernel=7". Its keys are
//
//	devices, name, capability (80), sms, memory (4G), version (12000)   what there is
//	cublaslt  version of cuBLASLt (120803), which is here too unless GPU_CUBLASLT names a file: products computed on the CPU
//	seed      shuffles threads and varies .approx results; 0: neither
//	workers   blocks that run at the same time
//	limit     instructions of a block's warps, after which it counts as endless
//	fail      function:n:result: the n-th call of a function fails; may stand several times
//	failkernel, losekernel   the n-th kernel fails, or loses the device
//	missing   functions that the driver lacks, joined by +, as an older one does
//	nodriver  there is none
//
// Work waits in its stream's queue until something waits for it; pinned memory is read then, and must not have changed
// since the copy was queued. What kernels and callers do wrong stands on standard error, a line each, because the results
// of driver functions cannot say it; Faults gives the same to tests.
package emu

import (
	"fmt"
	"iter"
	"os"
	"sync"

	"rung/cuda/emu/internal/model"
	"rung/cuda/ptx"

	_ "rung/cuda/driver" // the C in this package hands it a table of functions
)

// A Config says what devices there are and what goes wrong.
type Config = model.Config

// A Failure is a call that fails.
type Failure = model.Failure

// Defaults is one device of capability 8.0 with 4 GiB, and nothing that goes wrong.
func Defaults() Config { return model.Defaults() }

var (
	once   sync.Once // gorgonia.org/cu may call before this package's variables have values: these need none
	mu     sync.Mutex
	driver *model.Driver
	quiet  bool
)

// get is the driver; the first call reads GPU_EMU.
func get() *model.Driver {
	once.Do(func() {
		c, err := model.ParseConfig(os.Getenv("GPU_EMU"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			c.Devices = 0
		}
		mu.Lock()
		defer mu.Unlock()
		if driver == nil {
			driver = model.New(c, report)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	return driver
}

func report(err error) {
	mu.Lock()
	defer mu.Unlock()
	if !quiet {
		fmt.Fprintln(os.Stderr, err)
	}
}

// Reset starts a new driver: what was made with the old one is invalid, what was overridden still is. Quiet keeps faults from standard error.
func Reset(c Config, quietly bool) {
	get()
	mu.Lock()
	defer mu.Unlock()
	next := model.New(c, report)
	next.Inherit(driver)
	driver, quiet = next, quietly
}

// Faults are what kernels and callers did wrong since the last Reset.
func Faults() []error { return get().Faults() }

// Leaks lists what has been made and not freed, in words.
func Leaks() []string { return get().Leaks() }

// Calls is how often each driver function has been called since the last Reset.
func Calls() map[string]int { return get().Calls() }

// Kernels is how many kernels have run since the last Reset.
func Kernels() int { return get().Kernels() }

// Override lets another kernel run in place of those of a name, such as a mutant; nil takes it back.
func Override(name string, k *ptx.Kernel) { get().Override(name, k) }

// Coverage ranges over the kernels of the loaded modules, with the instructions that threads have executed: since the
// process started, whatever was Reset.
func Coverage() iter.Seq2[*ptx.Kernel, []ptx.Line] { return get().Coverage }

// Unrun lists the instructions of the loaded modules' kernels that no thread has executed.
func Unrun() []ptx.Line { return get().Unrun() }
