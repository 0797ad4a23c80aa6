package checkpoints

import (
	"fmt"
	"runtime/debug"
)

// parseMapped is parse over mapped memory.
func parseMapped(mem []byte) (ts []Tensor, meta map[string]string, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	return parse(mem)
}

// catchFault, deferred, turns a memory fault into an error: a mapped file was truncated while it was
// being read, or its disk or network file system failed. debug.SetPanicOnFault must be in force.
// Any other panic goes on.
func catchFault(err *error) {
	switch r := recover().(type) {
	case nil:
	case interface{ Addr() uintptr }:
		*err = fmt.Errorf("the mapped file could not be read at address %#x: truncated meanwhile, or an input/output error", r.Addr())
	default:
		panic(r)
	}
}
