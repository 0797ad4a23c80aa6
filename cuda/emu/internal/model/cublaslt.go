package model

import (
	"encoding/binary"
	"fmt"
)

// A Status is a cuBLASLt function's: cublasStatus_t.
type Status int

// The statuses that the model gives.
const (
	LtSuccess         Status = 0
	LtNotInitialized  Status = 1
	LtInvalidValue    Status = 7
	LtExecutionFailed Status = 13
	LtNotSupported    Status = 15
)

// An ltHandle is a handle of cuBLASLt: of the device whose primary context was current.
type ltHandle struct{ context *context }

// An LtDesc is a cublasLtMatmulDesc_t.
type LtDesc struct {
	compute        int
	transA, transB bool
	bias           uint64 // with the epilogue that adds it
	epilogue       uint32
}

// An LtLayout is a cublasLtMatrixLayout_t: column-major, of float32.
type LtLayout struct {
	rows, cols uint64
	ld         int64
}

// An LtPreference is a cublasLtMatmulPreference_t.
type LtPreference struct {
	workspace uint64
	schemes   uint32
	alignment [4]uint32 // of a, b, c, d
}

// The constants of cublasLt.h, by name in package abi's list.
const (
	computeFP32, computeBF16, computeTF32                   = 68, 75, 77
	descTransA, descTransB, descEpilogue, descBias          = 3, 4, 7, 8
	epilogueDefault, epilogueBias                           = 1, 4
	layoutRows, layoutCols                                  = 2, 3
	prefWorkspace, prefSchemes, prefAlignment               = 1, 3, 5
	schemeInPlace, schemeComputeType                        = 1, 2
	configID, configTile, configSplits, configScheme        = 0, 1, 2, 3
	configStages                                            = 6
	algoMagic                                        uint64 = 0x6c745f616c676f
)

// LtCall begins a call of cuBLASLt, and says whether it is to fail.
func (d *Driver) ltCall(name string) Status {
	r := d.enter(name)
	if r != Success && r == d.lost {
		return LtExecutionFailed
	}
	return Status(r)
}

// ltObject finds an object by its handle.
func ltObject[T any](d *Driver, h Handle) *T {
	v, _ := d.handles[h].(*T)
	return v
}

// ltDestroy is the four functions that destroy an object.
func ltDestroy[T any](d *Driver, name string, h Handle) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall(name); s != LtSuccess {
		return s
	}
	if ltObject[T](d, h) == nil {
		d.fault(fmt.Errorf("emu: %s of what is none", name))
		return LtInvalidValue
	}
	delete(d.handles, h)
	return LtSuccess
}

// LtVersion is cublasLtGetVersion.
func (d *Driver) LtVersion() int { return d.config.CublasLt }

// LtCreate is cublasLtCreate, in the context of the thread.
func (d *Driver) LtCreate(thread int) (Handle, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtCreate"); s != LtSuccess {
		return 0, s
	}
	stack := d.current[thread]
	if len(stack) == 0 || stack[len(stack)-1] == nil {
		return 0, LtNotInitialized
	}
	c := stack[len(stack)-1]
	if c.device.primary != c || d.unsafe(thread) != Success {
		return 0, LtNotInitialized
	}
	return d.handle(&ltHandle{c}), LtSuccess
}

// LtDestroy is cublasLtDestroy.
func (d *Driver) LtDestroy(h Handle) Status { return ltDestroy[ltHandle](d, "cublasLtDestroy", h) }

// LtDescCreate is cublasLtMatmulDescCreate.
func (d *Driver) LtDescCreate(compute, scale int) (Handle, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulDescCreate"); s != LtSuccess {
		return 0, s
	}
	if scale != 0 || compute != computeFP32 && compute != computeBF16 && compute != computeTF32 {
		return 0, LtInvalidValue
	}
	return d.handle(&LtDesc{compute: compute, epilogue: epilogueDefault}), LtSuccess
}

// LtDescDestroy is cublasLtMatmulDescDestroy.
func (d *Driver) LtDescDestroy(h Handle) Status {
	return ltDestroy[LtDesc](d, "cublasLtMatmulDescDestroy", h)
}

// LtDescSet is cublasLtMatmulDescSetAttribute.
func (d *Driver) LtDescSet(h Handle, attribute int, value []byte) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulDescSetAttribute"); s != LtSuccess {
		return s
	}
	p := ltObject[LtDesc](d, h)
	size := map[int]int{descTransA: 4, descTransB: 4, descEpilogue: 4, descBias: 8}[attribute]
	if p == nil || size == 0 || size != len(value) {
		return LtInvalidValue
	}
	switch attribute {
	case descBias:
		p.bias = binary.NativeEndian.Uint64(value)
		return LtSuccess
	case descEpilogue:
		p.epilogue = binary.NativeEndian.Uint32(value)
		if p.epilogue != epilogueDefault && p.epilogue != epilogueBias {
			return LtNotSupported
		}
		return LtSuccess
	}
	op := binary.NativeEndian.Uint32(value)
	if op > 1 {
		return LtNotSupported
	}
	if attribute == descTransA {
		p.transA = op == 1
	} else {
		p.transB = op == 1
	}
	return LtSuccess
}

// LtLayoutCreate is cublasLtMatrixLayoutCreate.
func (d *Driver) LtLayoutCreate(kind int, rows, cols uint64, ld int64) (Handle, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatrixLayoutCreate"); s != LtSuccess {
		return 0, s
	}
	if kind != 0 {
		return 0, LtNotSupported
	}
	return d.handle(&LtLayout{rows, cols, ld}), LtSuccess
}

