package checkpoints

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"unsafe"
)

// A DType is the type of a tensor's elements, under its safetensors name.
type DType string

// The element types that are read and written. Any other is refused by name.
const (
	Bool DType = "BOOL" // one byte, 0 or 1
	U8   DType = "U8"
	I8   DType = "I8"
	I16  DType = "I16"
	F16  DType = "F16"  // IEEE 754 half
	BF16 DType = "BF16" // the upper half of an F32
	I32  DType = "I32"
	F32  DType = "F32"
	F64  DType = "F64"
	I64  DType = "I64"
)

// order lists the types as the safetensors library's own enumeration does: a file holds its tensors
// from the last of these to the first, so that wide elements stay aligned.
var order = []DType{Bool, U8, I8, I16, F16, BF16, I32, F32, F64, I64}

// Size is the number of bytes of one element, 0 for a type that is not supported.
func (d DType) Size() int {
	switch d {
	case Bool, U8, I8:
		return 1
	case I16, F16, BF16:
		return 2
	case I32, F32:
		return 4
	case F64, I64:
		return 8
	}
	return 0
}

// A Tensor is a named array. Shape is row-major, as in PyTorch: a Linear weight is (out, in); a scalar
// has no dimension. Data is little endian and len(Data) is the product of Shape times DType.Size.
//
// Data of a tensor that was read from a file is a view of the mapped file: it must not be written to,
// nor read after the file is closed.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// Len is the number of elements, taken from Data.
func (t Tensor) Len() int {
	if n := t.DType.Size(); n > 0 {
		return len(t.Data) / n
	}
	return 0
}

// check tells whether the type is supported and the data are as long as the shape says.
func (t Tensor) check() error {
	if t.DType.Size() == 0 {
		return fmt.Errorf("tensor %q: unsupported type %q (supported: %v)", t.Name, t.DType, order)
	}
	n, err := byteSize(t.DType, t.Shape)
	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if n != uint64(len(t.Data)) {
		return fmt.Errorf("tensor %q: %s%v takes %d bytes, its data have %d", t.Name, t.DType, t.Shape, n, len(t.Data))
	}
	return nil
}

// byteSize is the number of bytes of a tensor, or an error where that does not fit an int.
func byteSize(d DType, shape []int) (uint64, error) {
	n := uint64(d.Size())
	for _, dim := range shape {
		if dim < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		hi, lo := bits.Mul64(n, uint64(dim))
		if hi != 0 || lo > 1<<62 {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		n = lo
	}
	return n, nil
}

// An Element is a Go type that a tensor's elements may have.
type Element interface {
	uint8 | int8 | int16 | int32 | int64 | float32 | float64
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// NewTensor describes v as a tensor of the given shape, without copying it where the machine is little
// endian: v must stay unchanged until the tensor is written.
func NewTensor[T Element](name string, shape []int, v []T) (Tensor, error) {
	t := Tensor{Name: name, DType: dtypeOf[T](), Shape: slices.Clone(shape)}
	switch {
	case len(v) == 0:
	case littleEndian:
		t.Data = bytesOf(v)
	default:
		t.Data = make([]byte, len(v)*t.DType.Size())
		if _, err := binary.Encode(t.Data, binary.LittleEndian, v); err != nil {
			return Tensor{}, fmt.Errorf("checkpoints: tensor %q: %w", name, err)
		}
	}
	if err := t.check(); err != nil {
		return Tensor{}, fmt.Errorf("checkpoints: %w", err)
	}
	return t, nil
}

// bytesOf views v as bytes.
func bytesOf[T Element](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case uint8:
		return U8
	case int8:
		return I8
	case int16:
		return I16
	case int32:
		return I32
	case int64:
		return I64
	case float32:
		return F32
	default:
		return F64
	}
}
