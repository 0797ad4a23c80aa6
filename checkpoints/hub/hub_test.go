package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rung/checkpoints"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const commit = "0123456789abcdef0123456789abcdef01234567"

// A fakeHub imitates the hub's API and its file server on loopback.
type fakeHub struct {
	t     *testing.T
	files map[string]string // content by name

	mu       sync.Mutex
	requests []string
	broken   map[string]int  // answers of this file that break off in the middle
	busy     int             // requests that are answered 503
	corrupt  map[string]bool // files that arrive changed
	token    string          // asked for, if not empty
	bare     bool            // lists names only, as some mirrors
	noRange  bool
}

func (h *fakeHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, r.URL.Path+" "+r.Header.Get("Range"))
	if h.token != "" && r.Header.Get("Authorization") != "Bearer "+h.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if h.busy > 0 {
		h.busy--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if rev, ok := strings.CutPrefix(r.URL.Path, "/api/models/org/name/revision/"); ok {
		h.info(w, rev)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+commit+"/")
	content, exists := h.files[name]
	if !ok || !exists {
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h.file(w, r, name, content)
}

func (h *fakeHub) info(w http.ResponseWriter, rev string) {
	if rev != "main" && rev != commit && rev != "refs/pr/1" {
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	type lfs struct {
		SHA256 string `json:"sha256"`
		Size   int    `json:"size"`
	}
	type sibling struct {
		Name   string `json:"rfilename"`
		Size   int    `json:"size,omitempty"`
		BlobID string `json:"blobId,omitempty"`
		LFS    *lfs   `json:"lfs,omitempty"`
	}
	var list []sibling
	for name, c := range h.files {
		s := sibling{Name: name}
		if !h.bare {
			s.Size, s.BlobID = len(c), fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(c), c)))
			if strings.HasSuffix(name, ".safetensors") {
				s.LFS = &lfs{fmt.Sprintf("%x", sha256.Sum256([]byte(c))), len(c)}
			}
		}
		list = append(list, s)
	}
	json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": list})
}

func (h *fakeHub) file(w http.ResponseWriter, r *http.Request, name, content string) {
	if h.corrupt[name] {
		content = strings.ToUpper(content)
	}
	if h.noRange {
		r.Header.Del("Range")
	}
	if h.broken[name] > 0 {
		h.broken[name]--
		var at int
		if n, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at); n == 1 && err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(content)-1, len(content)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)-at))
		if at > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		fmt.Fprint(w, content[at:at+(len(content)-at)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(content))
}

// model returns the files of a small sentence-transformers model and what must not be downloaded.
func model(t *testing.T) map[string]string {
	t.Helper()
	var b strings.Builder
	x, err := checkpoints.NewTensor("w", []int{1000}, make([]float32, 1000))
	require.NoError(t, err)
	require.NoError(t, checkpoints.WriteFile(&b, []checkpoints.Tensor{x}, nil))
	return map[string]string{
		"config.json": `{"model_type":"bert"}`, "vocab.txt": "[PAD]\n", "tokenizer.json": `{"version":"1.0"}`,
		"modules.json":          `[{"path":""},{"path":"1_Pooling"},{"path":"2_Normalize"}]`,
		"1_Pooling/config.json": "{}", "model.safetensors": b.String(),
		"pytorch_model.bin": "pickle", "onnx/model.onnx": "onnx", "tf_model.h5": "h5", "README.md": "#", ".gitattributes": "",
		"openvino/config.json": "{}",
	}
}

func start(t *testing.T) (*fakeHub, *Client) {
	t.Helper()
	h := &fakeHub{t: t, files: model(t), broken: map[string]int{}, corrupt: map[string]bool{}}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return h, &Client{Endpoint: server.URL, Cache: t.TempDir(), Retry: time.Millisecond}
}

