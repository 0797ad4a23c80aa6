package checkpoints

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime/debug"
)

// Float32s returns a copy of a tensor of floats. F16 and BF16 widen exactly; F64 is rounded, and refused
// where the result would not be finite.
func Float32s(t Tensor) ([]float32, error) {
	out := make([]float32, t.Len())
	if err := CopyFloat32s(out, t); err != nil {
		return nil, err
	}
	return out, nil
}

// CopyFloat32s is Float32s into dst, which must have t.Len() elements.
func CopyFloat32s(dst []float32, t Tensor) error {
	return convert(dst, t, func() error {
		le, b := binary.LittleEndian, t.Data
		switch t.DType {
		case F32:
			if littleEndian { // as they are: a memmove is bound by page faults, the loop by itself
				copy(bytesOf(dst), b)
				return nil
			}
			for i := range dst {
				dst[i] = math.Float32frombits(le.Uint32(b[4*i:]))
			}
		case BF16:
			for i := range dst {
				dst[i] = math.Float32frombits(uint32(le.Uint16(b[2*i:])) << 16)
			}
		case F16:
			for i := range dst {
				dst[i] = widenHalf(le.Uint16(b[2*i:]))
			}
		case F64:
			for i := range dst {
				v := math.Float64frombits(le.Uint64(b[8*i:]))
				if !(math.Abs(v) <= math.MaxFloat32) {
					return fmt.Errorf("element %d is %g, not a finite float32", i, v)
				}
				dst[i] = float32(v)
			}
		default:
			return fmt.Errorf("%s elements are no floats", t.DType)
		}
		return nil
	})
}

// Float64s returns a copy of a tensor of floats, exactly.
func Float64s(t Tensor) ([]float64, error) {
	out := make([]float64, t.Len())
	if t.DType != F64 {
		narrow, err := Float32s(t)
		if err != nil {
			return nil, err
		}
		for i, v := range narrow {
			out[i] = float64(v)
		}
		return out, nil
	}
	err := convert(out, t, func() error {
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Int64s returns a copy of a tensor of integers or booleans (0 and 1).
func Int64s(t Tensor) ([]int64, error) {
	out := make([]int64, t.Len())
	err := convert(out, t, func() error {
		le, b := binary.LittleEndian, t.Data
		for i := range out {
			switch t.DType {
			case I64:
				out[i] = int64(le.Uint64(b[8*i:]))
			case I32:
				out[i] = int64(int32(le.Uint32(b[4*i:])))
			case I16:
				out[i] = int64(int16(le.Uint16(b[2*i:])))
			case I8:
				out[i] = int64(int8(b[i]))
			case U8:
				out[i] = int64(b[i])
			case Bool:
				if out[i] = int64(b[i]); out[i] > 1 {
					return fmt.Errorf("element %d is %d, not a boolean", i, b[i])
				}
			}
		}
		if t.DType == F16 || t.DType == BF16 || t.DType == F32 || t.DType == F64 {
			return fmt.Errorf("%s elements are no integers", t.DType)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Int32s is Int64s for values that fit 32 bits; any other is an error.
func Int32s(t Tensor) ([]int32, error) {
	wide, err := Int64s(t)
	if err != nil {
		return nil, err
	}
	out := make([]int32, len(wide))
	for i, v := range wide {
		if int64(int32(v)) != v {
			return nil, fmt.Errorf("checkpoints: tensor %q: element %d is %d, which does not fit 32 bits", t.Name, i, v)
		}
		out[i] = int32(v)
	}
	return out, nil
}

// convert checks t and the length of dst, runs fill, and names the tensor where it fails.
func convert[T any](dst []T, t Tensor, fill func() error) (err error) {
	if err := t.check(); err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	if len(dst) != t.Len() {
		return fmt.Errorf("checkpoints: tensor %q has %d elements, the destination %d", t.Name, t.Len(), len(dst))
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("checkpoints: tensor %q: %w", t.Name, err)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	return fill()
}

// widenHalf is the float32 of the same value as an IEEE half; a NaN keeps its payload.
func widenHalf(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h) & 0x3ff
	switch exp {
	case 0: // zero or subnormal: frac × 2^-24, which a float32 holds as a normal number
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}
