//go:build cgo && unix

package cpu

// #include "kernels.h"
import "C"

// isas is the one instruction set that every processor of this architecture has.
func isas() []isa { return []isa{isaOf("neon", C.RUNG_neon, C.RUNG_neon, C.sizes_neon)} }