// LtLayoutDestroy is cublasLtMatrixLayoutDestroy.
func (d *Driver) LtLayoutDestroy(h Handle) Status {
	return ltDestroy[LtLayout](d, "cublasLtMatrixLayoutDestroy", h)
}

// LtLayoutSet is cublasLtMatrixLayoutSetAttribute.
func (d *Driver) LtLayoutSet(h Handle, attribute int, value []byte) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatrixLayoutSetAttribute"); s != LtSuccess {
		return s
	}
	p := ltObject[LtLayout](d, h)
	if p == nil || len(value) != 8 {
		return LtInvalidValue
	}
	switch attribute {
	case layoutRows:
		p.rows = binary.NativeEndian.Uint64(value)
	case layoutCols:
		p.cols = binary.NativeEndian.Uint64(value)
	default:
		return LtInvalidValue
	}
	return LtSuccess
}

// LtPreferenceCreate is cublasLtMatmulPreferenceCreate.
func (d *Driver) LtPreferenceCreate() (Handle, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulPreferenceCreate"); s != LtSuccess {
		return 0, s
	}
	return d.handle(&LtPreference{schemes: 7, alignment: [4]uint32{256, 256, 256, 256}}), LtSuccess
}

// LtPreferenceDestroy is cublasLtMatmulPreferenceDestroy.
func (d *Driver) LtPreferenceDestroy(h Handle) Status {
	return ltDestroy[LtPreference](d, "cublasLtMatmulPreferenceDestroy", h)
}

// LtPreferenceSet is cublasLtMatmulPreferenceSetAttribute.
func (d *Driver) LtPreferenceSet(h Handle, attribute int, value []byte) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulPreferenceSetAttribute"); s != LtSuccess {
		return s
	}
	p := ltObject[LtPreference](d, h)
	switch {
	case p == nil:
	case attribute == prefWorkspace && len(value) == 8:
		p.workspace = binary.NativeEndian.Uint64(value)
		return LtSuccess
	case attribute == prefSchemes && len(value) == 4:
		p.schemes = binary.NativeEndian.Uint32(value)
		return LtSuccess
	case attribute >= prefAlignment && attribute < prefAlignment+4 && len(value) == 4:
		p.alignment[attribute-prefAlignment] = binary.NativeEndian.Uint32(value)
		return LtSuccess
	}
	return LtInvalidValue
}

// An LtAlgo is a cublasLtMatmulAlgo_t: what it is, its tile, parts, scheme and least alignment of operands.
type LtAlgo [8]uint64

func algo(id, tile, splits, scheme uint64, alignment uint32) LtAlgo {
	return LtAlgo{algoMagic, id, tile, splits, scheme, uint64(alignment)}
}

// The algorithms that there are, by id. Wide is for 16 columns of a result, or more; split for sums of 64 terms, or more.
const (
	algoPlain = 3
	algoWide  = 7
	algoSplit = 11
)

// LtAlgoConfig is cublasLtMatmulAlgoConfigGetAttribute, for attributes of 4 bytes.
func (d *Driver) LtAlgoConfig(a LtAlgo, attribute int) (uint32, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulAlgoConfigGetAttribute"); s != LtSuccess {
		return 0, s
	}
	at, ok := map[int]int{configID: 1, configTile: 2, configSplits: 3, configScheme: 4, configStages: 6}[attribute]
	if a[0] != algoMagic || !ok {
		return 0, LtInvalidValue
	}
	return uint32(a[at]), LtSuccess
}

// LtHeuristic is cublasLtMatmulAlgoGetHeuristic: at most so many algorithms, the best first, with the workspace of each.
func (d *Driver) LtHeuristic(h, desc Handle, layouts [4]Handle, preference Handle, most int) ([]LtAlgo, []uint64, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulAlgoGetHeuristic"); s != LtSuccess {
		return nil, nil, s
	}
	pref := ltObject[LtPreference](d, preference)
	p, s := d.ltProduct(h, desc, layouts)
	if s != LtSuccess || pref == nil || most <= 0 {
		return nil, nil, LtInvalidValue
	}
	least := min(pref.alignment[0], pref.alignment[1], pref.alignment[2], pref.alignment[3])
	all := []LtAlgo{algo(algoWide, 20, 1, 0, least), algo(algoPlain, 18, 1, 0, least)}
	if p.k >= 2048 { // long sums are split, if that is allowed
		for _, scheme := range []uint64{schemeComputeType, schemeInPlace} {
			if uint64(pref.schemes)&scheme != 0 {
				all = append([]LtAlgo{algo(algoSplit, 20, 4, scheme, least)}, all...)
			}
		}
	}
	var out []LtAlgo
	var room []uint64
	for _, a := range all {
		if need, s := p.fits(a); s == LtSuccess && need <= pref.workspace && len(out) < most {
			out, room = append(out, a), append(room, need)
		}
	}
	if len(out) == 0 {
		return nil, nil, LtNotSupported
	}
	return out, room, LtSuccess
}

// LtCheck is cublasLtMatmulAlgoCheck: the workspace that the algorithm needs.
func (d *Driver) LtCheck(h, desc Handle, layouts [4]Handle, a LtAlgo) (uint64, Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.ltCall("cublasLtMatmulAlgoCheck"); s != LtSuccess {
		return 0, s
	}
	p, s := d.ltProduct(h, desc, layouts)
	if s != LtSuccess {
		return 0, s
	}
	return p.fits(a)
}
