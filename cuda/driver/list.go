//go:build gpu

package driver

/*
#include <stdlib.h>
#include "products.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// A Launch is a kernel with its grid, threads a block, dynamic shared memory, and argument: one structure. Or it is a
// Product, by cuBLASLt.
type Launch struct {
	Kernel        Kernel
	Grid          [3]int
	Block, Shared int
	Args          []byte
	Product       *Product
	// Choice is 0 but where there are two ways to do something: launches with the same Choice from 1 on are the way by
	// cuBLASLt, which is taken if all its products can be computed as their rows are counted; those with that number
	// below 0 are the other.
	Choice int
}

// Counts are the real rows of a launch, by axis.
type Counts [4]int32

// A List is launches, in memory of C's.
type List struct {
	l      C.struct_gpu_list
	args   unsafe.Pointer
	graph  C.CUgraphExec
	device *Device

	by     [4]bool // axes whose rows products count
	now    Counts  // what products are set to
	set    bool
	served Counts // what the graph is for
}

// NewList copies launches.
func (d *Device) NewList(launches []Launch) (*List, error) {
	size := 0
	for i := range launches {
		size += (len(launches[i].Args) + 15) &^ 15
	}
	n := max(len(launches), 1)
	l := &List{device: d}
	l.l.context, l.l.stream, l.l.handle = d.context, d.stream, d.lt
	l.l.launches = (*C.struct_gpu_launch)(C.calloc(C.size_t(n), C.sizeof_struct_gpu_launch))
	l.args = C.calloc(C.size_t(max(size, 1)), 1)
	if l.l.launches == nil || l.args == nil {
		l.free()
		return nil, fmt.Errorf("no memory for %d launches", n)
	}
	l.l.n = C.int(len(launches))
	at := 0
	args := unsafe.Slice((*byte)(l.args), max(size, 1))
	for i := range launches {
		in, out := &launches[i], l.at(i)
		copy(args[at:], in.Args)
		out.function, out.block, out.shared = in.Kernel.f, C.uint(in.Block), C.uint(in.Shared)
		for k, g := range in.Grid {
			out.grid[k] = C.uint(g)
		}
		out.args, out.choice = unsafe.Add(l.args, at), C.int(in.Choice)
		l.l.choices = max(l.l.choices, out.choice)
		at += (len(in.Args) + 15) &^ 15
		if in.Product == nil {
			continue
		}
		var err error
		if out.product, err = in.Product.plan(); err != nil {
			l.free()
			return nil, err
		}
		if in.Product.Axis >= 0 {
			l.by[in.Product.Axis] = true
		}
	}
	return l, nil
}

// at views launch i in C's memory.
func (l *List) at(i int) *C.struct_gpu_launch {
	return &unsafe.Slice(l.l.launches, l.l.n)[i]
}

// count sets the products to real rows. If one fails, failed is its number, else -1.
func (l *List) count(c Counts) (failed int, err error) {
	if l.l.choices == 0 {
		return -1, nil
	}
	for i := range c {
		if !l.by[i] {
			c[i] = 0
		}
	}
	if l.set && c == l.now {
		return -1, nil
	}
	var counts [4]C.int
	for i, n := range c {
		counts[i] = C.int(n)
	}
	var f C.int
	if err := result(C.gpu_choose(&l.l, &counts[0], &f)); err != nil {
		l.set = false
		return int(f), err
	}
	l.now, l.set = c, true
	return -1, nil
}

// Skipped reports that launch i belongs to the way that was not taken the last time.
func (l *List) Skipped(i int) bool { return l.at(i).skip != 0 }

// Run launches in order. If one is refused, or fails where each is waited for, failed is its number, else -1.
func (l *List) Run(c Counts, wait bool) (failed int, err error) {
	if failed, err := l.count(c); err != nil {
		return failed, err
	}
	var f, w C.int
	if wait {
		w = 1
	}
	err = result(C.gpu_run(&l.l, w, &f))
	return int(f), err
}

// Time launches in order and gives the milliseconds of each.
func (l *List) Time(c Counts, ms []float32) (failed int, err error) {
	if l.l.n == 0 {
		return -1, nil
	}
	if failed, err := l.count(c); err != nil {
		return failed, err
	}
	var f C.int
	err = result(C.gpu_time(&l.l, (*C.float)(unsafe.SliceData(ms)), &f))
	return int(f), err
}

// Replay launches all at once as a graph. Without products the first call makes it. A graph with products is for the rows
// that they were captured with: it is made when the same rows are counted the second time in a row, and until then all is
// launched one by one. If a launch is refused, failed is its number, else -1.
func (l *List) Replay(c Counts) (failed int, err error) {
	if l.l.n == 0 {
		return -1, nil
	}
	before, was := l.now, l.set
	if failed, err := l.count(c); err != nil {
		return failed, err
	}
	if l.graph != nil && l.served != l.now {
		if l.now != before {
			return l.Run(c, false)
		}
		if err := l.drop(); err != nil {
			return -1, err
		}
	}
	if l.graph == nil {
		if l.l.choices > 0 && !(was && l.now == before) {
			return l.Run(c, false)
		}
		var f C.int
		if err := result(C.gpu_capture(&l.l, &l.graph, &f)); err != nil {
			return int(f), err
		}
		l.served = l.now
	}
	return -1, result(C.gpu_replay(l.l.context, l.l.stream, l.graph))
}

// drop destroys the graph, after what was launched.
func (l *List) drop() error {
	err := errors.Join(l.device.Wait(), result(C.gpu_drop(l.l.context, l.graph)))
	l.graph = nil
	return err
}

// Close frees the list.
func (l *List) Close() error {
	var err error
	if l.graph != nil {
		err = result(C.gpu_drop(l.l.context, l.graph))
		l.graph = nil
	}
	l.free()
	return err
}

func (l *List) free() {
	if l.l.launches != nil {
		for i := range int(l.l.n) {
			if p := l.at(i).product; p != nil {
				unplan(p)
			}
		}
	}
	C.free(unsafe.Pointer(l.l.launches))
	C.free(l.args)
	l.l.launches, l.args, l.l.n = nil, nil, 0
}
