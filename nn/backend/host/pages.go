package host

import (
	"unsafe"

	"rung/nn/backend"
)

// Track keeps account of which pages are in use: all others are zero, and clearing and updates leave them out.
// Gradients and moments of an embedding table are such, of which a batch touches few rows. It is called before
// anything is written; Host is for reading from then on.
func (m *Memory) Track() { m.used = make([]uint8, (len(m.b)+pageBytes-1)/pageBytes) }

// pageBytes is a page of account: the hardware's, on most machines.
const pageBytes = 4096

// use marks the pages of n bytes from off.
func (m *Memory) use(off, n int) {
	if m.used == nil || n <= 0 {
		return
	}
	mark(m.used[off/pageBytes : (off+n-1)/pageBytes+1])
}

func mark(p []uint8) {
	for i := range p {
		p[i] = 1
	}
}

// clearUsed clears n bytes from off where pages are in use, which those are no longer that lie inside.
func (m *Memory) clearUsed(off, n int) {
	for p := off / pageBytes; p*pageBytes < off+n; p++ {
		if m.used[p] == 0 {
			continue
		}
		from, to := p*pageBytes, min((p+1)*pageBytes, len(m.b))
		if from >= off && to <= off+n {
			m.used[p] = 0
		}
		clear(m.b[max(from, off):min(to, off+n)])
	}
}

// Pages is the account of a matrix's memory. The zero Pages is of memory that is not tracked: all of it is in use.
type Pages struct {
	Used []uint8 // by page: 0 where all is zero
	Skew int     // elements from the start of the first page to the matrix
	Size int     // elements of a page
}

// Use marks n elements from off of the matrix.
func (p Pages) Use(off, n int) {
	if p.Used != nil && n > 0 {
		mark(p.Used[(p.Skew+off)/p.Size : (p.Skew+off+n-1)/p.Size+1])
	}
}

// From is the account of the matrix from element off on.
func (p Pages) From(off int) Pages {
	off += p.Skew
	return Pages{p.Used[off/p.Size:], off % p.Size, p.Size}
}

// pagesOf is the account of what is bound to b.
func pagesOf[F Float](bind backend.Binding, b backend.Buf) Pages {
	if b.Space == backend.None || b.Space == backend.Index {
		return Pages{}
	}
	block, err := blockOf(bind, b.Space, b.ID)
	if m, ok := block.Mem.(*Memory); err == nil && ok && m.used != nil {
		var f F
		return Pages{m.used, 0, pageBytes / int(unsafe.Sizeof(f))}.From(block.Off + b.Off)
	}
	return Pages{}
}
