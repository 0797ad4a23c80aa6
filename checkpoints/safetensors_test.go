package checkpoints

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
)

// file builds a safetensors file from a header and its data.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range data {
		b = append(b, byte(i))
	}
	return b
}

func sampleTensors(t testing.TB) []Tensor {
	t.Helper()
	var ts []Tensor
	add := func(x Tensor, err error) {
		require.NoError(t, err)
		ts = append(ts, x)
	}
	add(NewTensor("z", []int{3}, []int8{-1, 0, 127}))
	add(NewTensor("w", []int{2, 3}, []float32{1, -2, 0.5, 4e-45, 3e38, -0}))
	add(NewTensor("a", []int{2}, []float32{7, 8}))
	add(NewTensor("d", []int{1}, []float64{math.Pi}))
	add(NewTensor("scalar", nil, []int64{-1 << 62}))
	add(NewTensor("u", []int{2}, []uint8{0, 255}))
	add(NewTensor("i16", []int{1}, []int16{-300}))
	add(NewTensor("i32", []int{1}, []int32{1 << 30}))
	add(NewTensor("empty", []int{0, 4}, []float32{}))
	ts = append(ts,
		Tensor{Name: "half", DType: F16, Shape: []int{2}, Data: []byte{0, 0x3c, 0, 0xc0}},
		Tensor{Name: "bf", DType: BF16, Shape: []int{1}, Data: []byte{0x80, 0x3f}},
		Tensor{Name: "flag", DType: Bool, Shape: []int{2}, Data: []byte{0, 1}},
		Tensor{Name: "q\"\\\n\x01\u2028é</x>", DType: U8, Shape: []int{1}, Data: []byte{9}})
	return ts
}

func TestWriteThenOpen(t *testing.T) {
	ts := sampleTensors(t)
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, CreateFile(path, ts, map[string]string{"b": "2", "a": "\t<&\u2028"}))
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, map[string]string{"format": "pt", "b": "2", "a": "\t<&\u2028"}, f.Metadata)
	require.Len(t, f.Names(), len(ts))
	require.IsIncreasing(t, f.Names())
	for _, want := range ts {
		got, err := f.Tensor(want.Name)
		require.NoError(t, err)
		require.Equal(t, want.DType, got.DType)
		require.Equal(t, append([]int{}, want.Shape...), got.Shape)
		require.True(t, bytes.Equal(want.Data, got.Data), want.Name)
	}
	_, err = f.Tensor("nope")
	require.ErrorContains(t, err, `holds no tensor "nope"`)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	_, err = f.Tensor("w")
	require.Error(t, err)
}

func TestWriteIsDeterministic(t *testing.T) {
	ts := sampleTensors(t)
	var a, b bytes.Buffer
	require.NoError(t, WriteFile(&a, ts, nil))
	for i, j := 0, len(ts)-1; i < j; i, j = i+1, j-1 {
		ts[i], ts[j] = ts[j], ts[i]
	}
	require.NoError(t, WriteFile(&b, ts, nil))
	require.Equal(t, a.Bytes(), b.Bytes())
	n := binary.LittleEndian.Uint64(a.Bytes())
	require.Zero(t, n%8)
	require.True(t, strings.HasPrefix(a.String()[8:], `{"__metadata__":{"format":"pt"},"scalar":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"d":`), a.String()[8:120])
}

func TestWriteRefuses(t *testing.T) {
	one := func(name string) Tensor { return Tensor{Name: name, DType: U8, Shape: []int{1}, Data: []byte{1}} }
	for name, c := range map[string]struct {
		ts   []Tensor
		meta map[string]string
		want string
	}{
		"twice":    {[]Tensor{one("a"), one("a")}, nil, "two tensors are named"},
		"reserved": {[]Tensor{one("__metadata__")}, nil, "cannot be named"},
		"utf8":     {[]Tensor{one("\xff")}, nil, "not valid UTF-8"},
		"metadata": {nil, map[string]string{"a": "\xff"}, "not valid UTF-8"},
		"length":   {[]Tensor{{Name: "a", DType: F32, Shape: []int{2}, Data: make([]byte, 7)}}, nil, "takes 8 bytes, its data have 7"},
		"type":     {[]Tensor{{Name: "a", DType: "F8_E4M3"}}, nil, "unsupported type"},
		"negative": {[]Tensor{{Name: "a", DType: F32, Shape: []int{-1}}}, nil, "negative"},
		"overflow": {[]Tensor{{Name: "a", DType: F32, Shape: []int{1 << 40, 1 << 40}}}, nil, "overflows"},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, WriteFile(&bytes.Buffer{}, c.ts, c.meta), c.want) })
	}
	require.ErrorContains(t, WriteFile(brokenWriter{}, []Tensor{one("a")}, nil), "no space left")
	_, err := NewTensor("a", []int{3}, []float32{1})
	require.ErrorContains(t, err, `tensor "a": F32[3] takes 12 bytes, its data have 4`)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left") }

