//go:build !gpu

package app

// cudaStatus says whether CUDA can be used, and why not.
func cudaStatus() string { return "not built in: this binary was built without the tag gpu" }
