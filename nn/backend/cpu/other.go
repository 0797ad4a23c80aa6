//go:build !(cgo && (amd64 || arm64) && unix)

package cpu

import "rung/nn/backend/host"

func native(bool) []string { return nil }

func install(*host.Pool, *host.Kernels[float32], string) error { return nil }
