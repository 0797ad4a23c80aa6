package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeWhole writes a file that is there whole or not at all.
func writeWhole(path string, b []byte) error {
	f, err := createWhole(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return f.commit(err)
}

// A wholeFile is a file that takes its place when it is complete.
type wholeFile struct {
	*bufio.Writer
	f    *os.File
	path string
}

// createWhole starts a file beside path. What is no regular file, such as a pipe, is written to as it is.
func createWhole(path string) (*wholeFile, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return nil, fmt.Errorf("%s is a directory, want a file", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &wholeFile{bufio.NewWriter(f), f, ""}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return nil, err
	}
	return &wholeFile{bufio.NewWriterSize(f, 1<<16), f, path}, nil
}

// commit puts the file in its place, or removes it if there was an error.
func (w *wholeFile) commit(err error) error {
	if err == nil {
		err = w.Flush()
	}
	if w.path == "" {
		return errors.Join(err, w.f.Close())
	}
	if err == nil {
		err = w.f.Chmod(0o644)
	}
	if err == nil {
		err = w.f.Sync()
	}
	err = errors.Join(err, w.f.Close())
	if err == nil {
		err = os.Rename(w.f.Name(), w.path)
	}
	if err != nil {
		_ = os.Remove(w.f.Name())
	}
	return err
}

// writeTo writes results to the standard output if path is "" or "-", else to a file that is there whole
// or not at all.
func (e *Env) writeTo(path string, write func(w io.Writer) error) error {
	if path == "" || path == "-" {
		w := bufio.NewWriterSize(e.Stdout, 1<<16)
		if err := write(w); err != nil {
			return err
		}
		return w.Flush()
	}
	f, err := createWhole(path)
	if err != nil {
		return err
	}
	return f.commit(write(f))
}
