//go:build unix

package host

import "golang.org/x/sys/unix"

func mmap(n int64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		hugePages(b)
	}
	return b, err
}

func munmap(b []byte) error { return unix.Munmap(b) }
