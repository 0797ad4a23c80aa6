package checkpoints

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// writeVersion writes a directory of two files, one in a subdirectory, both saying v.
func writeVersion(v string) func(string) error {
	return func(tmp string) error {
		if err := os.Mkdir(filepath.Join(tmp, "1_Pooling"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, "1_Pooling", "config.json"), []byte(v), 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, ModelFile), bytes.Repeat([]byte(v), 40_000), 0o644)
	}
}

// version checks that dir is whole and returns which one it is.
func version(t *testing.T, dir string) string {
	t.Helper()
	m, err := (&Verifier{}).Verify(dir)
	require.NoError(t, err)
	require.NotNil(t, m)
	require.Len(t, m.Files, 2)
	b, err := os.ReadFile(filepath.Join(dir, "1_Pooling", "config.json"))
	require.NoError(t, err)
	return string(b)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestSave(t *testing.T) {
	ctx := context.Background()
	for _, noExchange := range []bool{false, true} {
		t.Run(fmt.Sprint("noExchange=", noExchange), func(t *testing.T) {
			s := &saver{noExchange: noExchange}
			root := t.TempDir()
			dir := filepath.Join(root, "deep", "out")
			require.NoError(t, s.save(ctx, dir, writeVersion("old")))
			require.Equal(t, "old", version(t, dir))
			require.NoError(t, os.Chmod(dir, 0o700))
			require.NoError(t, s.save(ctx, dir, writeVersion("new")))
			require.Equal(t, "new", version(t, dir))
			st, err := os.Stat(dir)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o700), st.Mode().Perm())
			require.Equal(t, []string{"out"}, names(t, filepath.Dir(dir)))

			link := filepath.Join(root, "link")
			require.NoError(t, os.Symlink(dir, link))
			require.NoError(t, s.save(ctx, link, writeVersion("third")))
			require.Equal(t, "third", version(t, dir))

			empty := filepath.Join(root, "empty")
			require.NoError(t, os.Mkdir(empty, 0o755))
			require.NoError(t, s.save(ctx, empty, writeVersion("new")))
			require.Equal(t, "new", version(t, empty))
		})
	}
}

func TestSaveRefuses(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	path := func(name string) string { return filepath.Join(root, name) }
	require.NoError(t, os.WriteFile(path("file"), nil, 0o600))
	require.NoError(t, os.Mkdir(path("foreign"), 0o755))
	require.NoError(t, os.WriteFile(path("foreign/thesis.tex"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("nowhere", path("dangling")))
	before := names(t, root)
	for _, c := range []struct{ dir, want string }{
		{path("file"), "it is a file"},
		{path("file/sub"), "not a directory"},
		{path("foreign"), "holds thesis.tex and no MANIFEST.json"},
		{path("dangling"), "leads nowhere"},
		{"/", "root directory"},
	} {
		err := Save(ctx, c.dir, writeVersion("new"))
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, "checkpoints: save "+c.dir)
		require.NotContains(t, err.Error(), "\n")
	}
	dir := path("out")
	sentinel := errors.New("mine")
	require.ErrorIs(t, Save(ctx, dir, func(string) error { return sentinel }), sentinel)
	require.Panics(t, func() { Save(ctx, dir, func(string) error { panic("x") }) })
	for _, name := range []string{ManifestFile, lockFile} {
		err := Save(ctx, dir, func(tmp string) error { return os.WriteFile(filepath.Join(tmp, name), nil, 0o600) })
		require.ErrorContains(t, err, "written by Save itself")
	}
	err := Save(ctx, dir, func(tmp string) error { return os.Symlink("/etc/passwd", filepath.Join(tmp, "a")) })
	require.ErrorContains(t, err, "a is no regular file")
	cancelled, cancel := context.WithCancel(ctx)
	err = Save(cancelled, dir, func(tmp string) error { cancel(); return writeVersion("new")(tmp) })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, Save(cancelled, dir, writeVersion("new")), context.Canceled)
	require.Equal(t, before, names(t, root))
}