// hostile lists damaged files and what is said of each.
var hostile = []struct {
	name, header string
	data         int
	want         string
}{
	{"not json", `{"a":`, 0, "not valid JSON"},
	{"array", `[]`, 0, "does not start with {"},
	{"space first", ` {}`, 0, "does not start with {"},
	{"trailing", `{}{}`, 0, "not valid JSON"},
	{"twice", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, `key "a" stands twice`},
	{"twice by escape", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, `key "a" stands twice`},
	{"twice inside", `{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, `key "dtype" stands twice`},
	{"metadata twice", `{"__metadata__":{"a":"1","a":"2"}}`, 0, `key "a" stands twice`},
	{"metadata number", `{"__metadata__":{"a":1}}`, 0, "expected a string"},
	{"missing", `{"a":{"dtype":"U8","shape":[1]}}`, 1, "must all be given"},
	{"unknown field", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1, `unknown field "x"`},
	{"type", `{"a":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}}`, 1, `unsupported type "F8_E5M2"`},
	{"negative shape", `{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1, "no whole number"},
	{"fraction", `{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1, "no whole number"},
	{"shape overflow", `{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0, "whole number"},
	{"product overflow", `{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0, "overflows"},
	{"offset overflow", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}}`, 1, "whole number"},
	{"three offsets", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}`, 1, "has 3 numbers"},
	{"backwards", `{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}`, 1, "backwards"},
	{"size", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4, "takes 8 bytes"},
	{"overlap", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3, `"a" and "b" overlap`},
	{"same place", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2, "overlap"},
	{"gap", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, "1 bytes before tensor"},
	{"truncated", `{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 5, "truncated: 11 of 16 bytes of data are missing"},
	{"longer", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 3, "2 bytes after the last tensor"},
	{"utf8", "{\"\xff\":{}}", 0, "not valid UTF-8"},
}

func TestHostileFiles(t *testing.T) {
	dir := t.TempDir()
	open := func(b []byte) error {
		path := filepath.Join(dir, "x.safetensors")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		f, err := OpenFile(path)
		if err == nil {
			f.Close()
		} else {
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "\n")
		}
		return err
	}
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) { require.ErrorContains(t, open(file(c.header, c.data)), c.want) })
	}
	require.ErrorContains(t, open(nil), "it has 0 of the 8 bytes")
	require.ErrorContains(t, open([]byte("1234567")), "it has 7 of the 8 bytes")
	require.ErrorContains(t, open(bytes.Repeat([]byte{0xff}, 20)), "above the limit")
	require.ErrorContains(t, open(append([]byte{100, 0, 0, 0, 0, 0, 0, 0}, "{}"...)), "98 bytes of the header are missing")
	require.ErrorContains(t, open([]byte("version https://git-lfs.github.com/spec/v1\n")), "Git LFS pointer")
	require.NoError(t, open(file(`{}`, 0)))
	require.NoError(t, open(file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   `, 1)))

	_, err := OpenFile(dir)
	require.ErrorContains(t, err, "no regular file")
	_, err = OpenFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFileTruncatedWhileMapped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	big, err := NewTensor("big", []int{1 << 20}, make([]float32, 1<<20))
	require.NoError(t, err)
	require.NoError(t, CreateFile(path, []Tensor{big}, nil))
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, 8192))
	x, err := f.Tensor("big")
	require.NoError(t, err)
	_, err = Float32s(x)
	require.ErrorContains(t, err, `tensor "big": the mapped file could not be read`)
}

// TestRewriteGolden reads what the Python library wrote and expects to write the same bytes.
func TestRewriteGolden(t *testing.T) {
	root := shared.Path(t, "golden", "checkpoints")
	paths, err := filepath.Glob(filepath.Join(root, "*", "*.safetensors"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, p := range paths {
		want, err := os.ReadFile(p)
		require.NoError(t, err)
		f, err := OpenFile(p)
		require.NoError(t, err)
		var ts []Tensor
		for _, n := range f.Names() {
			x, err := f.Tensor(n)
			require.NoError(t, err)
			ts = append(ts, x)
		}
		var got bytes.Buffer
		require.NoError(t, WriteFile(&got, ts, f.Metadata))
		if f.Metadata["format"] == "pt" {
			require.True(t, bytes.Equal(want, got.Bytes()), p)
		}
		require.NoError(t, f.Close())
	}
}

func TestPythonRoundTrip(t *testing.T) {
	const probe = "import numpy, safetensors.numpy"
	python := cmp.Or(os.Getenv("RUNG_PEERS"), "python3")
	if err := exec.Command(python, "-c", probe).Run(); err != nil {
		require.Empty(t, os.Getenv("RUNG_PEERS"), "it names a Python without safetensors and numpy")
		t.Skip("no python3 with safetensors and numpy")
	}
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours.safetensors"), filepath.Join(dir, "theirs.safetensors")
	ts := sampleTensors(t)
	for i := range ts {
		if ts[i].DType == BF16 { // numpy has no such type
			ts = append(ts[:i], ts[i+1:]...)
			break
		}
	}
	require.NoError(t, CreateFile(ours, ts, nil))
	script := `
import sys
from safetensors.numpy import load_file, save_file
save_file(load_file(sys.argv[1]), sys.argv[2], metadata={"format": "pt"})`
	out, err := exec.Command(python, "-c", script, ours, theirs).CombinedOutput()
	require.NoError(t, err, string(out))
	a, err := os.ReadFile(ours)
	require.NoError(t, err)
	b, err := os.ReadFile(theirs)
	require.NoError(t, err)
	require.Equal(t, b, a)
}

// FuzzParse checks that whatever parses is consistent, and survives being written and read again.
func FuzzParse(f *testing.F) {
	for _, c := range hostile {
		f.Add(file(c.header, c.data))
	}
	var b bytes.Buffer
	require.NoError(f, WriteFile(&b, sampleTensors(f), nil))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, mem []byte) {
		ts, meta, err := parse(mem)
		if err != nil {
			return
		}
		total := 8 + int(binary.LittleEndian.Uint64(mem))
		for _, x := range ts {
			require.NoError(t, x.check())
			total += len(x.Data)
		}
		require.Equal(t, len(mem), total)
		var again bytes.Buffer
		require.NoError(t, WriteFile(&again, ts, meta))
		ts2, meta2, err := parse(again.Bytes())
		require.NoError(t, err)
		require.Len(t, ts2, len(ts))
		byName := map[string]Tensor{}
		for _, x := range ts2 {
			byName[x.Name] = x
		}
		for _, x := range ts {
			y := byName[x.Name]
			require.Equal(t, x.Shape, y.Shape)
			require.Equal(t, x.DType, y.DType)
			require.True(t, bytes.Equal(x.Data, y.Data))
		}
		for k, v := range meta {
			require.Equal(t, v, meta2[k])
		}
	})
}

func BenchmarkOpenAndConvert(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.safetensors")
	n := 16 << 20
	x, err := NewTensor("x", []int{n}, make([]float32, n))
	require.NoError(b, err)
	require.NoError(b, CreateFile(path, []Tensor{x}, nil))
	dst := make([]float32, n)
	b.SetBytes(int64(4 * n))
	for b.Loop() {
		f, err := OpenFile(path)
		require.NoError(b, err)
		x, err := f.Tensor("x")
		require.NoError(b, err)
		require.NoError(b, CopyFloat32s(dst, x))
		require.NoError(b, f.Close())
	}
}
