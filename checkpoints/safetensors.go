package checkpoints

import (
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A File is an open safetensors file, mapped into memory: opening it reads its header only.
//
// A file that is replaced by rename while mapped, as Save does, keeps its content. One that is
// truncated in place faults when read; Float32s and its siblings turn that into an error.
type File struct {
	Metadata map[string]string // __metadata__ of the header; empty where there is none

	path    string
	tensors map[string]Tensor
	mem     []byte
}

// OpenFile opens and checks a safetensors file. Close releases it.
func OpenFile(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // non-blocking: a named pipe must not hang
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	return mapFile(f, path)
}

// mapFile maps and parses f, which it closes: a mapping outlives its descriptor.
func mapFile(f *os.File, path string) (*File, error) {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("checkpoints: %s is no regular file (%s)", path, fs.FormatFileInfo(st))
	}
	if st.Size() > math.MaxInt {
		return nil, fmt.Errorf("checkpoints: %s: %d bytes do not fit this machine's address space", path, st.Size())
	}
	file := &File{path: path, tensors: map[string]Tensor{}}
	if st.Size() > 0 { // an empty mapping is an error of its own; parse says it better
		file.mem, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("checkpoints: map %s: %w", path, err)
		}
	}
	tensors, meta, err := parseMapped(file.mem)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("checkpoints: %s: %w", path, err)
	}
	file.Metadata = meta
	for _, t := range tensors {
		file.tensors[t.Name] = t
	}
	return file, nil
}

// Names lists the tensors, sorted.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.tensors)) }

// Tensor returns the tensor of that name; its data live until Close.
func (f *File) Tensor(name string) (Tensor, error) {
	t, ok := f.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("checkpoints: %s holds no tensor %q", f.path, name)
	}
	return t, nil
}

// Path is where the file was opened.
func (f *File) Path() string { return f.path }

// Forget tells the operating system that a tensor of the file will not be read soon: its pages stop
// counting as memory of the process. Reading them again is harmless.
func (f *File) Forget(name string) {
	t, ok := f.tensors[name]
	if !ok || len(t.Data) == 0 {
		return
	}
	page := uintptr(unix.Getpagesize())
	from := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data))) - uintptr(unsafe.Pointer(unsafe.SliceData(f.mem)))
	to := min((from+uintptr(len(t.Data))+page-1)/page*page, uintptr(len(f.mem)))
	_ = unix.Madvise(f.mem[from/page*page:to], unix.MADV_DONTNEED) // advice: an error changes nothing
}

// Close unmaps the file; the data of its tensors must not be touched any more. Closing twice is harmless.
func (f *File) Close() error {
	if f.mem == nil {
		return nil
	}
	mem := f.mem
	f.mem, f.tensors = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("checkpoints: unmap %s: %w", f.path, err)
	}
	return nil
}
