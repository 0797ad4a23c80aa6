package model

import (
	"errors"
	"fmt"
	"math"
	"unsafe"
)

// A product is what a descriptor and layouts say: d[m,n] = alpha op(a) op(b) + beta c + bias.
type product struct {
	*ltHandle
	LtDesc
	layout  [4]LtLayout // of a, b, c, d
	m, n, k int
}

// ltProduct checks that descriptors agree with each other.
func (d *Driver) ltProduct(h, desc Handle, layouts [4]Handle) (product, Status) {
	handle, of := ltObject[ltHandle](d, h), ltObject[LtDesc](d, desc)
	if handle == nil || of == nil {
		return product{}, LtInvalidValue
	}
	p := product{ltHandle: handle, LtDesc: *of}
	for i, l := range layouts {
		layout := ltObject[LtLayout](d, l)
		if layout == nil || layout.ld < int64(layout.rows) || layout.rows == 0 || layout.cols == 0 {
			return p, LtInvalidValue
		}
		p.layout[i] = *layout
	}
	m, k := p.layout[0].rows, p.layout[0].cols
	if p.transA {
		m, k = k, m
	}
	k2, n := p.layout[1].rows, p.layout[1].cols
	if p.transB {
		k2, n = n, k2
	}
	for _, l := range p.layout[2:] {
		if l.rows != m || l.cols != n {
			return p, LtInvalidValue
		}
	}
	if k != k2 || m > math.MaxInt32 || n > math.MaxInt32 || k > math.MaxInt32 {
		return p, LtInvalidValue
	}
	p.m, p.n, p.k = int(m), int(n), int(k)
	return p, LtSuccess
}

// fits is the workspace that an algorithm needs for p.
func (p *product) fits(a LtAlgo) (uint64, Status) {
	switch {
	case a[0] != algoMagic:
		return 0, LtInvalidValue
	case a[1] == algoWide && p.n < 16, a[1] == algoSplit && p.k < 64:
		return 0, LtNotSupported
	}
	for _, l := range p.layout {
		if uint64(l.ld*4)%a[5] != 0 {
			return 0, LtNotSupported
		}
	}
	if a[3] > 1 && a[4] == schemeComputeType {
		return a[3] * uint64(p.m) * uint64(p.n) * 4, LtSuccess
	}
	return 0, LtSuccess
}

// LtMatmul is cublasLtMatmul. Pointers are addresses a, b, c, d, and the workspace.
func (d *Driver) LtMatmul(thread int, h, desc Handle, layouts [4]Handle, at [4]uint64, alpha, beta float32, a LtAlgo, workspace, room uint64, on Handle) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmul"); s != LtSuccess {
		return s
	}
	p, s := d.ltProduct(h, desc, layouts)
	if s != LtSuccess {
		return s
	}
	need, s := p.fits(a)
	if s != LtSuccess {
		return s
	}
	refuse := func(format string, args ...any) Status {
		d.fault(fmt.Errorf("emu: cublasLtMatmul: "+format, args...))
		return LtInvalidValue
	}
	c := p.context
	if stack := d.current[thread]; c.dead || len(stack) == 0 || stack[len(stack)-1] != c {
		return refuse("the context of its handle is not the thread's")
	}
	if c.sticky != Success {
		return LtExecutionFailed
	}
	stream, r := d.stream(c, on)
	switch {
	case r != Success:
		return refuse("the stream is none of the handle's context")
	case room < need || need > 0 && workspace == 0:
		return refuse("a workspace of %d bytes, where the algorithm needs %d", room, need)
	case p.epilogue == epilogueBias && p.bias == 0:
		return refuse("a bias without address")
	}
	for i, x := range at {
		if x == 0 || x%a[5] != 0 {
			return refuse("operand %c at %#x: the algorithm was chosen for addresses that %d divides", 'a'+i, x, a[5])
		}
	}
	if at[2] != at[3] || p.layout[2] != p.layout[3] {
		return refuse("c and d are not the same matrix")
	}
	r = d.enqueue(stream, node{kind: nodeKernel, run: func() Result {
		d.kernels++
		if d.kernels == d.config.FailKernel {
			d.fault(fmt.Errorf("emu: a product of cuBLASLt fails: it is kernel number %d", d.kernels))
			return LaunchFailed
		}
		if d.kernels == d.config.LoseKernel {
			d.lost = d.config.LostResult
			return d.lost
		}
		if err := p.run(at, alpha, beta, a, workspace, need); err != nil {
			d.fault(fmt.Errorf("emu: cublasLtMatmul: %w", err))
			return IllegalAddress
		}
		return Success
	}})
	if r != Success {
		return LtExecutionFailed
	}
	return LtSuccess
}

