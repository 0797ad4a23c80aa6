package checkpoints

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSaveIntoReadOnlyDirectory(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o555))
	defer os.Chmod(root, 0o755)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and so does its disguise
		if os.Geteuid() == 0 {
			unix.SetfsuidRetUid(65534)
		}
		done <- Save(context.Background(), filepath.Join(root, "out"), writeVersion("new"))
	}()
	err := <-done
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NotContains(t, err.Error(), "\n")
	require.Empty(t, names(t, root))
}
