package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"rung/checkpoints"
)

const maxConfig = 64 << 20

// A snapshot is one commit of a repository in the cache.
type snapshot struct {
	repoDir string // models--ORG--NAME
	dir     string // its snapshots/COMMIT
}

// commit returns the commit that the cache has for a revision, "" where it has none.
func (s snapshot) commit(rev string) string {
	if commitID.MatchString(rev) {
		if st, err := os.Stat(filepath.Join(s.repoDir, "snapshots", rev)); err == nil && st.IsDir() {
			return rev
		}
		return ""
	}
	b, err := os.ReadFile(filepath.Join(s.repoDir, "refs", filepath.FromSlash(rev)))
	if err != nil {
		return ""
	}
	if c := strings.TrimSpace(string(b)); commitID.MatchString(c) {
		if st, err := os.Stat(filepath.Join(s.repoDir, "snapshots", c)); err == nil && st.IsDir() {
			return c
		}
	}
	return ""
}

// loadable returns what keeps the snapshot from being loaded, nil where nothing does: a configuration
// is there, and all weights.
func (s snapshot) loadable() error {
	d, err := checkpoints.OpenDir(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if !d.Has("config.json") && !d.Has("modules.json") && !d.Has("adapter_config.json") {
		return errors.New("there is no config.json, modules.json or adapter_config.json")
	}
	modules, err := readModules(d)
	if err != nil {
		return err
	}
	main, name := "", checkpoints.ModelFile // older sentence-transformers keep the model in 0_Transformer
	if len(modules) > 0 {
		main = modules[0]
	}
	if d.Has("adapter_config.json") {
		name = checkpoints.AdapterFile
	}
	w, err := d.Weights(path.Join(main, name))
	if err != nil {
		return err
	}
	return w.Close()
}

// complete tells whether nothing is left to download: the snapshot is loadable, each optional file is
// there or known not to exist, and so are the files of its modules.
func (s snapshot) complete(commit string) bool {
	if s.loadable() != nil {
		return false
	}
	d, err := checkpoints.OpenDir(s.dir)
	if err != nil {
		return false
	}
	defer d.Close()
	settled := func(name string) bool {
		if d.Has(name) {
			return true
		}
		_, err := os.Stat(filepath.Join(s.repoDir, ".no_exist", commit, filepath.FromSlash(name)))
		return err == nil
	}
	for _, name := range optional {
		if !settled(name) {
			return false
		}
	}
	modules, err := readModules(d)
	if err != nil {
		return false
	}
	for _, m := range modules {
		if m != "" && (!settled(path.Join(m, "config.json")) || !settled(path.Join(m, checkpoints.ModelFile))) {
			return false
		}
	}
	return true
}

// markMissing notes for this and the Python library that the hub has no file of these names.
func (s snapshot) markMissing(commit string, files []remoteFile) error {
	d, err := checkpoints.OpenDir(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names := optional
	modules, err := readModules(d)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if m != "" {
			names = append(names[:len(names):len(names)], path.Join(m, "config.json"), path.Join(m, checkpoints.ModelFile))
		}
	}
	listed := map[string]bool{}
	for _, f := range files {
		listed[f.Name] = true
	}
	for _, name := range names {
		if listed[name] {
			continue
		}
		p := filepath.Join(s.repoDir, ".no_exist", commit, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(p, nil, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// readModules returns the directories that modules.json names, "" for the root; none without the file.
func readModules(d *checkpoints.Dir) ([]string, error) {
	b, err := d.ReadFile("modules.json", maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []struct {
		Path string `json:"path"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("modules.json: %w", err)
	}
	var dirs []string
	for _, m := range list {
		if m.Path != "" && !filepath.IsLocal(m.Path) {
			return nil, fmt.Errorf("modules.json: path %q leads out of the directory", m.Path)
		}
		dirs = append(dirs, m.Path)
	}
	return dirs, nil
}

// link puts a blob into the snapshot under its name, as a relative link.
func (s snapshot) link(name, blob string) error {
	at := filepath.Join(s.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(at), filepath.Join(s.repoDir, "blobs", blob))
	if err != nil {
		return err
	}
	if have, err := os.Readlink(at); err == nil && have == target {
		return nil
	}
	tmp := at + ".link"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, at)
}

// setRef notes which commit a branch or tag is.
func (s snapshot) setRef(rev, commit string) error {
	if commitID.MatchString(rev) {
		return nil
	}
	at := filepath.Join(s.repoDir, "refs", filepath.FromSlash(rev))
	if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.repoDir, ".ref-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(commit)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), at)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
