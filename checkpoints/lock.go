package checkpoints

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile is the name of the lock inside an output directory.
const lockFile = ".lock"

// A DirLock is held on an output directory by its one writer.
type DirLock struct {
	dir string
	f   *os.File
}

// Lock makes dir where it is missing and takes its lock, without waiting. While it is held, every other
// Lock on the same directory, in this process or another, is refused with a line that names the
// holder. It ends with Close, or with the process, however that dies. What dead writers left in the
// directory and beside it is removed.
func Lock(dir string) (*DirLock, error) {
	l, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: lock %s: %w", dir, err)
	}
	return l, nil
}

func lock(dir string) (*DirLock, error) {
	target, err := resolveTarget(dir)
	if err != nil {
		return nil, err
	}
	parent, base := filepath.Split(target)
	if err := recoverLeftovers(parent, base); err != nil {
		return nil, err
	}
	if st, err := os.Stat(target); err == nil && !st.IsDir() {
		return nil, errors.New("it is a file, not a directory")
	}
	if err := os.MkdirAll(target, 0o777); err != nil {
		return nil, err
	}
	f, err := openLock(filepath.Join(target, lockFile))
	if err != nil {
		return nil, err
	}
	if err = writeHolder(f); err == nil {
		err = recoverLeftovers(target, "")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &DirLock{dir: dir, f: f}, nil
}

// openLock opens and locks the file. A Save of the whole directory may replace it in between, then it
// is opened again.
func openLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o666)
		if err != nil {
			return nil, err
		}
		err = flock(f)
		if err == nil {
			var same bool
			if same, err = sameFile(f, path); same {
				return f, nil
			}
			if err == nil || isMissing(err) {
				f.Close()
				continue
			}
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another writer has it: %s", readHolder(f))
		} else if errors.Is(err, errNoClaim) {
			err = errors.New("this file system has no locks: put the output on another")
		}
		f.Close()
		return nil, err
	}
}

func writeHolder(f *os.File) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
	return err
}

// readHolder returns the holder's line; what stands in the file is somebody else's, so it is cut short
// and quoted if it has to be.
func readHolder(f *os.File) string {
	b := make([]byte, 200)
	n, err := f.ReadAt(b, 0)
	s := strings.TrimSpace(string(b[:n]))
	switch {
	case err != nil && err != io.EOF, s == "":
		return "it has not said who it is"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Sprintf("%q", s)
	}
	return s
}

// Close gives the lock up. Closing twice is harmless.
func (l *DirLock) Close() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	// The file stays: removing it would let two writers lock two files of one name.
	if err := errors.Join(f.Truncate(0), f.Close()); err != nil {
		return fmt.Errorf("checkpoints: unlock %s: %w", l.dir, err)
	}
	return nil
}
