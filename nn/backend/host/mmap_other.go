//go:build !unix

package host

import "unsafe"

// mmap on systems without it is the Go heap, aligned by hand.
func mmap(n int64) (b, mapped []byte, err error) {
	b = make([]byte, n+63)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 63
	return b[skip : int64(skip)+n : int64(skip)+n], nil, nil
}

func munmap([]byte) error { return nil }
