//go:build gpu && gpuemu

package main

import _ "rung/cuda/emu" // the driver where GPU_DRIVER=emu
