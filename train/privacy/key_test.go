package privacy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeyIsKept(t *testing.T) {
	out := t.TempDir()
	_, err := OpenKey(out)
	require.ErrorIs(t, err, fs.ErrNotExist)
	k := NewKey()
	require.NoError(t, k.Keep(out))
	dir := filepath.Join(out, Dir)
	for path, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, keyFile): 0o600} {
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, st.Mode().Perm(), path)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "a temporary file is left")
	again, err := OpenKey(out)
	require.NoError(t, err)
	require.Equal(t, k.secret(), again.secret())
	require.Equal(t, k.Fingerprint(), again.Fingerprint())
	require.False(t, again.Seeded())
	require.ErrorContains(t, NewKey().Keep(out), "is there already")
	kept, err := OpenKey(out)
	require.NoError(t, err)
	require.Equal(t, k.secret(), kept.secret(), "a key was replaced")
	require.NotEqual(t, NewKey().secret(), NewKey().secret())
}

func TestKeyThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir, key string)
		want  string
	}{
		"others read it": {func(t *testing.T, _, key string) { require.NoError(t, os.Chmod(key, 0o640)) }, "key is of mode 0640"},
		"others enter":   {func(t *testing.T, dir, _ string) { require.NoError(t, os.Chmod(dir, 0o755)) }, "private is of mode 0755"},
		"short":          {func(t *testing.T, _, key string) { require.NoError(t, os.Truncate(key, 31)) }, "has 31 bytes, a key has 32"},
		"empty":          {func(t *testing.T, _, key string) { require.NoError(t, os.Truncate(key, 0)) }, "has 0 bytes"},
		"long":           {func(t *testing.T, _, key string) { require.NoError(t, os.Truncate(key, 33)) }, "has 33 bytes"},
		"a link":         {func(t *testing.T, _, key string) { link(t, key) }, "key"},
		"a directory": {func(t *testing.T, _, key string) {
			require.NoError(t, os.Remove(key))
			require.NoError(t, os.Mkdir(key, 0o700))
		}, "key is no regular file"},
		"a link to elsewhere": {func(t *testing.T, dir, _ string) { link(t, dir) }, "private is no directory"},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			require.NoError(t, NewKey().Keep(out))
			c.spoil(t, filepath.Join(out, Dir), filepath.Join(out, Dir, keyFile))
			_, err := OpenKey(out)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// link moves a file and puts a link in its place.
func link(t *testing.T, path string) {
	require.NoError(t, os.Rename(path, path+".moved"))
	require.NoError(t, os.Symlink(path+".moved", path))
}

func TestKeyNeverShows(t *testing.T) {
	for _, k := range []*Key{NewKey(), Insecure(1), {}, nil} {
		type run struct {
			Key   *Key
			value any
			in    []*Key
		}
		type holder struct {
			key Key
			Key *Key
		}
		var held Key
		if k != nil {
			held = *k
		}
		var shown []string
		for _, v := range []any{k, run{k, k, []*Key{k}}, &run{k, k, nil}, holder{held, k}, &holder{held, k}, map[string]*Key{"k": k}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%p", "%t", "%08b"} {
				shown = append(shown, fmt.Sprintf(verb, v))
			}
		}
		if k != nil {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				require.Equal(t, k.String(), fmt.Sprintf(verb, k))
			}
			b, err := json.Marshal(map[string]any{"key": k, "run": run{Key: k}})
			require.NoError(t, err)
			require.Contains(t, string(b), k.Fingerprint())
			shown = append(shown, string(b), k.String(), k.GoString())
		}
		shown = append(shown, fmt.Sprint(errors.Join(fmt.Errorf("a %v", k))))
		if k == nil || k.secret == nil {
			continue
		}
		s := k.secret()
		for _, text := range shown {
			low := strings.ToLower(text)
			for at := 0; at+4 <= len(s); at++ {
				require.NotContains(t, low, hex.EncodeToString(s[at:at+4]))
				require.NotContains(t, text, fmt.Sprint(s[at : at+4])[1:len(fmt.Sprint(s[at:at+4]))-1])
			}
			require.False(t, bytes.Contains([]byte(text), s[:8]))
		}
		require.NotEqual(t, hex.EncodeToString(s[:16]), k.Fingerprint())
	}
}