// TestSaveFailsAtEachStep lets every step fail, as a full disk would, and expects the old directory whole
// and nothing left beside it; from the exchange on, the new one whole.
func TestSaveFailsAtEachStep(t *testing.T) {
	ctx := context.Background()
	for _, first := range []bool{true, false} {
		for _, noExchange := range []bool{true, false} {
			for n := 0; ; n++ {
				root := t.TempDir()
				dir := filepath.Join(root, "out")
				if !first {
					require.NoError(t, Save(ctx, dir, writeVersion("old")))
				}
				at, failed, placed := 0, "", false
				s := &saver{noExchange: noExchange, before: func(step, path string) error {
					if at++; at-1 != n {
						return nil
					}
					failed = step
					placed = step == "remove" || step == "sync" && path == filepath.Clean(root)+map[bool]string{true: "/", false: ""}[first]
					return unix.ENOSPC
				}}
				err := s.save(ctx, dir, writeVersion("new"))
				if failed == "" {
					require.NoError(t, err)
					require.Greater(t, n, 7)
					break
				}
				require.ErrorIs(t, err, unix.ENOSPC)
				if placed {
					require.Equal(t, "new", version(t, dir), failed)
				} else if first {
					require.Empty(t, names(t, root), failed)
				} else {
					require.Equal(t, "old", version(t, dir), failed)
					require.Equal(t, []string{"out"}, names(t, root), failed)
				}
				require.NoError(t, Save(ctx, dir, writeVersion("again")))
				require.Equal(t, "again", version(t, dir))
				require.Equal(t, []string{"out"}, names(t, root), failed)
			}
		}
	}
}

// TestSaveKilledAtEachStep kills a saving process before each step.
func TestSaveKilledAtEachStep(t *testing.T) {
	ctx := context.Background()
	for _, verb := range []string{"kill", "kill-renaming"} {
		t.Run(verb, func(t *testing.T) {
			seen := map[string]int{}
			for n := 0; ; n++ {
				root := t.TempDir()
				dir := filepath.Join(root, "out")
				require.NoError(t, Save(ctx, dir, writeVersion("old")))
				out, err := childCommand(t, fmt.Sprintf("%s:%d", verb, n), dir).CombinedOutput()
				if err == nil {
					require.Equal(t, "new", version(t, dir))
					break
				}
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit)
				require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), string(out))
				if verb == "kill" { // whole at once; without exchange, after the next Lock or Save
					seen[version(t, dir)]++
				}
				l, err := Lock(dir)
				require.NoError(t, err)
				seen[version(t, dir)]++
				require.Equal(t, []string{"out"}, names(t, root))
				require.NoError(t, Save(ctx, dir, writeVersion("again")))
				require.Equal(t, "again", version(t, dir))
				require.NoError(t, l.Close())
			}
			require.Positive(t, seen["old"])
			require.Positive(t, seen["new"])
			require.Len(t, seen, 2)
		})
	}
}

func TestSaveOnFullDisk(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "out")
	require.NoError(t, Save(context.Background(), dir, writeVersion("old")))
	out, err := childCommand(t, "full", dir).CombinedOutput()
	require.Error(t, err)
	require.Regexp(t, `^checkpoints: save .*/out: write .*: file too large\n$`, string(out))
	require.Equal(t, "old", version(t, dir))
	require.Equal(t, []string{"out"}, names(t, root))
}

func TestLeftoversOfLivingWritersStay(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	dir := filepath.Join(root, "out")
	err := Save(ctx, dir, func(tmp string) error {
		if err := Save(ctx, dir, writeVersion("inner")); err != nil {
			return err
		}
		return writeVersion("outer")(tmp)
	})
	require.NoError(t, err)
	require.Equal(t, "outer", version(t, dir))
	require.Equal(t, []string{"out"}, names(t, root))

	// What only looks like a leftover is not touched.
	for _, name := range []string{".out.tmp-12", ".other.tmp-0123456789abcdef", "out.tmp-0123456789abcdef"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, name), 0o755))
	}
	require.NoError(t, Save(ctx, dir, writeVersion("new")))
	require.Len(t, names(t, root), 4)
}

func childCommand(t *testing.T, job, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childVar+"="+job, childVar+"_DIR="+dir)
	return cmd
}

func ExampleSave() {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "best")
	err = Save(context.Background(), dir, func(tmp string) error {
		return os.WriteFile(filepath.Join(tmp, "config.json"), []byte("{}"), 0o644)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := Verify(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range m.Files {
		fmt.Println(f.Name, f.Size, f.SHA256[:8])
	}
	// Output: config.json 2 44136fa3
}
