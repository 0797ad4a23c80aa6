package checkpoints

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Save replaces a directory whole. write fills the temporary directory it is given, a sibling of dir;
// then every file is synced, MANIFEST.json is written with their sizes and SHA-256 sums, and the
// temporary directory takes dir's place at once. What was there before is removed only afterwards.
// Whenever the process or the machine dies, dir is the old one or the new one, whole; what a dead
// writer left behind is removed by the next Save or Lock. (A file system that cannot exchange two
// directories in one step needs two renames; should the process die between them, the next Save or
// Lock puts the old directory back.)
//
// A directory that is neither empty nor written by Save is not replaced: the error names it. A lock
// that the directory holds (see Lock) stays in force. A symbolic link to a directory is kept, and what
// it leads to is replaced.
func Save(ctx context.Context, dir string, write func(tmp string) error) error {
	return (&saver{}).save(ctx, dir, write)
}

// A saver is one Save. Tests set its fields to make steps fail and to choose the way without exchange.
type saver struct {
	before     func(step, path string) error
	noExchange bool
}

func (s *saver) save(ctx context.Context, dir string, write func(tmp string) error) error {
	if err := s.replace(ctx, dir, write); err != nil {
		return fmt.Errorf("checkpoints: save %s: %w", dir, err)
	}
	return nil
}

func (s *saver) replace(ctx context.Context, dir string, write func(tmp string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	target, err := resolveTarget(dir)
	if err != nil {
		return err
	}
	parent, base := filepath.Split(target)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return err
	}
	if err := recoverLeftovers(parent, base); err != nil {
		return err
	}
	if _, err := replaceable(target); err != nil { // before the work of writing
		return err
	}
	if err := s.step("create", target); err != nil {
		return err
	}
	tmp, err := claimNew(target, "tmp")
	if err != nil {
		return err
	}
	defer tmp.release()
	moved := false
	defer func() { // also when write panics
		if !moved {
			os.RemoveAll(tmp.path)
		}
	}()
	if err := s.step("write", tmp.path); err != nil {
		return err
	}
	if err := write(tmp.path); err != nil {
		return err
	}
	if err := s.seal(ctx, tmp.path); err != nil {
		return err
	}
	old, err := replaceable(target) // as it is now: another process may have saved meanwhile
	if err != nil {
		return err
	}
	if old == nil {
		if err := s.step("rename", tmp.path); err != nil {
			return err
		}
		if err := os.Rename(tmp.path, target); err != nil {
			return err
		}
		moved = true
		return s.syncDir(parent)
	}
	return s.swap(tmp, target, old, &moved)
}

// swap puts tmp in the place of target and removes what was there.
func (s *saver) swap(tmp *claim, target string, old fs.FileInfo, moved *bool) error {
	if err := os.Chmod(tmp.path, old.Mode().Perm()); err != nil {
		return err
	}
	// The same inode under the new name: whoever holds the lock goes on holding it.
	if err := os.Link(filepath.Join(target, lockFile), filepath.Join(tmp.path, lockFile)); err != nil && !isMissing(err) {
		return err
	}
	if err := s.step("exchange", target); err != nil {
		return err
	}
	aside, err := tmp.path, error(unix.ENOSYS)
	if !s.noExchange {
		err = exchange(tmp.path, target)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		aside, err = s.renameTwice(tmp.path, target)
	}
	if err != nil {
		return err
	}
	*moved = true
	if err := s.syncDir(filepath.Dir(target)); err != nil {
		return err // the old one stays aside: it may be what the disk still has under this name
	}
	if err := s.step("remove", aside); err != nil {
		return err
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("the new directory is in place, but the old one is not removed: %w", err)
	}
	return nil
}

// renameTwice is the exchange on file systems that have none: the old directory steps aside, and back
// if the new one cannot take its place. Between the two renames target is missing; a process that dies
// there leaves a name that recoverLeftovers understands.
func (s *saver) renameTwice(tmp, target string) (aside string, err error) {
	held, err := claimAt(target) // so that nobody takes the old one for a dead writer's
	if err != nil && !errors.Is(err, errNoClaim) {
		return "", err
	}
	defer held.release()
	if aside, err = leftoverName(target, "old"); err != nil {
		return "", err
	}
	if err := s.step("rename aside", target); err != nil {
		return "", err
	}
	if err := os.Rename(target, aside); err != nil {
		return "", err
	}
	err = s.step("rename", tmp)
	if err == nil {
		err = os.Rename(tmp, target)
	}
	if err == nil {
		return aside, nil
	}
	if back := os.Rename(aside, target); back != nil {
		return "", fmt.Errorf("%w; the old directory is at %s: %w", err, aside, back)
	}
	return "", err
}

// seal makes tmp durable: syncs its files, lists them in a manifest, syncs that and the directories.
func (s *saver) seal(ctx context.Context, tmp string) error {
	m := &Manifest{Version: manifestVersion, Files: []FileInfo{}}
	var dirs []string
	err := filepath.WalkDir(tmp, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			dirs = append(dirs, p)
			return nil
		}
		rel, err := filepath.Rel(tmp, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case name == ManifestFile || name == lockFile:
			return fmt.Errorf("%s is written by Save itself", name)
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is no regular file", name)
		}
		f, err := s.syncFile(ctx, p, name)
		m.Files = append(m.Files, f)
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(m.Files, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
	if err := s.writeManifest(filepath.Join(tmp, ManifestFile), m); err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := s.syncDir(d); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *saver) syncFile(ctx context.Context, p, name string) (FileInfo, error) {
	if err := s.step("sync", p); err != nil {
		return FileInfo{}, err
	}
	f, err := os.Open(p)
	if err != nil {
		return FileInfo{}, err
	}
	defer f.Close()
	sum, size, err := hash(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	return FileInfo{Name: name, Size: size, SHA256: sum}, err
}

func (s *saver) writeManifest(p string, m *Manifest) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if err := s.step("manifest", p); err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (s *saver) syncDir(dir string) error {
	if err := s.step("sync", dir); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil // this file system cannot sync directories
	}
	return err
}

func (s *saver) step(name, path string) error {
	if s.before == nil {
		return nil
	}
	return s.before(name, path)
}

// resolveTarget returns the absolute path to replace, links resolved.
func resolveTarget(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	target, err := filepath.EvalSymlinks(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(abs); err == nil {
			return "", errors.New("it is a link that leads nowhere")
		}
		target = abs
	case err != nil:
		return "", err
	}
	if filepath.Dir(target) == target {
		return "", errors.New("the root directory cannot be replaced")
	}
	return target, nil
}

// replaceable returns what is at target, nil where nothing is, and an error where it is not ours.
func replaceable(target string) (fs.FileInfo, error) {
	st, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, errors.New("it is a file, not a directory")
	}
	entries, err := os.ReadDir(target)
	if err != nil {
		return nil, err
	}
	other := ""
	for _, e := range entries {
		switch {
		case e.Name() == ManifestFile:
			return st, nil
		case e.Name() != lockFile && other == "":
			other = e.Name()
		}
	}
	if other != "" {
		return nil, fmt.Errorf("the directory holds %s and no %s, so it was not saved by this program and is not replaced: give another directory, or empty it", other, ManifestFile)
	}
	return st, nil
}

// leftoverName returns an unused sibling name of target that recoverLeftovers recognises.
func leftoverName(target, kind string) (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	dir, base := filepath.Split(target)
	return filepath.Join(dir, "."+base+"."+kind+"-"+hex.EncodeToString(b[:])), nil
}
