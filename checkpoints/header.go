package checkpoints

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// maxHeader is the longest header that is read, the limit of the safetensors library.
const maxHeader = 100_000_000

const metadataKey = "__metadata__"

// An entry is what the header says of one tensor; offsets count from the end of the header.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end int64
}

// parse reads a whole safetensors file: 8 bytes of header length, the header, the data. The tensors it
// returns are views of mem.
func parse(mem []byte) (ts []Tensor, meta map[string]string, err error) {
	if bytes.HasPrefix(mem, []byte("version https://git-lfs")) {
		return nil, nil, errors.New("is a Git LFS pointer, not the file it stands for (git lfs pull fetches it)")
	}
	if len(mem) < 8 {
		return nil, nil, fmt.Errorf("truncated: it has %d of the 8 bytes that give the header's length", len(mem))
	}
	n := binary.LittleEndian.Uint64(mem)
	rest := uint64(len(mem) - 8)
	switch {
	case n > maxHeader:
		return nil, nil, fmt.Errorf("header length %d is above the limit of %d: no safetensors file, or a damaged one", n, maxHeader)
	case n > rest:
		return nil, nil, fmt.Errorf("truncated: %d bytes of the header are missing", n-rest)
	}
	entries, meta, err := parseHeader(mem[8 : 8+n])
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	data := mem[8+n:]
	if err := checkRanges(entries, int64(len(data))); err != nil {
		return nil, nil, err
	}
	ts = make([]Tensor, len(entries))
	for i, e := range entries {
		ts[i] = Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: data[e.begin:e.end:e.end]}
	}
	return ts, meta, nil
}

// parseHeader reads the header's JSON and checks each tensor by itself.
func parseHeader(h []byte) (entries []entry, meta map[string]string, err error) {
	if len(h) == 0 || h[0] != '{' {
		return nil, nil, errors.New("does not start with {: no safetensors file")
	}
	dec, err := newStrictDecoder(h)
	if err != nil {
		return nil, nil, err
	}
	meta = map[string]string{}
	err = readObject(dec, func(key string) error {
		if key == metadataKey {
			return readObject(dec, func(k string) error {
				v, err := readString(dec)
				meta[k] = v
				return err
			})
		}
		e, err := parseEntry(dec, key)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", key, err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return entries, meta, nil
}

func parseEntry(dec *json.Decoder, name string) (entry, error) {
	e := entry{name: name, shape: []int{}}
	var have struct{ dtype, shape, offsets bool }
	err := readObject(dec, func(key string) error {
		switch key {
		case "dtype":
			have.dtype = true
			s, err := readString(dec)
			e.dtype = DType(s)
			return err
		case "shape":
			have.shape = true
			return readArray(dec, func() error {
				n, err := readInt(dec)
				if err == nil && n > math.MaxInt {
					err = fmt.Errorf("dimension %d overflows", n)
				}
				e.shape = append(e.shape, int(n))
				return err
			})
		case "data_offsets":
			have.offsets = true
			return readOffsets(dec, &e)
		}
		return fmt.Errorf("unknown field %q", key)
	})
	if err != nil {
		return e, err
	}
	if !have.dtype || !have.shape || !have.offsets {
		return e, errors.New("dtype, shape and data_offsets must all be given")
	}
	if e.dtype.Size() == 0 {
		return e, fmt.Errorf("unsupported type %q (supported: %v)", e.dtype, order)
	}
	size, err := byteSize(e.dtype, e.shape)
	if err != nil {
		return e, err
	}
	if e.begin > e.end {
		return e, fmt.Errorf("data_offsets [%d,%d] run backwards", e.begin, e.end)
	}
	if uint64(e.end-e.begin) != size {
		return e, fmt.Errorf("%s%v takes %d bytes, data_offsets [%d,%d] give %d", e.dtype, e.shape, size, e.begin, e.end, e.end-e.begin)
	}
	return e, nil
}

func readOffsets(dec *json.Decoder, e *entry) error {
	n := 0
	err := readArray(dec, func() error {
		v, err := readInt(dec)
		switch n {
		case 0:
			e.begin = v
		case 1:
			e.end = v
		}
		n++
		return err
	})
	if err == nil && n != 2 {
		err = fmt.Errorf("data_offsets has %d numbers, expected 2", n)
	}
	return err
}

// checkRanges sorts the entries by place and checks that they fill size bytes of data without overlap
// or gap, as the format demands: no byte of a file may hide from its header.
func checkRanges(entries []entry, size int64) error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	var at int64
	for i, e := range entries {
		if e.begin < at {
			return fmt.Errorf("header: tensors %q and %q overlap at byte %d of the data", entries[i-1].name, e.name, e.begin)
		}
		if e.begin > at {
			return fmt.Errorf("header: %d bytes before tensor %q belong to no tensor", e.begin-at, e.name)
		}
		at = e.end
	}
	if at > size {
		return fmt.Errorf("truncated: %d of %d bytes of data are missing", at-size, at)
	}
	if at < size {
		return fmt.Errorf("%d bytes after the last tensor belong to no tensor", size-at)
	}
	return nil
}