func TestDownload(t *testing.T) {
	h, c := start(t)
	ctx := context.Background()
	last := map[string][2]int64{}
	c.Progress = func(file string, done, total int64) { last[file] = [2]int64{done, total} }
	dir, rev, err := c.Resolve(ctx, "hf:org/name")
	require.NoError(t, err)
	require.Equal(t, commit, rev)
	require.Equal(t, filepath.Join(c.Cache, "models--org--name", "snapshots", commit), dir)
	d, err := checkpoints.OpenDir(dir)
	require.NoError(t, err)
	defer d.Close()
	for name, content := range h.files {
		wanted := needed(name)
		require.Equal(t, wanted, d.Has(name), name)
		if wanted {
			b, err := d.ReadFile(name, 1<<20)
			require.NoError(t, err)
			require.Equal(t, content, string(b))
			require.Equal(t, [2]int64{int64(len(content)), int64(len(content))}, last[name])
		}
	}
	for _, name := range []string{"pytorch_model.bin", "onnx/model.onnx", "tf_model.h5", "README.md", "openvino/config.json"} {
		require.False(t, d.Has(name))
	}
	w, err := checkpoints.OpenWeights(dir)
	require.NoError(t, err)
	require.NoError(t, w.Close())

	// From now on no request is made, whatever the revision is called.
	h.requests = nil
	for _, ref := range []string{"hf:org/name", "hf:org/name@main", "hf:org/name@" + commit} {
		again, rev, err := c.Resolve(ctx, ref)
		require.NoError(t, err)
		require.Equal(t, dir, again)
		require.Equal(t, commit, rev)
	}
	require.Empty(t, h.requests)

	// Another revision of the same commit costs one question.
	_, _, err = c.Resolve(ctx, "hf:org/name@refs/pr/1")
	require.NoError(t, err)
	require.Equal(t, []string{"/api/models/org/name/revision/refs/pr/1 "}, h.requests)
}

func TestDownloadsAtOnceShareTheWork(t *testing.T) {
	h, c := start(t)
	errs := make(chan error)
	for range 4 {
		go func() {
			_, _, err := c.Resolve(context.Background(), "hf:org/name")
			errs <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
	n := 0
	for _, r := range h.requests {
		if strings.Contains(r, "model.safetensors") {
			n++
		}
	}
	require.Equal(t, 1, n)
}

func TestDownloadResumes(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		h, c := start(t)
		h.noRange = noRange
		h.broken["model.safetensors"] = 2
		h.busy = 2
		dir, _, err := c.Resolve(context.Background(), "hf:org/name")
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		require.NoError(t, err)
		require.Equal(t, h.files["model.safetensors"], string(b))
		if !noRange {
			n := len(b)
			require.Subset(t, h.requests, []string{
				fmt.Sprintf("/org/name/resolve/%s/model.safetensors bytes=%d-", commit, n/2),
				fmt.Sprintf("/org/name/resolve/%s/model.safetensors bytes=%d-", commit, n/2+(n-n/2)/2),
			})
		}
	}
}

func TestTornDownloadIsRefusedThenResumed(t *testing.T) {
	h, c := start(t)
	h.broken["model.safetensors"] = 1
	ctx, cancel := context.WithCancel(context.Background())
	c.Progress = func(file string, done, total int64) {
		if file == "model.safetensors" && done < total {
			cancel()
		}
	}
	_, _, err := c.Resolve(ctx, "hf:org/name")
	require.ErrorIs(t, err, context.Canceled)
	repo := filepath.Join(c.Cache, "models--org--name")
	require.NoFileExists(t, filepath.Join(repo, "refs", "main"))
	part, err := filepath.Glob(filepath.Join(repo, "blobs", "*.incomplete"))
	require.NoError(t, err)
	require.Len(t, part, 1)
	st, err := os.Stat(part[0])
	require.NoError(t, err)
	require.Positive(t, st.Size())

	h.requests, c.Progress = nil, nil
	dir, _, err := c.Resolve(context.Background(), "hf:org/name")
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	require.Equal(t, h.files["model.safetensors"], string(b))
	require.Contains(t, h.requests, fmt.Sprintf("/org/name/resolve/%s/model.safetensors bytes=%d-", commit, st.Size()))
}

func TestWrongPartIsThrownAway(t *testing.T) {
	h, c := start(t)
	blobs := filepath.Join(c.Cache, "models--org--name", "blobs")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(h.files["model.safetensors"])))
	for _, n := range []int{10, len(h.files["model.safetensors"]), 9999} {
		require.NoError(t, os.RemoveAll(filepath.Join(blobs, sum)))
		require.NoError(t, os.RemoveAll(filepath.Join(c.Cache, "models--org--name", "refs")))
		require.NoError(t, os.WriteFile(filepath.Join(blobs, sum+".incomplete"), make([]byte, n)[:n:n], 0o644))
		dir, _, err := c.Resolve(context.Background(), "hf:org/name")
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		require.NoError(t, err)
		require.Equal(t, h.files["model.safetensors"], string(b))
	}
}

