//go:build gpu

package app

import "rung/cuda/driver"

// cudaStatus says whether CUDA can be used, and why not.
func cudaStatus() string {
	if why := driver.Why(); why != "" {
		return "built in, but not usable: " + oneLine(why)
	}
	return "built in, and there is a driver"
}
