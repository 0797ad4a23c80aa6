package checkpoints

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	minRemembered = 1 << 20         // bytes; hashing a smaller file costs less than remembering it
	maxRemembered = 1024            // entries of the cache file
	settled       = 2 * time.Second // a file changed more recently could change again within one clock tick
)

// A Verifier remembers the SHA-256 sums of large files, in memory and in a small file, so that
// unchanged weights are not hashed at every opening. It is best effort: where the file cannot be read
// or written, files are hashed. A Verifier may be used from several goroutines.
type Verifier struct {
	// Cache is the file that sums are kept in; "" keeps them in memory only.
	Cache string

	mu    sync.Mutex
	once  sync.Once
	sums  map[identity]remembered
	dirty bool
}

// An identity changes whenever a file's content does, short of tampering with the clock or the disk:
// unlike the modification time, the change time cannot be set back.
type identity struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"`
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
	Mtime int64  `json:"mtime"` // Unix nanoseconds
	Ctime int64  `json:"ctime"` // Unix nanoseconds
}

type remembered struct {
	identity
	SHA256 string `json:"sha256"`
	Used   int64  `json:"used"` // Unix seconds
}

// NewVerifier returns a Verifier whose cache file lies below os.UserCacheDir.
func NewVerifier() *Verifier {
	dir, err := os.UserCacheDir()
	if err != nil {
		return &Verifier{}
	}
	return &Verifier{Cache: filepath.Join(dir, "rung", "verified.json")}
}

// sum returns the SHA-256 of f, which was opened at path, from memory where it has not changed.
func (v *Verifier) sum(path string, f *os.File) (string, error) {
	v.once.Do(v.load)
	id, known := identify(path, f)
	known = known && id.Size >= minRemembered
	if known {
		v.mu.Lock()
		r, ok := v.sums[id]
		v.mu.Unlock()
		if ok {
			return r.SHA256, nil
		}
	}
	start := time.Now()
	sum, _, err := hash(context.Background(), f)
	if err != nil {
		return "", err
	}
	after, ok := identify(path, f)
	if known && ok && after == id && start.Sub(time.Unix(0, id.Ctime)) > settled {
		v.mu.Lock()
		v.sums[id] = remembered{identity: id, SHA256: sum, Used: start.Unix()}
		v.dirty = true
		v.mu.Unlock()
	}
	return sum, nil
}

func identify(path string, f *os.File) (identity, bool) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return identity{}, false
	}
	var st unix.Stat_t
	for {
		if err = unix.Fstat(int(f.Fd()), &st); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return identity{
		Path: abs, Size: st.Size, Dev: uint64(st.Dev), Inode: st.Ino,
		Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}, err == nil
}

// load reads the cache file; a damaged one counts as empty.
func (v *Verifier) load() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sums = map[identity]remembered{}
	for _, r := range readRemembered(v.Cache) {
		v.sums[r.identity] = r
	}
}

func readRemembered(path string) []remembered {
	if path == "" {
		return nil
	}
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxManifest {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var rs []remembered
	if json.Unmarshal(b, &rs) != nil {
		return nil
	}
	return slices.DeleteFunc(rs, func(r remembered) bool { return !sha256Hex.MatchString(r.SHA256) })
}

// save writes the cache file anew, with what other processes have added to it meanwhile, and keeps the
// latest entries. A write lost to another process costs one more hashing, nothing else.
func (v *Verifier) save() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.dirty || v.Cache == "" {
		return
	}
	v.dirty = false
	all := map[identity]remembered{}
	for _, r := range readRemembered(v.Cache) {
		all[r.identity] = r
	}
	maps.Copy(all, v.sums)
	rs := slices.SortedFunc(maps.Values(all), func(a, b remembered) int { return int(b.Used - a.Used) })
	b, err := json.Marshal(rs[:min(len(rs), maxRemembered)])
	if err != nil {
		return
	}
	dir := filepath.Dir(v.Cache)
	if os.MkdirAll(dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(dir, ".verified-*") // 0600: nobody else may vouch for a file
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), v.Cache)
	}
	if err != nil {
		os.Remove(f.Name())
	}
}