// matrix reads one from the device, column after column; each element must have been written.
func (p *product) matrix(l LtLayout, at uint64) ([]float32, error) {
	v := make([]float32, l.rows*l.cols)
	for j := range l.cols {
		if err := p.context.device.memory.ReadWritten(at+j*uint64(l.ld)*4, bytes(v[j*l.rows:(j+1)*l.rows])); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func bytes(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// rounded is op(x) in the operands' precision, with what is summed next to each other.
func (p *product) rounded(l LtLayout, v []float32, transposed bool) []float32 {
	if transposed {
		t := make([]float32, len(v))
		for j := range l.cols {
			for i := range l.rows {
				t[i*l.cols+j] = v[j*l.rows+i]
			}
		}
		v = t
	}
	drop := map[int]int{computeTF32: 13, computeBF16: 16}[p.compute]
	for i, x := range v {
		if drop > 0 && x-x == 0 { // to nearest, ties to even
			u := math.Float32bits(x)
			u += 1<<(drop-1) - 1 + u>>drop&1
			v[i] = math.Float32frombits(u &^ (1<<drop - 1))
		}
	}
	return v
}

// run runs the product, with sums in float32; those of parts lie in the workspace before they are added up.
func (p *product) run(at [4]uint64, alpha, beta float32, algo LtAlgo, workspace, need uint64) error {
	memory := p.context.device.memory
	for i, x := range at[:2] {
		if end, to := x+extent(p.layout[i]), at[3]+extent(p.layout[3]); x < to && at[3] < end {
			return fmt.Errorf("the result overlaps operand %c", 'a'+i)
		}
	}
	va, err := p.matrix(p.layout[0], at[0])
	if err != nil {
		return fmt.Errorf("a: %w", err)
	}
	vb, err := p.matrix(p.layout[1], at[1])
	if err != nil {
		return fmt.Errorf("b: %w", err)
	}
	a, b := p.rounded(p.layout[0], va, !p.transA), p.rounded(p.layout[1], vb, p.transB)
	sums := make([]float32, p.m*p.n)
	splits := int(algo[3])
	for s := range splits {
		from, to := s*p.k/splits, (s+1)*p.k/splits
		part := make([]float32, p.m*p.n)
		for j := range p.n {
			y := b[j*p.k+from : j*p.k+to]
			for i := range p.m {
				x, v := a[i*p.k+from:i*p.k+to], float32(0)
				for k := range x {
					v += x[k] * y[k]
				}
				part[j*p.m+i] = v
				sums[j*p.m+i] += v
			}
		}
		if need > 0 {
			if err := memory.Write(workspace+uint64(4*s*p.m*p.n), bytes(part)); err != nil {
				return fmt.Errorf("workspace: %w", err)
			}
		}
	}
	return p.finish(at[3], sums, alpha, beta)
}

func extent(l LtLayout) uint64 { return ((l.cols-1)*uint64(l.ld) + l.rows) * 4 }

// finish adds what is there, and the bias, and writes the result.
func (p *product) finish(at uint64, sums []float32, alpha, beta float32) error {
	before := make([]float32, len(sums))
	bias := make([]float32, p.m)
	var errs [2]error
	if beta != 0 {
		before, errs[0] = p.matrix(p.layout[3], at)
	}
	if p.epilogue == epilogueBias {
		errs[1] = p.context.device.memory.ReadWritten(p.bias, bytes(bias))
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("c or bias: %w", err)
	}
	for j := range p.n {
		column := sums[j*p.m : (j+1)*p.m]
		for i := range column {
			column[i] = alpha*column[i] + beta*before[j*p.m+i] + bias[i]
		}
		if err := p.context.device.memory.Write(at+uint64(j)*uint64(p.layout[3].ld)*4, bytes(column)); err != nil {
			return fmt.Errorf("d: %w", err)
		}
	}
	return nil
}
