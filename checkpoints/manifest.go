package checkpoints

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ManifestFile is the name of the manifest inside a saved directory.
const ManifestFile = "MANIFEST.json"

const (
	manifestVersion = 1
	maxManifest     = 16 << 20
)

// A Manifest lists what a saved directory holds.
type Manifest struct {
	Version int        `json:"version"`
	Files   []FileInfo `json:"files"` // sorted by name
}

// A FileInfo is one file of a manifest.
type FileInfo struct {
	Name   string `json:"name"`   // relative, with slashes
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // 64 lower-case hexadecimal digits
}

// File returns the entry of that name.
func (m *Manifest) File(name string) (FileInfo, bool) {
	for _, f := range m.Files {
		if f.Name == name {
			return f, true
		}
	}
	return FileInfo{}, false
}

func (m *Manifest) encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

// parseManifest reads a manifest, refusing what Save does not write.
func parseManifest(b []byte) (*Manifest, error) {
	dec, err := newStrictDecoder(b)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	err = readObject(dec, func(key string) error {
		switch key {
		case "version":
			v, err := readInt(dec)
			if err == nil && v != manifestVersion {
				err = fmt.Errorf("version %d is not known, only %d", v, manifestVersion)
			}
			m.Version = int(v)
			return err
		case "files":
			m.Files = []FileInfo{}
			return readArray(dec, func() error {
				f, err := parseFileInfo(dec)
				m.Files = append(m.Files, f)
				return err
			})
		}
		return fmt.Errorf("unknown key %q", key)
	})
	if err != nil {
		return nil, err
	}
	if m.Version == 0 || m.Files == nil {
		return nil, errors.New("version and files must both be given")
	}
	slices.SortFunc(m.Files, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range m.Files {
		if i > 0 && f.Name == m.Files[i-1].Name {
			return nil, fmt.Errorf("%q stands twice", f.Name)
		}
	}
	return m, nil
}

func parseFileInfo(dec *json.Decoder) (f FileInfo, err error) {
	sized := false
	err = readObject(dec, func(key string) (err error) {
		switch key {
		case "name":
			f.Name, err = readString(dec)
		case "size":
			f.Size, err = readInt(dec)
			sized = true
		case "sha256":
			f.SHA256, err = readString(dec)
		default:
			err = fmt.Errorf("unknown key %q", key)
		}
		return err
	})
	switch {
	case err != nil:
	case !fs.ValidPath(f.Name) || f.Name == "." || f.Name == ManifestFile:
		err = fmt.Errorf("%q is no file name for a manifest", f.Name)
	case !sized:
		err = fmt.Errorf("%q has no size", f.Name)
	case !sha256Hex.MatchString(f.SHA256):
		err = fmt.Errorf("%q has no SHA-256 of 64 lower-case hexadecimal digits", f.Name)
	}
	return f, err
}

// Verify checks a directory against its manifest: sizes first, then SHA-256 sums. It returns nil, nil
// for a directory without a manifest, which another program wrote. Large files that were verified
// before and have not changed since are not hashed again: see Verifier.
func Verify(dir string) (*Manifest, error) {
	return NewVerifier().Verify(dir)
}

// Verify is the function Verify with the sums that v remembers.
func (v *Verifier) Verify(dir string) (*Manifest, error) {
	d, err := OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	b, err := d.ReadFile(ManifestFile, maxManifest)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %s: %s: %w", dir, ManifestFile, err)
	}
	if err := v.compare(d, m); err != nil {
		return nil, fmt.Errorf("checkpoints: %s is not what was saved: %w", dir, err)
	}
	return m, nil
}

func (v *Verifier) compare(d *Dir, m *Manifest) error {
	files := make([]*os.File, len(m.Files))
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	for i, want := range m.Files {
		f, err := d.Open(want.Name)
		if isMissing(err) {
			return fmt.Errorf("%s is missing", want.Name)
		}
		if err != nil {
			return err
		}
		files[i] = f
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if st.Size() != want.Size {
			return fmt.Errorf("%s has %d bytes, expected %d", want.Name, st.Size(), want.Size)
		}
	}
	if err := unlisted(d, m); err != nil {
		return err
	}
	for i, want := range m.Files {
		sum, err := v.sum(filepath.Join(d.path, filepath.FromSlash(want.Name)), files[i])
		if err != nil {
			return fmt.Errorf("%s: %w", want.Name, err)
		}
		if sum != want.SHA256 {
			return fmt.Errorf("%s has SHA-256 %s, expected %s", want.Name, sum, want.SHA256)
		}
	}
	v.save()
	return nil
}

// unlisted refuses a file that would change what is loaded (JSON, safetensors), where it lies beside
// listed ones and is not listed itself. Other additions, such as a README, do no harm.
func unlisted(d *Dir, m *Manifest) error {
	listed := map[string]bool{ManifestFile: true}
	dirs := map[string]bool{".": true}
	for _, f := range m.Files {
		listed[f.Name] = true
		dirs[path.Dir(f.Name)] = true
	}
	for dir := range dirs {
		entries, err := fs.ReadDir(d.root.FS(), dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if ext := path.Ext(name); (ext == ".json" || ext == ".safetensors") && !listed[name] {
				return fmt.Errorf("%s was added: %s does not list it", name, ManifestFile)
			}
		}
	}
	return nil
}

// hash returns the SHA-256 of what r still holds, in hexadecimal, and its length.
func hash(ctx context.Context, r io.Reader) (sum string, size int64, err error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", 0, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}
