package checkpoints

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWidenHalfIsExact(t *testing.T) {
	for h := range 1 << 16 {
		exp, frac := h>>10&0x1f, h&0x3ff
		got := float64(widenHalf(uint16(h)))
		var want float64
		switch exp {
		case 0:
			want = math.Ldexp(float64(frac), -24)
		case 31:
			want = math.Inf(1)
			if frac != 0 {
				require.True(t, math.IsNaN(got), "%#04x", h)
				require.Equal(t, uint32(h>>15)<<31|0xff<<23|uint32(frac)<<13, math.Float32bits(widenHalf(uint16(h))))
				continue
			}
		default:
			want = math.Ldexp(float64(1024+frac), exp-25)
		}
		if h>>15 == 1 {
			want = -want
		}
		require.Equal(t, math.Float64bits(want), math.Float64bits(got), "%#04x", h)
	}
}

func TestFloats(t *testing.T) {
	bits := []uint32{0, 1 << 31, 1, 0x7f800000, 0xff800000, 0x7fc12345, 0x7f812345, math.Float32bits(1.5)}
	x := Tensor{Name: "x", DType: F32, Shape: []int{len(bits)}}
	for _, b := range bits {
		x.Data = binary.LittleEndian.AppendUint32(x.Data, b)
	}
	got, err := Float32s(x)
	require.NoError(t, err)
	for i, b := range bits {
		require.Equal(t, b, math.Float32bits(got[i]))
	}
	brain, err := Float32s(Tensor{Name: "b", DType: BF16, Shape: []int{2}, Data: []byte{0x80, 0x3f, 0x49, 0xc0}})
	require.NoError(t, err)
	require.Equal(t, []float32{1, -3.140625}, brain)
	half, err := Float64s(Tensor{Name: "h", DType: F16, Shape: []int{1}, Data: []byte{1, 0}})
	require.NoError(t, err)
	require.Equal(t, []float64{math.Ldexp(1, -24)}, half)

	wide, err := NewTensor("d", []int{2}, []float64{math.Pi, -1e-50})
	require.NoError(t, err)
	d, err := Float64s(wide)
	require.NoError(t, err)
	require.Equal(t, []float64{math.Pi, -1e-50}, d)
	narrow, err := Float32s(wide)
	require.NoError(t, err)
	require.Equal(t, []float32{math.Pi, float32(math.Copysign(0, -1))}, narrow)
	for _, bad := range []float64{math.NaN(), math.Inf(1), -1e300} {
		x, err := NewTensor("d", []int{2}, []float64{0, bad})
		require.NoError(t, err)
		_, err = Float32s(x)
		require.ErrorContains(t, err, `tensor "d": element 1 is`)
	}

	ints, err := NewTensor("i", []int{1}, []int32{1})
	require.NoError(t, err)
	_, err = Float32s(ints)
	require.ErrorContains(t, err, "I32 elements are no floats")
	_, err = Float64s(ints)
	require.Error(t, err)
	require.ErrorContains(t, CopyFloat32s(make([]float32, 3), wide), "has 2 elements, the destination 3")
	_, err = Float32s(Tensor{Name: "t", DType: F32, Shape: []int{2}, Data: make([]byte, 4)})
	require.ErrorContains(t, err, "takes 8 bytes")
}

func TestInts(t *testing.T) {
	for _, x := range sampleTensors(t) {
		got, err := Int64s(x)
		switch x.Name {
		case "z":
			require.Equal(t, []int64{-1, 0, 127}, got)
		case "scalar":
			require.Equal(t, []int64{-1 << 62}, got)
			_, err := Int32s(x)
			require.ErrorContains(t, err, "does not fit 32 bits")
		case "u":
			require.Equal(t, []int64{0, 255}, got)
		case "i16":
			require.Equal(t, []int64{-300}, got)
		case "i32":
			narrow, err := Int32s(x)
			require.NoError(t, err)
			require.Equal(t, []int32{1 << 30}, narrow)
		case "flag":
			require.Equal(t, []int64{0, 1}, got)
		case "half", "bf", "w", "d", "empty":
			require.ErrorContains(t, err, "no integers")
		}
	}
	_, err := Int64s(Tensor{Name: "b", DType: Bool, Shape: []int{1}, Data: []byte{2}})
	require.ErrorContains(t, err, "not a boolean")
}
