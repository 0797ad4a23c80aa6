// Package model is the driver that package emu puts in CUDA's place, without the C: contexts, memory, modules, streams,
// events and graphs, and the kernels run by package ptx.
//
// A stream's work waits in a queue until something waits for it: the latest moment that a real driver may choose. What
// relies on work that has not been waited for therefore fails. Its Driver's methods have the names and results of the
// driver's functions.
package model

import (
	"fmt"
	"strconv"
	"strings"
)

// A Result is a driver function's: CUresult.
type Result int

// The results that the model gives.
const (
	Success               Result = 0
	InvalidValue          Result = 1
	OutOfMemory           Result = 2
	NoDevice              Result = 100
	InvalidDevice         Result = 101
	InvalidContext        Result = 201
	InvalidPTX            Result = 218
	InvalidHandle         Result = 400
	IllegalState          Result = 401
	NotFound              Result = 500
	NotReady              Result = 600
	IllegalAddress        Result = 700
	LaunchOutOfResources  Result = 701
	PrimaryContextActive  Result = 708
	ContextIsDestroyed    Result = 709
	Assert                Result = 710
	MisalignedAddress     Result = 716
	LaunchFailed          Result = 719
	NotSupported          Result = 801
	CaptureUnsupported    Result = 900
	CaptureInvalidated    Result = 901
	CaptureUnmatched      Result = 903
	CaptureUnjoined       Result = 904
	CaptureIsolation      Result = 905
	CaptureImplicit       Result = 906
	CapturedEvent         Result = 907
	CaptureWrongThread    Result = 908
	Unknown               Result = 999
	unsupportedPTXVersion Result = 222
)

// A Config says what devices there are and what goes wrong. Numbers of calls and kernels count from 1.
type Config struct {
	Devices    int    // how many
	Name       string // of each
	Capability int    // 90 for 9.0
	SMs        int    // multiprocessors
	Memory     int64  // bytes of each device
	Version    int    // of CUDA, as 12040 for 12.4
	CublasLt   int    // version of cuBLASLt, as 120803 for 12.8.3 (of CUDA 12.8)
	Seed       uint64 // see ptx.Config
	Limit      int64  // instructions of a block, see ptx.Config
	Workers    int    // blocks of a kernel that run at the same time; 0: GOMAXPROCS

	Fail       []Failure // calls that fail
	FailKernel int       // the n-th kernel that runs ends with LaunchFailed
	LoseKernel int       // the device is lost when the n-th kernel runs: every later call fails
	LostResult Result    // with this
}

// A Failure is a call that fails: the n-th of a function, with a result.
type Failure struct {
	Call   string // such as cuMemAlloc_v2
	Nth    int
	Result Result
}

// Defaults is one device of capability 8.0 with 4 GiB, and nothing that goes wrong.
func Defaults() Config {
	return Config{
		Devices: 1, Name: "PTX emulator", Capability: 80, SMs: 4, Memory: 4 << 30, Version: 12000, CublasLt: 120803, Seed: 1, Limit: 1 << 25,
		LostResult: Unknown,
	}
}

// ParseConfig reads "capability=75,memory=64M,fail=cuMemAlloc_v2:3:2" over the defaults. Keys: devices, name, capability,
// sms, memory (K, M or G), version, cublaslt, seed, workers, limit, fail (function:n:result, again and again), failkernel, losekernel, and
// missing, which is not this package's: the functions that the driver lacks, joined by +.
func ParseConfig(text string) (Config, error) {
	c := Defaults()
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		n, err := parseSize(value)
		switch key {
		case "devices":
			c.Devices = int(n)
		case "capability":
			c.Capability = int(n)
		case "sms":
			c.SMs = int(n)
		case "memory":
			c.Memory = n
		case "version":
			c.Version = int(n)
		case "cublaslt":
			c.CublasLt = int(n)
		case "seed":
			c.Seed = uint64(n)
		case "limit":
			c.Limit = n
		case "workers":
			c.Workers = int(n)
		case "failkernel":
			c.FailKernel = int(n)
		case "losekernel":
			c.LoseKernel = int(n)
		case "name":
			c.Name, err = value, nil
		case "missing":
			err = nil
		case "fail":
			var f Failure
			f, err = parseFailure(value)
			c.Fail = append(c.Fail, f)
		default:
			err = fmt.Errorf("unknown key")
		}
		if err != nil {
			return c, fmt.Errorf("emu: %q: %w", part, err)
		}
	}
	return c, nil
}

func parseSize(s string) (int64, error) {
	shift := 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("KMG", s[n-1]); i >= 0 {
			s, shift = s[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(s, 10, 62)
	return n << shift, err
}

func parseFailure(s string) (f Failure, err error) {
	part := strings.Split(s, ":")
	if len(part) != 3 {
		return f, fmt.Errorf("want function:n:result")
	}
	f.Call = part[0]
	if f.Nth, err = strconv.Atoi(part[1]); err != nil {
		return f, err
	}
	n, err := strconv.Atoi(part[2])
	f.Result = Result(n)
	return f, err
}
