package ptx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
)

// A Config says how to launch a kernel.
type Config struct {
	Grid, Block Dim
	Shared      int // bytes of dynamic shared memory
	// Seed, where it is not 0, shuffles the order of blocks and warps and lets results of .approx functions vary within
	// their documented error. The variation is a function of seed and argument: the same launch has the same results.
	Seed     uint64
	Limit    int64     // instructions that a block's warps may run; 0: 2^32
	Workers  int       // blocks that run at the same time; 0: GOMAXPROCS
	Coverage *Coverage // counts what runs; nil: nothing does
}

// Limits of every device that this package stands for.
const (
	maxBlockThreads = 1024
	maxShared       = 227 << 10
)

// A launch is one run of a kernel over its grid.
type launch struct {
	k     *Kernel
	mem   *Memory
	grid  Dim
	block Dim
	seed  uint64
	limit int64

	segments  []*segment
	params    []byte
	first     uint32 // run number of block 0
	template  registerFile
	parallel  bool // several blocks run at a time
	sharedLen int
	meeting   meetings
}

type registerFile struct {
	r32 []row32
	r64 []row64
}

// Launch runs a kernel over its grid and returns when it has ended. Args are its parameters in order: integers and floats
// of their exact sizes, or their bytes as []byte. The error is a *Fault where a thread does something wrong; memory is then
// left as it was at that moment.
func (k *Kernel) Launch(mem *Memory, c Config, args ...any) error {
	l := &launch{k: k, mem: mem, grid: c.Grid, block: c.Block, seed: c.Seed, limit: c.Limit}
	if l.limit == 0 {
		l.limit = 1 << 32
	}
	if err := l.prepare(c, args); err != nil {
		return fmt.Errorf("ptx: launch of %s: %w", k.Name, err)
	}
	blocks := c.Grid.Size()
	workers := c.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = min(workers, blocks)
	l.parallel = workers > 1
	var (
		next  atomic.Int64
		stop  atomic.Bool
		wg    sync.WaitGroup
		mu    sync.Mutex
		fault *Fault
		where = int64(math.MaxInt64)
	)
	work := func() {
		b := l.newBlock()
		for !stop.Load() {
			i := next.Add(1) - 1
			if i >= int64(blocks) {
				break
			}
			if f := b.try(int(i)); f != nil {
				stop.Store(true)
				mu.Lock()
				if i < where {
					where, fault = i, f
				}
				mu.Unlock()
			}
		}
		if c.Coverage != nil {
			c.Coverage.add(k, b.hits)
		}
	}
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if fault != nil {
		return fault
	}
	return nil
}

