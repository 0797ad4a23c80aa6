//go:build !(cgo && (amd64 || arm64) && unix)

// Package peak measures the physical limit that kernels are compared with.
package peak

// GFLOPS is 0: this build has no kernels to compare.
func GFLOPS(string) float64 { return 0 }
