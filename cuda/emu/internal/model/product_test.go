package model

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// A lt is a host with a product of cuBLASLt: d (8,4) = a (8,4) b (4,4) + bias, column-major.
type lt struct {
	*host
	handle, desc Handle
	layouts      [4]Handle
	at           [4]uint64
	bias         uint64
}

func status[T any](v T, s Status) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		require.Equal(t, LtSuccess, s)
		return v
	}
}

func newLt(t *testing.T, compute int) *lt {
	h := newHost(t, nil)
	p := &lt{host: h}
	p.handle = status(h.LtCreate(thread))(t)
	p.desc = status(h.LtDescCreate(compute, 0))(t)
	a, b := make([]float32, 8*4), make([]float32, 4*4)
	for i := range a {
		a[i] = float32(i)
	}
	for i := range 4 {
		b[5*i] = 1 + 1.0/1024/1024 // the unit matrix, but for what tf32 and bf16 round away
	}
	p.at = [4]uint64{h.alloc(a...), h.alloc(b...), h.alloc(make([]float32, 8*4)...)}
	p.at[3] = p.at[2]
	p.bias = h.alloc(1, 2, 3, 4, 5, 6, 7, 8)
	for i, rows := range []uint64{8, 4, 8, 8} {
		p.layouts[i] = status(h.LtLayoutCreate(0, rows, 4, int64(rows)))(t)
	}
	require.Equal(t, LtSuccess, h.LtDescSet(p.desc, descEpilogue, binary.NativeEndian.AppendUint32(nil, epilogueBias)))
	require.Equal(t, LtSuccess, h.LtDescSet(p.desc, descBias, binary.NativeEndian.AppendUint64(nil, p.bias)))
	return p
}

func (p *lt) run(alpha, beta float32, a LtAlgo, workspace, room uint64, on Handle) Status {
	return p.LtMatmul(thread, p.handle, p.desc, p.layouts, p.at, alpha, beta, a, workspace, room, on)
}

// A product is rounded as it is asked to, and runs in its stream's order, also from a graph.
func TestProduct(t *testing.T) {
	for compute, one := range map[int]float32{computeFP32: 1 + 1.0/1024/1024, computeTF32: 1, computeBF16: 1} {
		p := newLt(t, compute)
		plain := algo(algoPlain, 18, 1, 0, 16)
		require.Equal(t, LtSuccess, p.run(1, 0, plain, 0, 0, p.stream))
		require.Zero(t, p.read(p.at[3], 1)[0], "nothing has waited for it")
		require.Equal(t, Success, p.sync())
		require.Equal(t, []float32{1, 1*one + 2, 2*one + 3}, p.read(p.at[3], 3))

		require.Equal(t, Success, p.StreamBeginCapture(thread, p.stream, captureThread))
		require.Equal(t, LtSuccess, p.run(1, 1, plain, 0, 0, p.stream))
		g := ok(p.StreamEndCapture(thread, p.stream))(t)
		x := ok(p.GraphInstantiate(thread, g))(t)
		for range 2 {
			require.Equal(t, Success, p.GraphLaunch("cuGraphLaunch", thread, x, p.stream, false))
		}
		require.Equal(t, Success, p.sync())
		require.Equal(t, float32(3), p.read(p.at[3], 1)[0], "the bias, three times")
		require.Empty(t, p.Faults())
	}
}

// What is wrong with a product is refused when it is launched, or is a fault when it runs.
func TestProductFaults(t *testing.T) {
	plain := algo(algoPlain, 18, 1, 0, 16)
	for what, test := range map[string]struct {
		spoil func(p *lt)
		algo  LtAlgo
		says  Status
		fault string
	}{
		"another leading dimension": {func(p *lt) { p.layouts[0] = status(p.LtLayoutCreate(0, 8, 4, 4))(p.T) }, plain, LtInvalidValue, ""},
		"sizes that do not agree":   {func(p *lt) { p.layouts[1] = p.layouts[0] }, plain, LtInvalidValue, ""},
		"no algorithm":              {func(*lt) {}, LtAlgo{}, LtInvalidValue, ""},
		"too few columns":           {func(*lt) {}, algo(algoWide, 20, 1, 0, 16), LtNotSupported, ""},
		"address":                   {func(p *lt) { p.at[0] += 4 }, plain, LtInvalidValue, "operand a at"},
		"no context":                {func(p *lt) { require.Equal(p, Success, p.CtxSetCurrent(thread, 0)) }, plain, LtInvalidValue, "the context of its handle"},
		"c elsewhere":               {func(p *lt) { p.at[2] = p.at[0] }, plain, LtInvalidValue, "not the same matrix"},
		"past the end":              {func(p *lt) { p.at[0] += 64 }, plain, LtSuccess, "a: ptx:"},
		"never written":             {func(p *lt) { p.at[1] = ok(p.MemAlloc(thread, 64))(p.T) }, plain, LtSuccess, "was never written"},
		"overlap":                   {func(p *lt) { p.at[2], p.at[3] = p.at[0], p.at[0] }, plain, LtSuccess, "overlaps operand a"},
	} {
		t.Run(what, func(t *testing.T) {
			p := newLt(t, computeFP32)
			test.spoil(p)
			require.Equal(t, test.says, p.run(1, 0, test.algo, 0, 0, p.stream))
			if test.says == LtSuccess {
				require.Equal(t, IllegalAddress, p.sync())
			}
			if test.fault == "" {
				require.Empty(t, p.Faults())
				return
			}
			require.Len(t, p.Faults(), 1)
			require.ErrorContains(t, p.Faults()[0], test.fault)
		})
	}
}

// A heuristic gives what the preference allows: no parts without a workspace for them, or with another scheme.
func TestHeuristic(t *testing.T) {
	p := newLt(t, computeFP32)
	long := status(p.LtLayoutCreate(0, 64, 4096, 64))(t)
	of := [4]Handle{long, long, status(p.LtLayoutCreate(0, 64, 64, 64))(t)}
	of[3] = of[2]
	desc := status(p.LtDescCreate(computeFP32, 0))(t)
	require.Equal(t, LtSuccess, p.LtDescSet(desc, descTransB, binary.NativeEndian.AppendUint32(nil, 1)))
	for _, test := range []struct {
		room    uint64
		schemes uint32
		first   uint64
		needs   uint64
	}{
		{1 << 20, schemeComputeType, algoSplit, 4 * 64 * 64 * 4}, {1 << 10, schemeComputeType, algoWide, 0}, {1 << 20, 0, algoWide, 0},
	} {
		pref := status(p.LtPreferenceCreate())(t)
		require.Equal(t, LtSuccess, p.LtPreferenceSet(pref, prefWorkspace, binary.NativeEndian.AppendUint64(nil, test.room)))
		require.Equal(t, LtSuccess, p.LtPreferenceSet(pref, prefSchemes, binary.NativeEndian.AppendUint32(nil, test.schemes)))
		require.Equal(t, LtInvalidValue, p.LtPreferenceSet(pref, prefSchemes, make([]byte, 8)))
		all, room, s := p.LtHeuristic(p.handle, desc, of, pref, 8)
		require.Equal(t, LtSuccess, s)
		require.Equal(t, test.first, all[0][1])
		require.Equal(t, test.needs, room[0])
		require.Equal(t, LtSuccess, p.LtPreferenceDestroy(pref))
		require.Equal(t, LtInvalidValue, p.LtPreferenceDestroy(pref))
	}
}
