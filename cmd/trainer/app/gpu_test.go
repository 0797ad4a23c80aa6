//go:build gpu && gpuemu

package app

import (
	"testing"

	_ "rung/cuda/emu" // the driver of scripts that set GPU_DRIVER=emu
)

// What the command says and leaves behind on a GPU, and when one fails: on an emulated one, which runs the kernels.
func TestGPUScripts(t *testing.T) { runScripts(t, "gpu") }