func TestCorruptDownloadIsRefused(t *testing.T) {
	for _, name := range []string{"model.safetensors", "config.json"} {
		h, c := start(t)
		h.corrupt[name] = true
		_, _, err := c.Resolve(context.Background(), "hf:org/name")
		require.ErrorContains(t, err, "hub: hf:org/name@main: "+name+": the download has checksum ")
		require.NoFileExists(t, filepath.Join(c.Cache, "models--org--name", "snapshots", commit, name))
	}
}

func TestMirrorWithoutChecksums(t *testing.T) {
	h, c := start(t)
	h.bare = true
	dir, _, err := c.Resolve(context.Background(), "hf:org/name")
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	require.Equal(t, h.files["config.json"], string(b))
	h.requests = nil
	_, _, err = c.Resolve(context.Background(), "hf:org/name")
	require.NoError(t, err)
	require.Empty(t, h.requests)
}

func TestRefusals(t *testing.T) {
	h, c := start(t)
	ctx := context.Background()
	expect := func(ref, want string) {
		t.Helper()
		_, _, err := c.Resolve(ctx, ref)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	expect("hf:org/none", "hub: hf:org/none@main: there is no "+c.Endpoint+"/org/none at revision \"main\" (HTTP 404)")
	expect("hf:org/name@v9", "has no revision \"v9\"")
	h.token = "secret"
	expect("hf:org/name", "no access to "+c.Endpoint+"/org/name (HTTP 401): check the name; if it is private or gated, set HF_TOKEN")
	c.Token = "wrong"
	_, _, err := c.Resolve(ctx, "hf:org/name")
	require.ErrorContains(t, err, "the token in use has no access")
	require.NotContains(t, err.Error(), "wrong")
	c.Token = "secret"
	h.busy = 1000
	expect("hf:org/name", "after 5 attempts: ")
	h.busy = 0
	delete(h.files, "model.safetensors")
	expect("hf:org/name", "it holds pytorch_model.bin but no model.safetensors; pickle is never read")
	delete(h.files, "pytorch_model.bin")
	expect("hf:org/name", "holds neither model.safetensors nor")
	h.files["../../evil/config.json"] = "{}"
	expect("hf:org/name", `lists a file "../../evil/config.json", which is no proper name`)
	h.files = map[string]string{"README.md": "#"}
	expect("hf:org/name", "none of the files a model is loaded from")

	for _, ref := range []string{"hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a--b/c", "hf:a/b c", "hf:/etc", "hf:a/b@", "hf:a/b@../x", "hf:a/b@/x", "hf:a/b@x/../y", "hf:a/b@-x"} {
		_, _, err := c.Resolve(ctx, ref)
		require.Error(t, err, ref)
		require.Contains(t, err.Error(), "hub: ", ref)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = c.Resolve(cancelled, "hf:org/name")
	require.ErrorIs(t, err, context.Canceled)
}

func TestOwnCheckpointIsTakenWhole(t *testing.T) {
	h, c := start(t)
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, checkpoints.Save(context.Background(), out, func(tmp string) error {
		for _, name := range []string{"config.json", "model.safetensors", "README.md"} {
			if err := os.WriteFile(filepath.Join(tmp, name), []byte(h.files[name]), 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
	b, err := os.ReadFile(filepath.Join(out, checkpoints.ManifestFile))
	require.NoError(t, err)
	h.files = map[string]string{
		checkpoints.ManifestFile: string(b), "README.md": "#", "pytorch_model.bin": "pickle",
		"config.json": h.files["config.json"], "model.safetensors": h.files["model.safetensors"],
	}
	dir, _, err := c.Resolve(context.Background(), "hf:org/name")
	require.NoError(t, err)
	m, err := checkpoints.Verify(dir)
	require.NoError(t, err)
	require.Len(t, m.Files, 3)
	require.NoFileExists(t, filepath.Join(dir, "pytorch_model.bin"))
}

// pythonCache lays out what the Python library leaves behind when Transformers has loaded a model: no
// module files, and no word about them.
func pythonCache(t *testing.T, cache string) string {
	t.Helper()
	repo := filepath.Join(cache, "models--org--name")
	snap := filepath.Join(repo, "snapshots", commit)
	require.NoError(t, os.MkdirAll(snap, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(repo, "blobs"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(repo, "refs"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(repo, "refs", "main"), []byte(commit), 0o644))
	for _, name := range []string{"config.json", "model.safetensors"} {
		c := model(t)[name]
		blob := fmt.Sprintf("%x", sha256.Sum256([]byte(c)))
		require.NoError(t, os.WriteFile(filepath.Join(repo, "blobs", blob), []byte(c), 0o644))
		require.NoError(t, os.Symlink("../../blobs/"+blob, filepath.Join(snap, name)))
	}
	return snap
}

func TestOffline(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", home)
	t.Setenv("HF_HUB_OFFLINE", "1")
	ctx := context.Background()
	snap := pythonCache(t, filepath.Join(home, "hub"))
	dir, rev, err := Resolve(ctx, "hf:org/name")
	require.NoError(t, err)
	require.Equal(t, snap, dir)
	require.Equal(t, commit, rev)
	_, _, err = Resolve(ctx, "hf:org/name@v2")
	require.ErrorContains(t, err, "not in the cache (looked for revision v2 in "+filepath.Join(home, "hub", "models--org--name")+"), and HF_HUB_OFFLINE forbids")
	require.NoError(t, os.Remove(filepath.Join(snap, "model.safetensors")))
	_, _, err = Resolve(ctx, "hf:org/name")
	require.ErrorContains(t, err, snap+" is incomplete")
}

func TestPartlyCached(t *testing.T) {
	// Online, what the Python library has not looked at is fetched: here, how to pool.
	h, c := start(t)
	snap := pythonCache(t, c.Cache)
	dir, _, err := c.Resolve(context.Background(), "hf:org/name")
	require.NoError(t, err)
	require.Equal(t, snap, dir)
	require.FileExists(t, filepath.Join(dir, "1_Pooling", "config.json"))
	for _, r := range h.requests {
		require.NotContains(t, r, "model.safetensors", "the weights were in the cache")
	}
	// Without a network, it has to do.
	_, c = start(t)
	c.Endpoint = "http://127.0.0.1:1"
	snap = pythonCache(t, c.Cache)
	dir, _, err = c.Resolve(context.Background(), "hf:org/name")
	require.NoError(t, err)
	require.Equal(t, snap, dir)
}

func TestLocal(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	got, rev, err := Resolve(ctx, dir)
	require.NoError(t, err)
	require.Equal(t, dir, got)
	require.Empty(t, rev)
	file := filepath.Join(dir, "model.safetensors")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, _, err = Resolve(ctx, file)
	require.EqualError(t, err, "hub: "+file+" is a file: a model is the directory that holds it, "+dir)
	t.Chdir(dir)
	_, _, err = Resolve(ctx, "org/name")
	require.EqualError(t, err, `hub: no model directory "org/name" (looked for `+filepath.Join(dir, "org/name")+"); for the model of that name on the Hugging Face hub give hf:org/name")
	_, _, err = Resolve(ctx, "")
	require.ErrorContains(t, err, "no model is named")
}

func TestFromEnv(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HF_HOME", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	env := func() *Client {
		t.Helper()
		c, err := FromEnv()
		require.NoError(t, err)
		return c
	}
	require.Equal(t, &Client{Cache: filepath.Join(home, ".cache/huggingface/hub")}, env())
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "xdg"))
	require.Equal(t, filepath.Join(home, "xdg/huggingface/hub"), env().Cache)
	t.Setenv("HF_HOME", "~/hf")
	require.Equal(t, filepath.Join(home, "hf/hub"), env().Cache)
	require.NoError(t, os.MkdirAll(filepath.Join(home, "hf"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "hf", "token"), []byte("stored\n"), 0o600))
	require.Equal(t, "stored", env().Token)
	t.Setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
	require.Empty(t, env().Token)
	t.Setenv("HF_TOKEN", "given")
	t.Setenv("HF_HUB_CACHE", home)
	t.Setenv("HF_ENDPOINT", "http://mirror/")
	t.Setenv("HF_HUB_OFFLINE", "true")
	require.Equal(t, &Client{Cache: home, Token: "given", Endpoint: "http://mirror", Offline: true}, env())
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"org/name", "name@main", "org/name@refs/pr/1", "../x@y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRef(s)
		if err != nil {
			return
		}
		require.True(t, filepath.IsLocal(r.folder()) && filepath.IsLocal(r.rev))
		require.Equal(t, r.folder(), filepath.Base(r.folder()))
	})
}
