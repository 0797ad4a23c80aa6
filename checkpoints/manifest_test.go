package checkpoints

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestVerifyFindsChanges(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for name, c := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"content": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "1_Pooling", "config.json"), []byte("odd"), 0o644)
		}, "1_Pooling/config.json has SHA-256 "},
		"size": {func(dir string) error { return os.Truncate(filepath.Join(dir, ModelFile), 7) }, "model.safetensors has 7 bytes, expected 120000"},
		"gone": {func(dir string) error { return os.Remove(filepath.Join(dir, ModelFile)) }, "model.safetensors is missing"},
		"added": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "1_Pooling", "x.json"), nil, 0o644)
		}, "1_Pooling/x.json was added"},
		"added weights": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, AdapterFile), nil, 0o644)
		}, "adapter_model.safetensors was added"},
		"link": {func(dir string) error {
			p := filepath.Join(dir, ModelFile)
			if err := os.Rename(p, filepath.Join(filepath.Dir(dir), "elsewhere")); err != nil {
				return err
			}
			return os.Symlink("../elsewhere", p)
		}, "leads out of the directory"},
		"manifest":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, ManifestFile), []byte("{}"), 0o644) }, "MANIFEST.json: version and files must both be given"},
		"torn":      {func(dir string) error { return os.Truncate(filepath.Join(dir, ManifestFile), 20) }, "MANIFEST.json: not valid JSON"},
		"harmless":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o644) }, ""},
		"elsewhere": {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "onnx", "x.json"), 0o755) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			require.NoError(t, Save(context.Background(), dir, writeVersion("old")))
			m, err := Verify(dir)
			require.NoError(t, err)
			f, ok := m.File("1_Pooling/config.json")
			require.True(t, ok)
			require.EqualValues(t, 3, f.Size)
			require.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte("old"))), f.SHA256)
			require.NoError(t, c.change(dir))
			_, err = Verify(dir)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, dir)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	m, err := Verify(t.TempDir())
	require.NoError(t, err)
	require.Nil(t, m)
	empty := filepath.Join(t.TempDir(), "out")
	require.NoError(t, Save(context.Background(), empty, func(string) error { return nil }))
	m, err = Verify(empty)
	require.NoError(t, err)
	require.Empty(t, m.Files)
}

func TestVerifierRemembersLargeFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	weights := filepath.Join(dir, ModelFile)
	require.NoError(t, Save(context.Background(), dir, func(tmp string) error {
		return os.WriteFile(filepath.Join(tmp, ModelFile), bytes.Repeat([]byte("x"), minRemembered), 0o644)
	}))
	cache := filepath.Join(t.TempDir(), "cache", "verified.json")
	_, err := (&Verifier{Cache: cache}).Verify(dir)
	require.NoError(t, err)
	require.NoFileExists(t, cache, "a file this young may change within one tick of the clock")

	time.Sleep(settled + 200*time.Millisecond)
	_, err = (&Verifier{Cache: cache}).Verify(dir)
	require.NoError(t, err)
	require.FileExists(t, cache)

	// Proof that the sum comes from the cache: a wrong one there is believed.
	var rs []remembered
	b, err := os.ReadFile(cache)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &rs))
	require.Len(t, rs, 1)
	rs[0].SHA256 = strings.Repeat("0", 64)
	b, err = json.Marshal(rs)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cache, b, 0o600))
	_, err = (&Verifier{Cache: cache}).Verify(dir)
	require.ErrorContains(t, err, "has SHA-256 0000")

	// A change is noticed even where size and modification time are put back.
	st, err := os.Stat(weights)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(weights, bytes.Repeat([]byte("y"), minRemembered), 0o644))
	require.NoError(t, os.Chtimes(weights, st.ModTime(), st.ModTime()))
	_, err = (&Verifier{Cache: cache}).Verify(dir)
	require.ErrorContains(t, err, "has SHA-256 ")
	require.NotContains(t, err.Error(), "0000000000")

	// Neither a damaged cache file nor a place that cannot be written is an error.
	require.NoError(t, os.WriteFile(weights, bytes.Repeat([]byte("x"), minRemembered), 0o644))
	require.NoError(t, os.WriteFile(cache, []byte("{"), 0o600))
	for _, c := range []string{cache, "/dev/null/x", ""} {
		_, err = (&Verifier{Cache: c}).Verify(dir)
		require.NoError(t, err)
	}
}

const zeroSum = `"0000000000000000000000000000000000000000000000000000000000000000"`

var manifests = map[string]string{
	`{"version":1,"files":[{"name":"a","size":1,"sha256":` + zeroSum + `}]}`: "",
	`{"version":2,"files":[]}`:  "version 2 is not known",
	`{"version":1,"version":1}`: "stands twice",
	`{"version":1}`:             "must both be given",
	`{"Version":1}`:             "unknown key",
	`{"version":1,"files":[{"name":"../a","size":1,"sha256":` + zeroSum + `}]}`:                                             "no file name",
	`{"version":1,"files":[{"name":"/a","size":1,"sha256":` + zeroSum + `}]}`:                                               "no file name",
	`{"version":1,"files":[{"name":"a","size":-1,"sha256":` + zeroSum + `}]}`:                                               "no whole number",
	`{"version":1,"files":[{"name":"a","sha256":` + zeroSum + `}]}`:                                                         "has no size",
	`{"version":1,"files":[{"name":"a","size":1,"sha256":"00"}]}`:                                                           "has no SHA-256",
	`{"version":1,"files":[{"name":"a","size":1,"x":1}]}`:                                                                   "unknown key",
	`{"version":1,"files":[{"name":"MANIFEST.json","size":1,"sha256":` + zeroSum + `}]}`:                                    "no file name",
	`{"version":1,"files":[{"name":"a","size":1,"sha256":` + zeroSum + `},{"name":"a","size":1,"sha256":` + zeroSum + `}]}`: `"a" stands twice`,
}

func TestParseManifest(t *testing.T) {
	for text, want := range manifests {
		_, err := parseManifest([]byte(text))
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want, text)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	for text := range manifests {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		require.NoError(t, err)
		m2, err := parseManifest(again)
		require.NoError(t, err)
		require.Equal(t, len(m.Files), len(m2.Files))
		for i := range m.Files {
			require.Equal(t, m.Files[i], m2.Files[i])
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "out")
	require.NoError(b, Save(context.Background(), dir, func(tmp string) error {
		return os.WriteFile(filepath.Join(tmp, ModelFile), make([]byte, 64<<20), 0o644)
	}))
	time.Sleep(settled + 200*time.Millisecond)
	b.Run("hashing", func(b *testing.B) {
		b.SetBytes(64 << 20)
		for b.Loop() {
			_, err := (&Verifier{}).Verify(dir)
			require.NoError(b, err)
		}
	})
	b.Run("remembered", func(b *testing.B) {
		v := &Verifier{}
		for b.Loop() {
			_, err := v.Verify(dir)
			require.NoError(b, err)
		}
	})
}
