package checkpoints

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// A claim marks a directory as some living writer's: a flock on the directory itself, which follows it
// through renames and ends with the process. Process ids would not do: they are reused, and mean
// nothing on another machine or in another container.
type claim struct {
	path string
	f    *os.File
}

var errNoClaim = errors.New("this file system has no locks for directories")

// release is harmless on nil.
func (c *claim) release() {
	if c != nil && c.f != nil {
		c.f.Close()
	}
}

// claimNew makes and claims a new temporary directory beside target.
func claimNew(target, kind string) (*claim, error) {
	for {
		path, err := leftoverName(target, kind)
		if err != nil {
			return nil, err
		}
		if err := os.Mkdir(path, 0o777); err != nil {
			return nil, err
		}
		c, err := claimAt(path)
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, errNoClaim):
			return &claim{path: path}, nil
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK):
			continue // another process took it for a dead writer's before it was claimed
		}
		return nil, errors.Join(err, os.Remove(path))
	}
}

// claimAt claims an existing directory, without waiting.
func claimAt(path string) (*claim, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, err
	}
	// It may have been removed or replaced between opening and locking.
	if same, err := sameFile(f, path); !same {
		f.Close()
		return nil, errors.Join(fs.ErrNotExist, err)
	}
	return &claim{path: path, f: f}, nil
}

// flock takes an exclusive lock; EWOULDBLOCK says that somebody else has it, errNoClaim that the file
// system cannot.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil || err == unix.EWOULDBLOCK:
			return err
		case err == unix.EBADF || err == unix.ENOTSUP || err == unix.ENOSYS || err == unix.ENOLCK || err == unix.EINVAL:
			return errNoClaim
		}
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}

func sameFile(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b), err
}

var leftover = regexp.MustCompile(`^\.(.+)\.(tmp|old)-[0-9a-f]{16}$`)

// recoverLeftovers cleans up in parent after writers that died: an old directory that stepped aside
// goes back where nothing has taken its place, everything else they left is removed. With base it
// looks only after the directory of that name. A living writer's are left alone; what cannot be
// removed stays, for it does no harm.
func recoverLeftovers(parent, base string) error {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		m := leftover.FindStringSubmatch(e.Name())
		if m == nil || !e.IsDir() || base != "" && m[1] != base {
			continue
		}
		path, target := filepath.Join(parent, e.Name()), filepath.Join(parent, m[1])
		c, err := claimAt(path)
		if err != nil && !errors.Is(err, errNoClaim) {
			continue
		}
		_, missing := os.Lstat(target)
		switch {
		case m[2] == "old" && errors.Is(missing, fs.ErrNotExist):
			if err := os.Rename(path, target); err != nil {
				c.release()
				return fmt.Errorf("put the old directory back: %w", err)
			}
		case c != nil: // surely dead
			os.RemoveAll(path)
		}
		c.release()
	}
	return nil
}
