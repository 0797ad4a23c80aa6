package checkpoints

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Dir opens the files of one directory and no other. Names use slashes and are relative to it. An
// absolute name, one with too many "..", and a symbolic link that leads outside are refused.
//
// One exception: in the cache of the Hugging Face hub, where
// models--ORG--NAME/snapshots/COMMIT/FILE links to ../../blobs/HASH, links into the repository's own
// blobs are followed.
type Dir struct {
	path  string
	root  *os.Root
	blobs *os.Root // of the hub cache, else nil
	under string   // where the directory lies below the repository: "snapshots/COMMIT"
}

// OpenDir opens a directory for reading. Close releases it.
func OpenDir(dir string) (*Dir, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("checkpoints: %s is a file, not a directory", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	d := &Dir{path: dir, root: root}
	if repo, under := hubRepo(dir); repo != "" {
		if blobs, err := os.OpenRoot(filepath.Join(repo, "blobs")); err == nil {
			d.blobs, d.under = blobs, under
		}
	}
	return d, nil
}

// hubRepo finds the hub cache's repository above dir, and where dir lies below it; "" where there is none.
func hubRepo(dir string) (repo, under string) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", ""
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return "", ""
	}
	for p := abs; filepath.Dir(p) != p; p = filepath.Dir(p) {
		repo := filepath.Dir(filepath.Dir(p))
		if filepath.Base(filepath.Dir(p)) == "snapshots" && strings.HasPrefix(filepath.Base(repo), "models--") {
			under, err := filepath.Rel(repo, abs)
			if err != nil {
				return "", ""
			}
			return repo, filepath.ToSlash(under)
		}
	}
	return "", ""
}

// Path is the directory as it was opened.
func (d *Dir) Path() string { return d.path }

// Close releases the directory; files opened from it stay open.
func (d *Dir) Close() error {
	var err error
	if d.blobs != nil {
		err = d.blobs.Close()
	}
	if err = errors.Join(d.root.Close(), err); err != nil {
		return fmt.Errorf("checkpoints: close %s: %w", d.path, err)
	}
	return nil
}

// Open opens a regular file for reading. An error wraps fs.ErrNotExist where there is none.
func (d *Dir) Open(name string) (*os.File, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %s: %w", d.path, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("checkpoints: %s: %w", d.path, err)
	}
	return f, nil
}

func (d *Dir) open(name string) (*os.File, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return nil, fmt.Errorf("%q leads out of the directory", name)
	}
	const mode = os.O_RDONLY | unix.O_NONBLOCK // a named pipe must not hang
	if blob := d.blob(name); blob != "" {
		f, err := d.blobs.OpenFile(blob, mode, 0)
		if err != nil {
			return nil, fmt.Errorf("%s links to a blob: %w", name, err)
		}
		return f, nil
	}
	f, err := d.root.OpenFile(filepath.FromSlash(name), mode, 0)
	if err != nil && strings.Contains(err.Error(), "escapes") { // os.Root has no sentinel for it
		return nil, fmt.Errorf("%q leads out of the directory through a link", name)
	}
	return f, err
}

// blob returns the blob that name links to in a hub cache, "" where it is anything else. The target is
// read as text and the blob opened below blobs itself, so a forged link reaches nothing else.
func (d *Dir) blob(name string) string {
	if d.blobs == nil {
		return ""
	}
	target, err := d.root.Readlink(filepath.FromSlash(name))
	if err != nil || filepath.IsAbs(target) {
		return ""
	}
	dir, blob := path.Split(path.Join(d.under, path.Dir(name), filepath.ToSlash(target)))
	if dir != "blobs/" {
		return ""
	}
	return blob
}

// Has tells whether the directory holds a regular file of that name that Open would open.
func (d *Dir) Has(name string) bool {
	f, err := d.Open(name)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// ReadFile returns the content of a file of at most maxBytes; a longer one is an error, found before
// anything is allocated.
func (d *Dir) ReadFile(name string, maxBytes int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %s: %w", d.path, err)
	}
	if st.Size() > maxBytes {
		return nil, fmt.Errorf("checkpoints: %s: %s has %d bytes, above the limit of %d", d.path, name, st.Size(), maxBytes)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1)) // it may grow while being read
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %s: %w", d.path, err)
	}
	if int64(len(b)) > maxBytes {
		return nil, fmt.Errorf("checkpoints: %s: %s is longer than the limit of %d bytes", d.path, name, maxBytes)
	}
	return b, nil
}

// OpenFile opens a safetensors file of the directory.
func (d *Dir) OpenFile(name string) (*File, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	return mapFile(f, filepath.Join(d.path, filepath.FromSlash(name)))
}

// isMissing tells whether err says that a file is not there, as opposed to one that cannot be read.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
