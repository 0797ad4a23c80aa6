//go:build unix

package host

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a large page of x86-64, and of arm64 with small pages of 4 KiB.
const hugePage = 2 << 20

// mmap maps n bytes in what it maps. A block that may have huge pages is whole ones; smaller ones would only be rounded up.
func mmap(n int64) (b, mapped []byte, err error) {
	if n < hugePage/2 {
		b, err = unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		return b, b, err
	}
	size := (n + hugePage - 1) &^ (hugePage - 1) // the last page whole; what is never touched costs nothing
	mapped, err = unix.Mmap(-1, 0, int(size)+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, err
	}
	skip := int64(-uintptr(unsafe.Pointer(unsafe.SliceData(mapped))) & (hugePage - 1))
	hugePages(mapped[skip : skip+size])
	return mapped[skip : skip+n : skip+n], mapped, nil
}

func munmap(mapped []byte) error { return unix.Munmap(mapped) }