// nth is the block that runs as the i-th.
func (l *launch) nth(i int) Dim {
	blocks := l.grid.Size()
	if l.seed == 0 {
		return l.grid.place(i)
	}
	stride := int(mix(l.seed)>>33) | 1
	for gcd(stride, blocks) != 1 {
		stride += 2
	}
	return l.grid.place((i*(stride%blocks) + int(l.seed>>1%uint64(blocks))) % blocks)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (l *launch) prepare(c Config, args []any) error {
	k := l.k
	for _, d := range []int{c.Grid.X, c.Grid.Y, c.Grid.Z, c.Block.X, c.Block.Y, c.Block.Z} {
		if d < 0 {
			return fmt.Errorf("grid %s of blocks %s", c.Grid, c.Block)
		}
	}
	threads := c.Block.Size()
	switch {
	case c.Grid.X <= 0 || c.Grid.Y > 65535 || c.Grid.Z > 65535 || c.Grid.Size() > math.MaxInt32:
		return fmt.Errorf("grid %s", c.Grid)
	case threads <= 0 || threads > maxBlockThreads || c.Block.Z > 64:
		return fmt.Errorf("block %s", c.Block)
	case k.MaxThreads > 0 && threads > k.MaxThreads:
		return fmt.Errorf("block %s has more than the kernel's %d threads", c.Block, k.MaxThreads)
	case c.Shared < 0 || k.dynamicStart()+c.Shared > maxShared:
		return fmt.Errorf("%d bytes of shared memory", k.dynamicStart()+c.Shared)
	case len(args) != len(k.params):
		return fmt.Errorf("it takes %d parameters, got %d", len(k.params), len(args))
	}
	l.params = make([]byte, k.paramBytes)
	for i, p := range k.params {
		raw, err := rawBytes(args[i])
		if err != nil {
			return fmt.Errorf("parameter %d: %w", i, err)
		}
		if len(raw) != p.size {
			return fmt.Errorf("parameter %d has %d bytes, got %T of %d", i, p.size, args[i], len(raw))
		}
		copy(l.params[p.offset:], raw)
	}
	l.sharedLen = k.dynamicStart() + c.Shared
	im, err := l.mem.image(k.module)
	if err != nil {
		return err
	}
	l.mem.begin(l, uint32(c.Grid.Size()))
	l.fill(c, im)
	return nil
}

// What a register holds before it is written: a NaN, and no address.
const (
	poison32 = 0xffc0dead
	poison64 = 0xfff8dead_dead0001
)

// fill makes the register file that a warp begins with.
func (l *launch) fill(c Config, im image) {
	k := l.k
	t := registerFile{make([]row32, k.rows32), make([]row64, k.rows64)}
	l.template = t
	for i := range t.r32 {
		set(&t.r32[i], poison32)
	}
	for i := range t.r64 {
		set(&t.r64[i], poison64)
	}
	for _, r := range k.consts32 {
		set(&t.r32[r.row], r.value)
	}
	for _, r := range k.consts64 {
		set(&t.r64[r.row], r.value)
	}
	for _, r := range k.symbols {
		set(&t.r64[r.row], im[r.name]+uint64(r.offset))
	}
	for _, r := range k.lows {
		set(&t.r32[r[0]], uint32(t.r64[r[1]][0]))
	}
	for _, s := range k.specials {
		row := &t.r32[s.row]
		switch s.name {
		case "%ntid.x":
			set(row, uint32(c.Block.X))
		case "%ntid.y":
			set(row, uint32(max(c.Block.Y, 1)))
		case "%ntid.z":
			set(row, uint32(max(c.Block.Z, 1)))
		case "%nctaid.x":
			set(row, uint32(c.Grid.X))
		case "%nctaid.y":
			set(row, uint32(max(c.Grid.Y, 1)))
		case "%nctaid.z":
			set(row, uint32(max(c.Grid.Z, 1)))
		case "%nwarpid":
			set(row, uint32((c.Block.Size()+31)/32))
		case "WARP_SZ":
			set(row, 32)
		case "%nsmid":
			set(row, 1)
		case "%dynamic_smem_size":
			set(row, uint32(c.Shared))
		case "%total_smem_size":
			set(row, uint32(l.sharedLen))
		case "%laneid", "%lanemask_eq", "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge":
			for i := range row {
				bit := uint32(1) << i
				row[i] = map[string]uint32{
					"%laneid": uint32(i), "%lanemask_eq": bit, "%lanemask_lt": bit - 1, "%lanemask_le": bit<<1 - 1,
					"%lanemask_gt": ^(bit<<1 - 1), "%lanemask_ge": ^(bit - 1),
				}[s.name]
			}
		}
	}
}

func set[T uint32 | uint64](row *[32]T, v T) {
	for i := range row {
		row[i] = v
	}
}

func rawBytes(arg any) ([]byte, error) {
	if b, ok := arg.([]byte); ok {
		return b, nil
	}
	switch arg.(type) {
	case uint8, int8, uint16, int16, uint32, int32, uint64, int64, float32, float64:
		return binary.Append(nil, binary.LittleEndian, arg)
	}
	return nil, fmt.Errorf("%T is no parameter", arg)
}

func (l *launch) newBlock() *block {
	k := l.k
	threads := l.block.Size()
	b := &block{launch: l, hits: make([]uint64, len(k.code)), shared: make([]byte, l.sharedLen)}
	b.cells = make([]cell, (l.sharedLen+(1<<k.granule[1])-1)>>k.granule[1])
	for i := range (threads + 31) / 32 {
		w := &warp{b: b, id: i, r32: make([]row32, k.rows32), r64: make([]row64, k.rows64), p: make([]uint32, k.preds)}
		w.local, w.wrote = make([]byte, 32*k.localBytes), make([]bool, 32*k.localBytes)
		b.warps, b.order = append(b.warps, w), append(b.order, i)
	}
	return b
}

// try runs the i-th block, and returns what went wrong. Run numbers rise from block to block of a worker, so that what an
// earlier one left in the cells of shared memory is told from this one's.
func (b *block) try(i int) (f *Fault) {
	defer func() {
		if e := recover(); e != nil {
			err, ok := e.(error)
			if !ok || !errors.As(err, &f) {
				panic(e)
			}
		}
	}()
	b.index = b.nth(i)
	b.run = b.first + uint32(i)
	b.epoch, b.steps, b.fenced, b.fence = 1, 0, nil, 0
	b.rng = mix(b.seed ^ uint64(i)<<32)
	for _, w := range b.warps {
		w.begin()
	}
	b.execute()
	return nil
}

// begin makes a warp ready for a new block.
func (w *warp) begin() {
	b := w.b
	copy(w.r32, b.template.r32)
	copy(w.r64, b.template.r64)
	clear(w.p)
	clear(w.wrote)
	threads := b.block.Size()
	w.live = allLanes
	if rest := threads - 32*w.id; rest < 32 {
		w.live = 1<<rest - 1
	}
	w.mask, w.pc, w.parked, w.stop, w.waiting, w.epoch = w.live, 0, 0, nowhere, 0, 1
	w.seg = nil
	for i := range w.async {
		w.async[i].reset()
	}
	for _, s := range b.k.specials {
		row := &w.r32[s.row]
		switch s.name {
		case "%tid.x", "%tid.y", "%tid.z":
			for l := range row {
				t := w.thread(l)
				row[l] = uint32([]int{t.X, t.Y, t.Z}[s.name[5]-'x'])
			}
		case "%ctaid.x":
			set(row, uint32(b.index.X))
		case "%ctaid.y":
			set(row, uint32(b.index.Y))
		case "%ctaid.z":
			set(row, uint32(b.index.Z))
		case "%warpid":
			set(row, uint32(w.id))
		}
	}
}
